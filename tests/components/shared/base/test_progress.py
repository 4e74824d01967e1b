"""Progress: one line that changes on a terminal, plain lines elsewhere."""

import io

import pytest

from llm2llm.components.shared.base import progress
from llm2llm.components.shared.base.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("train", 1200, "rows", stream)
    for second in range(1, 13):
        clock.now += 1
        shown.show(100 * second)
    assert stream.getvalue().splitlines() == [
        "train: 500/1,200 rows, 100.0 rows/s, 7 s left",
        "train: 1,000/1,200 rows, 100.0 rows/s, 2 s left",
        "train: 1,200/1,200 rows, 100.0 rows/s, 12 s",
    ]


def test_what_was_done_before_is_not_in_the_rate(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("train", 1000, "steps", stream, before=900)
    clock.now += 10
    shown.show(950)
    assert stream.getvalue() == "train: 950/1,000 steps, 5.0 steps/s, 10 s left\n"


def test_one_line_on_a_terminal(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress("train", 4, "rows", stream)
    for done in range(1, 5):
        clock.now += 0.15
        shown.show(done)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("train: 4/4 rows, 6.7 rows/s, 1 s\n")
    assert [part.removeprefix("\x1b[K").split(",")[0] for part in text.split("\r")[1:]] == [
        "train: 2/4 rows",
        "train: 4/4 rows",
    ]


def test_nothing_done_yet_and_nothing_to_do(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("train", 3, "rows", stream)
    clock.now += 10
    shown.show(0)
    Progress("train", 0, "rows", stream).show(0)
    assert stream.getvalue().splitlines() == ["train: 0/3 rows", "train: 0/0 rows"]


def test_a_clock_that_stands_still(clock: Clock) -> None:
    stream = io.StringIO()
    Progress("train", 1, "rows", stream).show(1)
    assert stream.getvalue() == "train: 1/1 rows\n"


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("train", 1, "rows").show(1)
    assert capsys.readouterr().out.startswith("train: 1/1 rows")
