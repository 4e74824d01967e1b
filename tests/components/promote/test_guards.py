"""The forgetting gate: rows of other tasks that a student may not lose."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.promote import guards
from llm2llm.components.promote.guards import guard_check
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.promote.verdict import GuardChange
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.digests import of_conditions
from llm2llm.components.shared.registry.production import current
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.pipelines.checks.preflight import guard_checks
from llm2llm.pipelines.config import load_config
from tests.support.builders import example, prediction
from tests.support.registry_makers import CONFIG, SEEDS, finish, keep

GENERAL: dict[str, Any] = {"name": "general", "form": "text"}


def written(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def guard(tmp_path: Path) -> dict[str, Any]:
    rows = [{"question": f"general {i}", "answer": str(i)} for i in range(100)]
    return {"file": written(tmp_path / "general.jsonl", rows), "task": GENERAL, "max_loss": 0.1}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Says how many of the guard rows the student answers right; the model before answers all but ten."""
    folders: list[str] = []

    def answered(right: int) -> list[str]:
        def ask(student: Path, rows: Sequence[Example], task: Task, *_: Any) -> list[Prediction]:
            folders.append(str(student))
            most = right if len(folders) % 2 == 0 else 90
            return [prediction(row, row.answer if int(row.answer) < most else None, "validation") for row in rows]

        monkeypatch.setattr(guards, "ask", ask)
        return folders

    return answered


@pytest.mark.parametrize("mode", ["promote", "report_only"])
def test_a_student_that_has_forgotten_is_refused(
    tmp_path: Path, guard: dict[str, Any], asked: Callable[[int], list[str]], mode: str
) -> None:
    registry, folders = str(tmp_path / "registry"), asked(70)
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    verdict, made = finish(registry, "run-1", guards=[guard], mode=mode)
    assert (verdict["outcome"], made, current(registry)) == ("kept", None, None)
    assert verdict["checks"][-1]["name"] == "guards"
    assert (
        "it has forgotten too much: general 90.0% to 70.0% of 100 rows (p = 9.5e-07; 10.0 points" in verdict["reason"]
    )
    assert [(one["before"], one["after"], one["n"]) for one in verdict["guards"]] == [(0.9, 0.7, 100)]
    assert folders == ["scratch", versions.candidate_uri(registry, "run-1")], "what it was made from, then the student"


@pytest.mark.parametrize(("right", "outcome"), [(80, "promoted"), (79, "kept"), (95, "promoted")])
def test_the_limit_is_exact(
    tmp_path: Path, guard: dict[str, Any], asked: Callable[[int], list[str]], right: int, outcome: str
) -> None:
    asked(right)
    registry = str(tmp_path / "registry")
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60)
    assert finish(registry, "run-1", guards=[guard])[0]["outcome"] == outcome


def test_what_is_refused_anyway_is_not_asked(
    tmp_path: Path, guard: dict[str, Any], asked: Callable[[int], list[str]]
) -> None:
    registry, folders = str(tmp_path / "registry"), asked(95)
    keep(registry, "run-1", tmp_path / "model", lambda i: False)
    verdict, _ = finish(registry, "run-1", guards=[guard])
    assert (verdict["outcome"], verdict["guards"], folders) == ("kept", [], [])


def test_rows_that_the_student_was_trained_on_tell_nothing(
    tmp_path: Path, guard: dict[str, Any], asked: Callable[[int], list[str]]
) -> None:
    asked(95)
    registry = str(tmp_path / "registry")
    seen = [example(f"general {i}", "blue") for i in range(100)]
    keep(registry, "run-1", tmp_path / "model", lambda i: i < 60, training=[*SEEDS, *seen[:40]])
    assert finish(registry, "run-1", guards=[guard])[0]["guards"][0]["n"] == 60
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 90, training=[*SEEDS, *seen])
    with pytest.raises(
        UserError, match=r"promote.guards: .*general.jsonl has no row that the student was not trained on"
    ):
        finish(registry, "run-2", guards=[guard])


def test_guards_are_conditions_wherever_they_lie(guard: dict[str, Any]) -> None:
    def digest(**changed: Any) -> str:
        return of_conditions(PromoteSettings(registry="r", guards=[guard | changed]))

    assert digest() == digest()
    assert len({digest(), digest(max_loss=0.2), digest(file="/x/others.jsonl"), of_conditions(PromoteSettings())}) == 4


@pytest.mark.parametrize(
    ("student", "found", "words"),
    [
        ("scratch", {"registry": "r", "guards": [{"file": "a.jsonl", "task": "gsm8k"}]}, "nothing to forget"),
        ("a/b", {"guards": [{"file": "a.jsonl", "task": "gsm8k"}]}, "guards needs promote.registry"),
        ("a/b", {"registry": "r", "guards": [{"file": "a.jsonl", "task": "gsm9k"}]}, "no shipped task"),
        ("a/b", {"registry": "r", "guards": [{"task": "gsm8k"}]}, r"guards\.0: file: missing"),
    ],
)
def test_guards_that_cannot_be_asked_are_refused(student: str, found: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config("quickstart", [f"student={student}", f"promote={json.dumps(found)}"])


@pytest.mark.slow
def test_a_sweep_over_the_gate_refuses_the_overtrained_student_and_lets_the_one_with_replay_pass(
    tmp_path: Path,
    taught_student: Path,
    rows: list[Example],
    colours: Task,
    quick: FineTuneSettings,
) -> None:
    """Trained on rows with one answer alone it gives no other; with rows like the guard's mixed in, it does.

    Each student is trained and asked once; the gate is then set to every limit and level.
    """
    from llm2llm.components.shared.training.fine_tune import fine_tune

    narrow = [example(f"number {i} {i}", "blue") for i in range(12)]
    kept, replay = rows[:12], rows[12:]
    file = written(tmp_path / "guard.jsonl", [{"question": row.question, "answer": row.answer} for row in kept])
    config = CONFIG | {"student": str(taught_student)}
    guard = {"file": file, "task": colours.model_dump(mode="json"), "max_loss": 0.25}
    verdicts = {}
    for name, training in (
        ("overtrained", narrow),
        ("little-replay", [*narrow, *replay[:3]]),
        ("with-replay", [*narrow, *replay]),
    ):
        student = tmp_path / name
        student.mkdir()
        fine_tune(training, colours, str(taught_student), quick, 0, student)
        registry = str(tmp_path / f"registry-{name}")
        keep(registry, name, student, lambda i: i < 60, training=narrow, config=config, as_it_is=True)
        verdicts[name], _ = finish(registry, name, config=config, guards=[guard])
    assert verdicts["overtrained"]["outcome"] == "kept"
    assert "it has forgotten too much: " in verdicts["overtrained"]["reason"]
    assert verdicts["with-replay"]["outcome"] == "promoted"
    changes = {name: GuardChange(**found["guards"][0]) for name, found in verdicts.items()}
    assert len({one.before for one in changes.values()}) == 1, "the model before is the same"
    assert changes["overtrained"].before > 0.8
    assert changes["overtrained"].after <= 0.5, "one answer of three"

    limits, levels = (0.0, 0.1, 0.25, 1.0), (1e-9, 0.05, 1.0)
    passed = {
        (name, limit, level): guard_check(
            [replace(change, max_loss=limit)], PromoteSettings(registry="r", slice_level=level)
        ).passed
        for name, change in changes.items()
        for limit in limits
        for level in levels
    }
    for (name, limit, level), let_in in passed.items():
        lost = changes[name].before - changes[name].after
        assert let_in == (lost <= limit + 1e-9 or changes[name].p > level), (name, limit, level)
    for limit in limits[:3]:
        assert not passed["overtrained", limit, 0.05], "refused by every limit that is below its loss"
        assert passed["with-replay", limit, 0.05]
    assert all(passed[name, 1.0, level] for name in changes for level in levels), "all of it may be lost"
    assert all(passed[name, limit, 1e-9] for name in changes for limit in limits), "twelve rows never tell so surely"


def test_preflight_reads_guards(tmp_path: Path, guard: dict[str, Any]) -> None:
    others = guard | {"file": written(tmp_path / "broken.jsonl", [{"query": "a", "answer": "b"}])}
    promotion = {"registry": "r", "guards": [guard, others]}
    config = load_config("quickstart", ["student=a/b", f"promote={json.dumps(promotion)}"])
    good, bad = guard_checks(config)
    assert (good.status, good.what) == ("ok", "promote.guards[0]")
    assert good.detail.startswith("100 rows of ")
    assert (bad.status, bad.what) == ("fail", "promote.guards[1]")
    assert "broken.jsonl" in bad.detail
