"""Hashes and records: what a stage leaves in its outputs' metadata, and what it refuses to read."""

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
from llm2llm.components.shared.lineage.records import DIGEST_VARIABLE, LINEAGE, record_of
from llm2llm.components.shared.stage import stage


def written(path: Path, text: str) -> LocalArtifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return LocalArtifact(str(path))


def make(name: str, iteration: int | None, inputs: dict[str, Any], path: Path, text: str) -> LocalArtifact:
    """A stage that writes one file."""
    artifact = LocalArtifact(str(path))
    with stage(name, iteration, inputs=inputs, outputs={"out": artifact}):
        written(path, text)
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
        digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in "smp"}
        made_by_prepare = {"sha256": digest["s"], "made_by": "prepare", "output": "out"}
        assert found["inputs"] == {
            "model": {"sha256": digest["m"], "made_by": "train 1", "output": "out"},
            "sets[0]": made_by_prepare,
            "sets[1]": made_by_prepare,
        }
        assert found["outputs"] == {"out": {"sha256": digest["p"]}}
        # Of the same iteration only, and without makers of their own: they would grow with every stage.
        assert list(found["makers"]) == ["train 1"]
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
            records.append((seeds.metadata, model.metadata))
        assert records[0] == records[1]

    def test_names_the_image_where_the_pod_was_told_its_digest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "image_digest" not in record(make("train", 0, {}, tmp_path / "a", "a"))
        monkeypatch.setenv(DIGEST_VARIABLE, "sha256:1234")
        assert record(make("train", 0, {}, tmp_path / "a", "a"))["image_digest"] == "sha256:1234"

    def test_an_input_that_is_not_what_was_written_is_refused_and_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seeds = make("prepare", None, {}, tmp_path / "seeds", "all of it")
        (tmp_path / "seeds").write_text("all of")
        with pytest.raises(SystemExit) as caught:
            make("train", 0, {"training_set": seeds}, tmp_path / "model", "m")
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'seeds'}: is not what prepare has written" in said
        assert not (tmp_path / "model").exists()

    def test_a_failed_stage_leaves_no_record(self, tmp_path: Path) -> None:
        artifact = LocalArtifact(str(tmp_path / "a"))
        with pytest.raises(ZeroDivisionError), stage("train", outputs={"out": artifact}):
            raise ZeroDivisionError
        assert LINEAGE not in artifact.metadata

    def test_an_output_that_is_not_there_is_no_failure(self, tmp_path: Path) -> None:
        artifact = LocalArtifact(str(tmp_path / "never-written"))
        with stage("train", outputs={"out": artifact}):
            pass
        assert record(artifact)["outputs"] == {"out": {"sha256": None}}

    def test_foreign_metadata_is_no_record(self, tmp_path: Path) -> None:
        for text in ("", "no JSON", "[]", "{}", 7, '{"version": 99}'):
            assert record_of(LocalArtifact("a", {LINEAGE: text})) is None


@pytest.mark.slow
def test_records_go_from_task_to_task_of_a_pipeline(tmp_path: Path) -> None:
    """Through Kubeflow's own runner, cache and metadata, where metrics stay free of them."""
    warnings.filterwarnings("ignore", module=r"kfp\..*")
    from kfp import dsl, local
    from kfp.dsl import Dataset, Input, Metrics, Output

    @dsl.component(install_kfp_package=False)
    def first(rows: Output[Dataset], metrics: Output[Metrics]):
        from llm2llm.components.shared.stage import stage

        with stage("prepare", outputs={"rows": rows, "metrics": metrics}):
            metrics.log_metric("accuracy", 0.5)
            for path in (rows.path, metrics.path):
                with open(path, "w", encoding="utf-8") as file:
                    file.write("x")

    @dsl.component(install_kfp_package=False)
    def second(rows: Input[Dataset], more: Output[Dataset]) -> str:
        import json

        from llm2llm.components.shared.stage import stage

        with stage("train", 0, inputs={"rows": rows}, outputs={"more": more}), open(more.path, "w") as file:
            file.write("y")
        return json.dumps(more.metadata)

    @dsl.pipeline(name="toy")
    def toy() -> str:
        return second(rows=first().outputs["rows"]).outputs["Output"]

    hashes = {text: hashlib.sha256(text.encode()).hexdigest() for text in "xy"}
    for _ in range(2):  # the second time out of the cache
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(tmp_path / "root"),
            enable_caching=True,
            cache_root=str(tmp_path / "cache"),
        )
        made = json.loads(json.loads(toy().outputs["Output"])[LINEAGE])
        assert made["inputs"] == {"rows": {"sha256": hashes["x"], "made_by": "prepare", "output": "rows"}}
        assert made["outputs"] == {"more": {"sha256": hashes["y"]}}
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*.json")]
    (of_first,) = [one for one in kept if "metrics" in one]
    assert of_first["metrics"]["metadata"] == {"accuracy": 0.5}
    assert LINEAGE in of_first["rows"]["metadata"]
