"""`llm2llm inspect show`: rows by the name of an output, of a run of either layout, and of a file."""

import json
from pathlib import Path

import pytest

from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.pipelines.inspect.run_files import open_run
from tests.support.command_line import Run
from tests.support.made_run import make_run


@pytest.fixture(scope="module", params=[False, True], ids=["of today", "of before"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", seeds=24, before=bool(request.param))


def test_rows_by_the_name_of_an_output(run: Run, made: Path) -> None:
    def shown(*arguments: str) -> list[dict[str, object]]:
        code, out, _ = run("inspect", "show", *arguments)
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]

    last = open_run(str(made)).training_sets()[-1]
    of_last = [row.id for row in read_rows(last.uri, "examples", Example)]
    assert [row["id"] for row in shown("training_set", "--run", str(made))] == of_last
    assert len(shown("training_set", "--run", str(made), "--limit", "2")) == 2
    assert [row["id"] for row in shown(last.uri)] == of_last
    seeds = shown("training_set", "--run", str(made), "--iteration", "0")
    assert all(row["parent_id"] is None for row in seeds)
    assert len(seeds) == 24
    assert {row["reason"] for row in shown("rejects", "--run", str(made))}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("prediction", "--run"), "has no rows called 'prediction'; did you mean 'predictions'? it has "),
        (("x", "--run"), "has no rows called 'x'; it has "),
        (("predictions", "--iteration", "9", "--run"), "has 'predictions' of iterations 0, 1"),
        (("config", "--run"), "has no rows called 'config'"),
    ],
)
def test_a_wrong_name_or_iteration_is_one_message(run: Run, made: Path, arguments: tuple[str, ...], says: str) -> None:
    code, out, error = run("inspect", "show", *arguments, made)
    assert (code, out) == (2, "")
    assert says in error


def test_a_file_has_no_iteration_to_choose(run: Run) -> None:
    code, _, error = run("inspect", "show", "x.parquet", "--iteration", "1")
    assert (code, error.strip()) == (2, "error: --iteration: needs --run; a file is of one iteration")
