"""The report in a real browser: it renders, asks for nothing, and no text in it comes alive."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llm2llm.components.report.report import render_html
from llm2llm.components.report.summary import summarise
from tests.report.test_report import CONFIG, decision, error, example, score

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
HOSTILE = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    seeds = [example("which queue?", "A"), example(HOSTILE, "B")]
    wrong = error(seeds[1], 0)
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
