"""Hashes and records: what a stage leaves in its outputs, and what it refuses to read."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.hashing import hash_of, hash_of_entries
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import Journal, Spending, write_journal
from llm2llm.components.shared.lineage.records import (
    DIGEST_VARIABLE,
    DIGITS,
    LINEAGE,
    label_of,
    read_inputs,
    record_of,
)
from llm2llm.components.shared.registry.digests import with_rows
from llm2llm.components.shared.stage import stage_lifecycle
from tests.support.builders import artifacts, call

DATA = Path(__file__).parent / "data"


def written(path: Path, text: str) -> LocalArtifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return LocalArtifact(str(path))


def content(text: str) -> str:
    """A JSON artifact."""
    return json.dumps({"text": text})


def sha256_of(text: str) -> str:
    """The content hash of that artifact, with a record in it."""
    return hashlib.sha256(f'{{"text":"{text}"}}'.encode()).hexdigest()


def make(name: str, iteration: int | None, inputs: dict[str, Any], path: Path, text: str) -> LocalArtifact:
    """A stage that writes one file."""
    artifact = LocalArtifact(str(path))
    with stage_lifecycle(name, iteration=iteration, inputs=inputs, outputs={"out": artifact}):
        written(path, content(text))
    return artifact


def record(artifact: LocalArtifact) -> dict[str, Any]:
    found = record_of(artifact)
    assert found is not None
    return found


class TestHash:
    def test_of_a_file_is_that_of_its_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x" * 3_000_000)
        assert hash_of(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()

    def test_of_a_folder_does_not_depend_on_where_it_is(self, tmp_path: Path) -> None:
        written(tmp_path / "one/b/c.txt", "c")
        written(tmp_path / "one/a.txt", "a")
        shutil.copytree(tmp_path / "one", tmp_path / "elsewhere/two")
        entries = {name: (1, hashlib.sha256(name[-5:-4].encode()).hexdigest()) for name in ("a.txt", "b/c.txt")}
        assert hash_of(tmp_path / "one") == hash_of(tmp_path / "elsewhere/two") == hash_of_entries(entries)

    @pytest.mark.parametrize("change", ["content", "name", "more", "less"])
    def test_of_a_folder_sees_every_change(self, tmp_path: Path, change: str) -> None:
        for name in ("a", "b"):
            written(tmp_path / "f" / name, name)
        before = hash_of(tmp_path / "f")
        match change:
            case "content":
                (tmp_path / "f/a").write_text("A")
            case "name":
                (tmp_path / "f/a").rename(tmp_path / "f/c")
            case "more":
                written(tmp_path / "f/c", "")
            case "less":
                (tmp_path / "f/b").unlink()
        assert hash_of(tmp_path / "f") != before

    @given(st.dictionaries(st.text("ab/", min_size=1), st.tuples(st.integers(0, 9), st.text("01", min_size=2))))
    def test_the_order_of_the_files_does_not_matter(self, files: dict[str, tuple[int, str]]) -> None:
        assert hash_of_entries(files) == hash_of_entries(dict(reversed(list(files.items()))))


class TestRecord:
    def test_names_inputs_outputs_and_their_makers(self, tmp_path: Path) -> None:
        seeds = make("prepare", None, {"seeds": str(written(tmp_path / "seeds.jsonl", "{}").path)}, tmp_path / "s", "s")
        model = make("train", 1, {"training_set": seeds, "previous": None, "student": "tiny"}, tmp_path / "m", "m")
        found = record(make("evaluate", 1, {"model": model, "sets": [seeds, seeds]}, tmp_path / "p", "p"))
        assert (found["stage"], found["iteration"], found["fold"], found["output"]) == ("evaluate", 1, None, "out")
        digest = {name: sha256_of(name) for name in "smp"}
        made_by_prepare = {"sha256": digest["s"], "made_by": "prepare", "output": "out"}
        assert found["inputs"] == {
            "model": {"sha256": digest["m"], "made_by": "train 1", "output": "out"},
            "sets[0]": made_by_prepare,
            "sets[1]": made_by_prepare,
        }
        assert found["outputs"] == {"out": {"sha256": digest["p"]}}
        # All that came before, each once, and without makers of their own.
        assert list(found["makers"]) == ["prepare", "train 1"]
        assert found["makers"]["train 1"]["inputs"] == {
            "training_set": made_by_prepare,
            "student": {"source": "tiny", "sha256": None},
        }
        assert "makers" not in found["makers"]["train 1"]
        assert record(seeds)["inputs"]["seeds"] == {
            "source": "seeds.jsonl",
            "sha256": hashlib.sha256(b"{}").hexdigest(),
        }
        assert found["libraries"]["torch"]
        assert "torch" not in record(seeds)["libraries"]

    def test_is_the_same_wherever_and_whenever_it_is_made(self, tmp_path: Path) -> None:
        records = []
        for folder in ("one", "two"):
            seeds = make(
                "prepare", None, {"seeds": written(tmp_path / folder / "in", "x").path}, tmp_path / folder / "s", "s"
            )
            model = make("train", 0, {"training_set": seeds}, tmp_path / folder / "model", "m")
            records.append((seeds.metadata, model.metadata, record(seeds), record(model)))
        assert records[0] == records[1]

    def test_names_the_image_where_the_pod_was_told_its_digest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "image_digest" not in record(make("train", 0, {}, tmp_path / "a", "a"))
        monkeypatch.setenv(DIGEST_VARIABLE, "sha256:1234")
        assert record(make("train", 0, {}, tmp_path / "a", "a"))["image_digest"] == "sha256:1234"

    @pytest.mark.parametrize(("left", "maker"), [(-3, "its stage"), (None, "prepare")])
    def test_an_input_that_is_not_what_was_written_is_refused_and_named(
        self, tmp_path: Path, left: int | None, maker: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seeds = make("prepare", None, {}, tmp_path / "seeds", "all of it")
        damaged = (tmp_path / "seeds").read_text().replace("all of it", "all of")[:left]
        (tmp_path / "seeds").write_text(damaged)
        with pytest.raises(SystemExit) as caught:
            make("train", 0, {"training_set": seeds}, tmp_path / "model", "m")
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'seeds'}: is not what {maker} has written" in said
        assert not (tmp_path / "model").exists()

    def test_a_failed_stage_leaves_no_record(self, tmp_path: Path) -> None:
        artifact = LocalArtifact(str(tmp_path / "a"))
        written(tmp_path / "a", "{}")
        with pytest.raises(ZeroDivisionError), stage_lifecycle("train", outputs={"out": artifact}):
            raise ZeroDivisionError
        assert artifact.metadata == {}
        assert (tmp_path / "a").read_text() == "{}"

    def test_an_output_that_is_not_there_is_no_failure(self, tmp_path: Path) -> None:
        never, there = LocalArtifact(str(tmp_path / "never-written")), LocalArtifact(str(tmp_path / "b"))
        with stage_lifecycle("train", outputs={"never": never, "there": there}):
            written(tmp_path / "b", "{}")
        assert never.metadata == {}
        assert record(there)["outputs"] == {
            "never": {"sha256": None},
            "there": {"sha256": hashlib.sha256(b"{}").hexdigest()},
        }

    def test_metadata_says_the_hash_alone_even_of_what_can_hold_no_record(self, tmp_path: Path) -> None:
        outputs = {name: LocalArtifact(str(tmp_path / name)) for name in ("html", "metrics", "confusion", "config")}
        with stage_lifecycle("report", outputs=outputs):
            for name, artifact in outputs.items():
                written(Path(artifact.path), "<p>" if name == "html" else "{}")
        assert outputs["html"].metadata == {"sha256": hashlib.sha256(b"<p>").hexdigest()[:DIGITS]}
        assert outputs["config"].metadata == {"sha256": hashlib.sha256(b"{}").hexdigest()[:DIGITS]}
        # Kubeflow shows the metadata of these as figures, and they are read as they were written.
        for name in ("metrics", "confusion"):
            assert outputs[name].metadata == {}
            assert Path(outputs[name].path).read_text() == "{}"

    def test_a_shard_is_not_a_fold(self, tmp_path: Path) -> None:
        artifact = LocalArtifact(str(tmp_path / "a"))
        with stage_lifecycle("predict", iteration=1, shard=2, outputs={"out": artifact}):
            written(tmp_path / "a", "{}")
        assert (record(artifact)["fold"], record(artifact)["shard"]) == (None, 2)
        assert label_of(record(artifact)) == "predict 1 shard 2"

    def test_what_the_settings_name_is_recorded_too(self, tmp_path: Path) -> None:
        artifact = LocalArtifact(str(tmp_path / "a"))
        with stage_lifecycle("prepare", outputs={"out": artifact}) as named:
            written(tmp_path / "a", "{}")
            named["seeds"] = written(tmp_path / "seeds.jsonl", "x").path
        sha256 = hashlib.sha256(b"x").hexdigest()
        assert record(artifact)["inputs"] == {"seeds": {"source": "seeds.jsonl", "sha256": sha256}}

    def test_metadata_of_another_artifact_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """As when a store has the file of another run under the name that Kubeflow knows."""
        one, other = (make("prepare", None, {}, tmp_path / name, name) for name in ("one", "other"))
        with pytest.raises(SystemExit):
            make("train", 0, {"training_set": LocalArtifact(one.path, other.metadata)}, tmp_path / "m", "m")
        assert f"{one.path}: is not what prepare has written" in capsys.readouterr().err

    def test_what_a_run_has_paid_is_no_part_of_its_journal(self, tmp_path: Path) -> None:
        journals = artifacts(tmp_path, "one", "two", "other")
        for name, calls, usd in (("one", [call("a")], 1.0), ("two", [call("a")], 0.0), ("other", [call("b")], 1.0)):
            with stage_lifecycle("teacher_augment", iteration=1, outputs={"journal": journals[name]}):
                write_journal(journals[name], Journal(calls=calls, spent=Spending(usd=usd)))
        one, two, other = (record(journal)["outputs"]["journal"] for journal in journals.values())
        assert one == two != other

    def test_what_came_by_hand_and_was_changed_is_a_file_of_ones_own(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As somebody leaves it who reads an artifact, takes a few rows out, and writes it with all its keys."""
        seeds = make("prepare", None, {}, tmp_path / "seeds", "all of it")
        values = json.loads((tmp_path / "seeds").read_text())
        changed = written(tmp_path / "mine", json.dumps({**values, "text": "some of it"}))
        given, makers = read_inputs({"training_set": changed, "whole": LocalArtifact(seeds.path)})
        assert given["training_set"] == {"sha256": sha256_of("some of it")}
        assert given["whole"] == {"sha256": sha256_of("all of it"), "made_by": "prepare", "output": "out"}
        assert list(makers) == ["prepare"], "of the whole"
        assert "training_set is not as prepare wrote it" in capsys.readouterr().out

    def test_foreign_metadata_is_no_record(self, tmp_path: Path) -> None:
        for text in ("", "no JSON", "[]", "{}", 7, '{"version": 99}'):
            assert record_of(LocalArtifact("a", {LINEAGE: text})) is None


class TestRunsOfBefore:
    """Their records are in the metadata, their hashes are those of all bytes. `data/` has an artifact that `prepare`
    left when it was so, and its metadata."""

    @pytest.fixture
    def seeds(self, tmp_path: Path) -> LocalArtifact:
        shutil.copyfile(DATA / "seeds_set.parquet", tmp_path / "seeds_set")
        return LocalArtifact(str(tmp_path / "seeds_set"), json.loads((DATA / "seeds_set.json").read_text()))

    def test_are_read_and_go_into_new_records(self, seeds: LocalArtifact, tmp_path: Path) -> None:
        assert record(seeds)["version"] == 1
        found = record(make("train", 0, {"training_set": seeds}, tmp_path / "model", "m"))
        sha256 = record(seeds)["outputs"]["seeds_set"]["sha256"]
        assert sha256 == hashlib.sha256(Path(seeds.path).read_bytes()).hexdigest()
        assert found["inputs"] == {"training_set": {"sha256": sha256, "made_by": "prepare", "output": "seeds_set"}}

    def test_are_checked_as_then(
        self, seeds: LocalArtifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damaged = bytearray(Path(seeds.path).read_bytes())
        damaged[200] ^= 1
        Path(seeds.path).write_bytes(damaged)
        with pytest.raises(SystemExit):
            make("train", 0, {"training_set": seeds}, tmp_path / "model", "m")
        assert "seeds_set: is not what prepare has written" in capsys.readouterr().err

    def test_what_lies_beside_them_is_known(self, seeds: LocalArtifact) -> None:
        """A registry compares by the rows that a config names, too."""
        config = {"data": {"replay": "general.jsonl"}}
        replay = record(seeds)["outputs"]["replay_set"]["sha256"]
        assert with_rows(config, seeds) == {**config, "rows": {"replay_set": replay}}


@pytest.mark.slow
def test_records_go_from_task_to_task_of_a_pipeline(tmp_path: Path) -> None:
    """Through Kubeflow's own runner, cache and metadata, where metrics stay free of them."""
    warnings.filterwarnings("ignore", module=r"kfp\..*")
    from kfp import dsl, local
    from kfp.dsl import Dataset, Input, Metrics, Output

    @dsl.component(install_kfp_package=False)
    def first(rows: Output[Dataset], metrics: Output[Metrics]):
        from llm2llm.components.shared.stage import stage_lifecycle

        with stage_lifecycle("prepare", outputs={"rows": rows, "metrics": metrics}):
            metrics.log_metric("accuracy", 0.5)
            for path in (rows.path, metrics.path):
                with open(path, "w", encoding="utf-8") as file:
                    file.write('{"text": "x"}')

    @dsl.component(install_kfp_package=False)
    def second(rows: Input[Dataset], more: Output[Dataset]) -> str:
        import json

        from llm2llm.components.shared.lineage.records import record_of
        from llm2llm.components.shared.stage import stage_lifecycle

        inputs, outputs = {"rows": rows}, {"more": more}
        with stage_lifecycle("train", iteration=0, inputs=inputs, outputs=outputs), open(more.path, "w") as file:
            file.write('{"text": "y"}')
        return json.dumps({"metadata": more.metadata, "record": record_of(more)})

    @dsl.pipeline(name="toy")
    def toy() -> str:
        return second(rows=first().outputs["rows"]).outputs["Output"]

    for _ in range(2):  # the second time out of the cache
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(tmp_path / "root"),
            enable_caching=True,
            cache_root=str(tmp_path / "cache"),
        )
        said = json.loads(toy().outputs["Output"])
        made = said["record"]
        assert made["inputs"] == {"rows": {"sha256": sha256_of("x"), "made_by": "prepare", "output": "rows"}}
        assert made["outputs"] == {"more": {"sha256": sha256_of("y")}}
        assert said["metadata"] == {"sha256": sha256_of("y")[:DIGITS]}
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*.json")]
    (of_first,) = [one for one in kept if "metrics" in one]
    assert of_first["metrics"]["metadata"] == {"accuracy": 0.5}
    assert of_first["rows"]["metadata"] == {"sha256": sha256_of("x")[:DIGITS]}
