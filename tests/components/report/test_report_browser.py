"""The report in a real browser: it renders, asks for nothing, and no text in it comes alive."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llm2llm.components.report.report import render_html
from llm2llm.components.report.summary import summarise
from tests.components.report.test_report import CONFIG, Rows
from tests.components.report.test_report_answers import Answered, HostileAnswered, labelled, scores_of, with_gain
from tests.support.builders import decision, example, score, student_error
from tests.support.verdicts import verdict as promotion_verdict

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
HOSTILE = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    seeds = [example("which queue?", "A"), example(HOSTILE, "B")]
    wrong = student_error(seeds[1], 0)
    history = [score(0, split, 1, 2) for split in ("seeds", "validation", "test")]
    decisions = [decision(0, 1)]
    summary = summarise(seeds, history, [wrong], decisions, [], [])
    path = tmp_path / "report.html"
    path.write_text(render_html({**CONFIG, "student": HOSTILE}, summary, seeds, [wrong], []), encoding="utf-8")
    return path


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    return [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]


def test_nothing_in_the_page_comes_alive(page: Path, browser: list[str]) -> None:
    dom = subprocess.run(
        [*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    assert "taken over" not in title[1]
    assert "<script" not in dom
    assert "<img" not in dom
    assert "&lt;script&gt;" in dom
    assert dom.count("<svg") >= 3


@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_can_be_photographed(page: Path, browser: list[str], tmp_path: Path, width: int) -> None:
    picture = tmp_path / "report.png"
    subprocess.run(
        [*browser, f"--screenshot={picture}", f"--window-size={width},1400", page.as_uri()],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000, "a blank page is smaller"


class Wide(Answered):
    """Everything that takes room at once: gains on all splits, long labels that do not break, many of them, slices."""

    def __init__(self) -> None:
        super().__init__()
        labels = [f"AddToPlaylistOrSearchCreativeWork{i}" for i in range(12)]
        rights = [labels[i % 12] for i in range(1_200)]
        given = [labels[(i + (i % 5 == 0)) % 12] if i % 97 else None for i in range(1_200)]
        self.test, self.predictions = labelled(list(zip(rights, given, strict=True)))
        self.predictions = [replace(one, confidence=(i % 100) / 100) for i, one in enumerate(self.predictions)]
        scores = [*(one for one in Rows().history if one.iteration < 2), *scores_of(self.predictions)]
        scores = [replace(one, calibration_error=0.1234) for one in scores]
        self.history = [with_gain(one, -0.2, -0.254, -0.102, 0.0123) if one.iteration else one for one in scores]
        self.promotion = promotion_verdict("kept", "label: " + "x" * 120)


@pytest.mark.parametrize("kind", ["wide", "hostile", "kept"])
def test_nothing_is_wider_than_the_page(kind: str, browser: list[str], tmp_path: Path) -> None:
    """Tables that need more room scroll inside their own frame."""
    rows = {"wide": Wide(), "hostile": HostileAnswered(HOSTILE), "kept": Answered()}[kind]
    rows.promotion = rows.promotion or promotion_verdict("kept")
    (tmp_path / "report.html").write_text(rows.html(), encoding="utf-8")
    # The report itself runs no script, so the page around it measures.
    widths = [420, 800, 1000, 1280]
    frames = [f'<iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe>' for width in widths]
    (tmp_path / "around.html").write_text(
        f"""<!doctype html>{"".join(frames)}
        <script>onload = () => {{
          for (const frame of document.querySelectorAll("iframe")) {{
            const page = frame.contentDocument.documentElement;
            document.body.append(`room ${{page.clientWidth}} taken ${{page.scrollWidth}}.`);
          }}
        }}</script>""",
        encoding="utf-8",
    )
    dom = subprocess.run(
        [*browser, "--allow-file-access-from-files", "--dump-dom", (tmp_path / "around.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    found = [(int(room), int(taken)) for room, taken in re.findall(r"room (\d+) taken (\d+)\.", dom)]
    assert [room for room, _ in found] == pytest.approx(widths, abs=20), "less a scroll bar"
    assert all(room == taken for room, taken in found), found
