"""`llm2llm inspect why`: the chain of a kept, a rejected and a seed row, in both layouts; damaged runs; unknown ids."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.similarity import rouge_l
from llm2llm.pipelines.cli.inspect import why as why_command
from llm2llm.pipelines.inspect.most_similar import most_similar
from llm2llm.pipelines.inspect.run_files import open_run
from llm2llm.pipelines.inspect.why import id_of_text, why
from llm2llm.pipelines.inspect.wording import printable, why_text
from tests.components.shared import lineage
from tests.support.made_run import example, generated, make_run, request, seed


@pytest.fixture(scope="module", params=[False, True], ids=["of today", "of before"])
def before(request: pytest.FixtureRequest) -> bool:
    """Whether the run is one of before: a file for each kind of rows, and no records in them."""
    return bool(request.param)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, before: bool) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", seeds=24, before=before)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def of(run: Path, row: str) -> dict[str, Any]:
    return why(open_run(str(run)), row)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(why_command, list(arguments))


class TestKept:
    def test_every_link_of_the_chain(self, run: Path) -> None:
        facts = of(run, generated(0, 2).id)
        assert facts["what"] == "generated"
        assert facts["row"]["question"] == generated(0, 2).question
        assert facts["seed"]["id"] == seed(0).id
        assert facts["seed"]["source"] == "seeds.jsonl:1"
        student = facts["student"]
        assert (student["iteration"], student["completion"], student["outcome"]) == (1, "no idea 1", "wrong")
        assert Path(student["model"]["uri"]).read_text() == "weights of iteration 1"
        assert len(student["model"]["sha256"]) == 64
        assert student["model"]["base"] == "tiny"
        call, ledger = facts["teacher"]["call"], facts["teacher"]["ledger"]
        assert call["key"] == generated(0, 2).call_key
        assert (call["model"], call["input_tokens"], call["output_tokens"], call["usd"]) == ("big", 100, 20, 0.0012)
        assert ledger["messages"] == list(request(0, 2).messages)
        assert generated(0, 2).question in ledger["text"]
        assert Path(ledger["uri"]).is_file()
        assert facts["checks"] == ["valid answer", "length"]
        assert facts["confidence"] == 0.75
        assert facts["used"]["training_sets"] == [2]
        assert facts["used"]["in_best"]
        assert len(facts["neighbours"]) == 3
        assert facts["rejected"] == []

    def test_its_neighbours_are_the_nearest_of_the_training_set(self, run: Path) -> None:
        file = open_run(str(run)).training_sets()[-1]
        others = [row for row in read_rows(file.uri, "examples", Example) if row.id != generated(0, 2).id]
        scores = rouge_l([generated(0, 2).question], [row.question for row in others])[0]
        found = [one["score"] for one in of(run, generated(0, 2).id)["neighbours"]]
        assert found == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-4)

    def test_in_words(self, run: Path) -> None:
        text = why_text(of(run, generated(0, 2).id))
        for part in ("kept in iteration 2", seed(0).question, "no idea 1", "Write one like this", "0.750",
                     "100 tokens in, 20 out, $0.001200", "in the training set of iteration 2"):  # fmt: skip
            assert part in text

    def test_a_promoted_version_is_named(self, copy: Path) -> None:
        verdict = copy / "artifacts/colours-2026/promote/verdict"
        verdict.parent.mkdir()
        verdict.write_text(json.dumps({"outcome": "promoted", "candidate": {"version": "v-7", "iteration": 1}}))
        event = {
            "event": "finished",
            "stage": "promote",
            "iteration": 2,
            "fold": None,
            "outputs": {"verdict": str(verdict)},
        }
        with open(copy / "events.jsonl", "a") as events:
            events.write(json.dumps(event) + "\n")
        for row, trained_on in ((generated(0, 2).id, False), (generated(0, 1).id, True), (seed(1).id, True)):
            used = of(copy, row)["used"]
            assert (used["version"], used["outcome"], used["in_version"]) == ("v-7", "promoted", trained_on)

    def test_without_its_ledger_the_rest_is_there(self, copy: Path, run: Path) -> None:
        config = copy / "artifacts/colours-2026/configure/config"
        settings = json.loads(config.read_text())
        settings["teacher_augment"]["ledger"] = "/nowhere/ledger"
        config.write_text(json.dumps(settings))
        forget_hashes(copy)
        shutil.rmtree(copy / "ledger")
        teacher = of(copy, generated(0, 2).id)["teacher"]
        assert teacher["ledger"] is None
        assert "/nowhere/ledger" in teacher["note"]
        assert teacher["call"] == of(run, generated(0, 2).id)["teacher"]["call"]


class TestRejected:
    def test_stage_reason_and_neighbour(self, run: Path) -> None:
        facts = of(run, generated(3, 1).id)
        assert facts["what"] == "rejected"
        (reject,) = facts["rejected"]
        assert (reject["stage"], reject["reason"], reject["score"]) == ("dedupe", "near_copy", 0.97)
        assert (reject["neighbour_id"], reject["neighbour"]) == (seed(1).id, seed(1).question)
        assert facts["seed"]["id"] == seed(3).id
        assert facts["student"]["completion"] == "no idea 0"
        assert facts["teacher"]["ledger"]["messages"] == list(request(3, 1).messages)
        assert "rejected   by dedupe in iteration 1: near_copy, score 0.970" in why_text(facts)


class TestUsersRows:
    def test_a_seeds_whole_history(self, run: Path) -> None:
        facts = of(run, seed(3).id)
        history = facts["history"]
        assert [(one["iteration"], one["outcome"]) for one in history["answers"]] == [
            (0, "wrong"),
            (1, "wrong"),
            (2, "wrong"),
        ]
        assert [one["iteration"] for one in history["errors"]] == [0, 1, 2]
        assert [one["id"] for one in history["rejected"]] == [generated(3, 1).id, generated(3, 2).id]
        assert history["written"] == []
        assert history["calls"]["number"] == 2
        assert [one["id"] for one in of(run, seed(0).id)["history"]["written"]] == [
            generated(0, 1).id,
            generated(0, 2).id,
        ]
        assert facts["used"]["training_sets"] == [0, 1, 2]
        assert "error      in iteration 2: unsolved" in why_text(facts)

    def test_retired_after_as_many_failures_as_the_config_says(self, tmp_path: Path) -> None:
        made = make_run(tmp_path / "run", config={"filter_errors": {"retire_after": 2}})
        assert of(made, seed(3).id)["history"]["retired"]
        assert not of(made, seed(0).id)["history"]["retired"]
        assert "retired" in why_text(of(made, seed(3).id))

    def test_what_a_seed_kept_away(self, run: Path) -> None:
        assert {one["id"] for one in of(run, seed(1).id)["collided"]} >= {generated(3, 1).id, generated(3, 2).id}

    def test_a_validation_row(self, run: Path) -> None:
        facts = of(run, example("validation", 1).id)
        assert facts["what"] == "validation"
        assert facts["used"] is None
        assert [one["outcome"] for one in facts["history"]["answers"]] == ["wrong", "correct", "correct"]


class TestNaming:
    def test_by_the_users_own_id_and_by_the_first_digits(self, run: Path) -> None:
        assert of(run, "ticket-7")["id"] == of(run, seed(7).id[:8])["id"] == seed(7).id

    def test_a_prefix_of_several_rows(self, run: Path) -> None:
        rows = [seed(0), Example(id=seed(0).id[:10] + "x" * 10, question="q", answer="a")]
        write_rows(run.parent / "two", "examples", rows)
        ours = open_run(str(run))
        ours.files = [one for one in ours.files if one.output != "seeds_set"]
        ours.files.append(type(ours.files[0])(str(run.parent / "two"), "prepare", "seeds_set", None))
        with pytest.raises(UserError, match="2 rows have an id that begins so"):
            why(ours, seed(0).id[:8])

    def test_an_unknown_id_names_the_nearest(self, run: Path) -> None:
        wrong = seed(7).id[:-1] + ("0" if seed(7).id[-1] != "0" else "1")
        with pytest.raises(UserError, match=f"did you mean '{seed(7).id}'"):
            of(run, wrong)
        with pytest.raises(UserError, match=r"no row of this id in the run at .*, which has \d+ rows"):
            of(run, "entirely else")
        with pytest.raises(UserError, match="empty"):
            of(run, "")

    def test_by_its_text(self, run: Path) -> None:
        ours = open_run(str(run))
        for row in (seed(7), generated(0, 2), example("validation", 1)):
            assert id_of_text(ours, f" {row.question.upper()} ") == row.id
        shared = seed(7).question.partition("7")[0]
        with pytest.raises(
            UserError, match=r"questions hold it; give more of it, or an id:(\n  \w+  '.*'){5}\n  and \d+ more"
        ):
            id_of_text(ours, shared)
        with pytest.raises(UserError, match=r"no question in the run at .* holds it"):
            id_of_text(ours, "entirely else")
        with pytest.raises(UserError, match="--text: empty"):
            id_of_text(ours, " ")

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            open_run(str(tmp_path / "nothing"))
        with pytest.raises(UserError, match="holds no run"):
            open_run(str(tmp_path))

    def test_the_artifacts_of_a_run_in_one_process_are_not_taken_for_kubeflows(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "artifacts/train-0/metrics", "examples", [seed(0)])
        with pytest.raises(UserError, match="give the run's output folder"):
            open_run(str(tmp_path / "artifacts"))

    def test_a_folder_of_several_runs_says_so(self, tmp_path: Path) -> None:
        make_run(tmp_path / "root" / "run-7", in_cluster=True)
        with pytest.raises(UserError, match="holds several runs, such as run-7"):
            open_run(str(tmp_path / "root"))


@pytest.mark.parametrize("row", [generated(0, 2).id, generated(3, 1).id, seed(3).id], ids=["kept", "rejected", "seed"])
def test_kubeflows_layout_gives_the_same_answer(run: Path, before: bool, tmp_path: Path, row: str) -> None:
    def without_places(facts: Any) -> Any:
        if isinstance(facts, dict):
            return {key: without_places(value) for key, value in facts.items() if key not in ("run", "uri")}
        return [without_places(one) for one in facts] if isinstance(facts, list) else facts

    cluster = make_run(tmp_path / "run-7", seeds=24, in_cluster=True, before=before)
    assert without_places(of(cluster, row)) == without_places(of(run, row))


def test_a_run_that_was_moved(copy: Path) -> None:
    moved = copy.rename(copy.with_name("moved"))
    assert of(moved, generated(0, 2).id)["student"]["model"]["uri"].startswith(str(moved))


def forget_hashes(run: Path) -> None:
    """As if the run had been made before hashes were kept."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (run / "events.jsonl").write_text("".join(json.dumps({**line, "sha256": {}}) + "\n" for line in lines))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)


PARTS = {
    "prepare/seeds_set": ("prepare/splits", "seeds.parquet"),
    "filter-errors-3/errors": ("filter-errors-3/journal", "errors.parquet"),
}
"""The folder that a file of before is part of today, and its name there."""


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("file", ["prepare/seeds_set", "dedupe-2/next_training_set", "filter-errors-3/errors",
                                  "configure/config"])  # fmt: skip
def test_a_damaged_file_is_named(copy: Path, before: bool, file: str, damage: Callable[[Path], None]) -> None:
    artifact, name = (file, "") if before else PARTS.get(file, (file, ""))
    damage(copy / "artifacts/colours-2026" / artifact / name)
    with pytest.raises(UserError, match=artifact):
        of(copy, generated(0, 2).id)


@pytest.mark.parametrize("file", ["dedupe-2/next_training_set", "prepare/seeds_set"])
def test_a_truncated_file_is_named_where_no_hash_is_known(copy: Path, before: bool, file: str) -> None:
    forget_hashes(copy)
    path = "/".join(PARTS.get(file, (file,))) if not before else file
    truncate(copy / "artifacts/colours-2026" / path)
    with pytest.raises(UserError, match=f"{path}: damaged"):
        of(copy, generated(0, 2).id)


def test_what_a_folder_says_of_its_making_is_not_what_is_checked(copy: Path, before: bool) -> None:
    """As when the same run was made once more, out of its ledger: it has paid nothing then."""
    if before:
        pytest.skip("there were no such folders")
    journal = copy / "artifacts/colours-2026/filter-errors-3/journal"
    for name in ("spent.json", "lineage.json"):
        (journal / name).write_text("{}")
    assert of(copy, seed(3).id)["what"] == "seed"


def test_a_real_file_of_before_is_read(tmp_path: Path) -> None:
    """Of rows of schema version 4, as `prepare` left it."""
    (tmp_path / "run-7/prepare/1b0c").mkdir(parents=True)
    old = Path(lineage.__path__[0]) / "data/seeds_set.parquet"
    shutil.copyfile(old, tmp_path / "run-7/prepare/1b0c/seeds_set")
    row = pq.read_table(old, columns=["id", "question"]).to_pylist()[0]
    facts = of(tmp_path / "run-7", row["id"])
    assert (facts["what"], facts["row"]["question"]) == ("seed", row["question"])


class TestCommand:
    def test_text_and_json(self, run: Path) -> None:
        assert "kept in iteration 2" in command(generated(0, 2).id, "--run", str(run)).output
        facts = json.loads(command(generated(0, 2).id, "--run", str(run), "--json").output)
        assert facts["schema_version"] == 1
        assert facts["id"] == generated(0, 2).id

    def test_by_text_or_by_id_and_not_by_both(self, run: Path) -> None:
        assert "kept in iteration 2" in command("--text", generated(0, 2).question, "--run", str(run)).output
        for arguments in ((), ("x", "--text", "y")):
            assert "give ROW_ID or --text, and one of them only" in command(*arguments, "--run", str(run)).output
        said = command("--text", "x" * 10_000, "--run", str(run))
        assert f"--text '{'x' * 60}...': no question in the run" in said.output + str(said.exception)

    def test_imports_neither_kubeflow_nor_a_model_library(self, run: Path) -> None:
        code = (
            "import sys; from llm2llm.pipelines.cli.inspect import why\n"
            f"why.main([{generated(0, 2).id!r}, '--run', {str(run)!r}], standalone_mode=False)\n"
            "heavy = {'kfp', 'torch', 'transformers', 'datasets', 'pandas', 'boto3', 'scipy'} & set(sys.modules)\n"
            "sys.exit(str(heavy) if heavy else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_only_a_few_rows_of_many_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it fast on 100,000 rows: of all columns, only the groups of rows that are asked for."""
    from llm2llm.pipelines.inspect import run_files

    monkeypatch.setattr("llm2llm.components.shared.data.parquet.ROW_GROUP", 10)
    made = make_run(tmp_path / "run", seeds=90, ledger=False)
    read: list[tuple[int, int]] = []
    columns = run_files._columns

    def counted(parquet: Any, file: Any, names: Any, group: int | None = None) -> Any:
        table = columns(parquet, file, names, group)
        read.append((len(names), table.num_rows))
        return table

    monkeypatch.setattr(run_files, "_columns", counted)
    of(made, generated(0, 2).id)
    assert max(rows for names, rows in read if names > 5) <= 10
    assert max(rows for _, rows in read) > 100


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=6).map(" ".join)


@given(WORDS, st.lists(WORDS, max_size=30))
def test_the_nearest_are_those_that_comparing_all_finds(text: str, others: list[str]) -> None:
    scores = rouge_l([text], others)[0] if others else []
    expected = sorted(((-float(score), place) for place, score in enumerate(scores) if score > 0))[:3]
    assert most_similar(text, others, 3) == [(place, -score) for score, place in expected]


def test_the_nearest_of_more_than_are_compared_at_once() -> None:
    draw = random.Random(1)
    others = [" ".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(4_000)]
    scores = rouge_l([others[5]], others)[0]
    expected = sorted((-float(score), place) for place, score in enumerate(scores))[:3]
    assert most_similar(others[5], others, 3) == [(place, -score) for score, place in expected]


def test_what_a_model_wrote_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\r\u202ec\nd") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc\nd"
