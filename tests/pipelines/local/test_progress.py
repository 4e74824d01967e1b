"""What a local run shows of its stages, and what its log holds."""

import io
import json

import pytest

from llm2llm.pipelines.local import progress
from llm2llm.pipelines.local.progress import LogLines, Watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(kind: str, **more: object) -> str:
    return "    @llm2llm " + json.dumps({"event": kind, "stage": "train", "iteration": 2, **more}) + "\n"


def taken(shown: io.StringIO, *texts: str) -> tuple[str, str]:
    """(log, events) of what was printed."""
    log, events = io.StringIO(), io.StringIO()
    lines = LogLines(log, Watch(events, shown))
    for text in texts:
        lines.write(text)
    return log.getvalue(), events.getvalue()


def test_the_log_has_no_colours_no_bars_and_no_events() -> None:
    log, events = taken(
        io.StringIO(),
        "00:24 - INFO - Task \x1b[96m'train'\x1b[0m finished with \x1b[92mSUC",
        "CESS\x1b[0m\n",
        event("started"),
        "    Loading weights:   0%|\rLoading weights: 100%|##| 29/29\n",
        "    train: 72 rows\n\n",
        event("finished", seconds=1.25),
    )
    assert log.splitlines() == [
        "00:24 - INFO - Task 'train' finished with SUCCESS",
        "  iteration 2   train started",
        "Loading weights: 100%|##| 29/29",
        "    train: 72 rows",
        "",
        "  iteration 2   train                          1.2 s",
    ]
    assert [json.loads(line)["event"] for line in events.splitlines()] == ["started", "finished"]


@pytest.mark.parametrize(("between", "lines"), [(0.0, 2), (1e9, 0)])
def test_without_a_terminal_progress_is_a_plain_line_now_and_then(
    between: float, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", between)
    shown = io.StringIO()
    left = [f"    train: {n}/9 steps, 1.0 steps/s, {9 - n} s left\n" for n in (1, 2)]
    taken(shown, event("started"), *left, "    train: 9/9 steps, 1.0 steps/s, 9 s\n", event("finished", seconds=9))
    assert shown.getvalue().splitlines() == [
        *[f"    train: {n}/9 steps, 1.0 steps/s, {9 - n} s left" for n in (1, 2)][:lines],
        "  iteration 2   train                          9.0 s",
    ]


def test_a_terminal_shows_progress_in_the_line_of_the_running_stage() -> None:
    shown = Terminal()
    taken(shown, event("started"), "    train: 1/9 steps, 8 s left\n", event("finished", seconds=9))
    assert shown.getvalue() == (
        "\r\x1b[K  iteration 2   train ...\r\x1b[K    train: 1/9 steps, 8 s left"
        "\r\x1b[K  iteration 2   train                          9.0 s\n"
    )


def test_a_failure_is_in_the_log_with_its_stage() -> None:
    shown = io.StringIO()
    log, _ = taken(shown, event("started"), event("failed", error="OSError: gone"))
    assert log.splitlines()[-1] == shown.getvalue().rstrip("\n") == f"  {'iteration 2   train':<40}  failed"
