"""Twenty processes promote at once: one pointer, nothing lost, nothing half."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm2llm.components.shared import storage
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.production import current, generations
from llm2llm.components.shared.registry.records import Answers
from tests.support.promote_race import right_of
from tests.support.registry_makers import finish, keep

PROCESSES = 20
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_twenty_processes_promote_at_once(registry: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.promote_race", registry, str(PROCESSES)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(verdicts) == PROCESSES

    history = generations(registry)
    assert [one.number for one in history] == list(range(1, len(history) + 1))
    assert [one.previous for one in history] == [None, *[one.version for one in history[:-1]]]
    # Who says that it was promoted made exactly one generation, and the pointer holds that verdict.
    promoted = {verdict["run"]: verdict for verdict in verdicts if verdict["outcome"] == "promoted"}
    assert [one.run for one in history if one.run not in promoted] == []
    assert {one.run: one.verdict for one in history} == promoted
    assert {verdict["outcome"] for verdict in verdicts} <= {"promoted", "kept"}
    # Each was decided against the version that it took the place of, and was better than it.
    stands = 0
    for one in history:
        assert one.verdict is not None
        assert one.verdict["incumbent_generation"] == one.number - 1
        right = right_of(int(str(one.run).removeprefix("run-")))
        assert right > stands
        stands = right
    # Whoever was kept out was not better than what is there in the end.
    for verdict in verdicts:
        if verdict["outcome"] == "kept":
            assert right_of(int(verdict["run"].removeprefix("run-"))) <= stands + 5
    assert stands >= right_of(19) - 5
    # Every version is whole, byte by byte, and its answers are its own.
    for version in {one.version for one in history} | set(versions.versions(registry)):
        uri = versions.find_version(registry, version)
        storage.download_folder(uri, tmp_path / "back" / version)
        right = sum(versions.read_document(uri, Answers).correct.values())
        assert (tmp_path / "back" / version / "model.safetensors").read_bytes() == b"%d" % right
    if not storage.is_remote(registry):
        assert not list((Path(registry) / "versions").glob(".*")), "no copy was left half done"


@pytest.mark.slow
def test_killed_at_any_moment_no_pointer_is_left_to_half_a_version(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run-9", tmp_path / "model", lambda i: i < 10)
    finish(registry, "run-9")
    weights = os.urandom(1 << 20)
    for attempt, wait in enumerate([0.0, 0.01, 0.03, 0.06]):
        run = f"run-{attempt + 11}"
        least = 20 + 12 * attempt
        content = weights + b"%d" % attempt
        keep(registry, run, tmp_path / "model", lambda i, least=least: i < least, content=content)
        finishing = f"finish({registry!r}, {run!r}, max_slice_drop=1.0)"
        code = f"from tests.support.registry_makers import finish; print('ready', flush=True); {finishing}"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = current(registry)
        assert now is not None
        storage.download_folder(versions.find_version(registry, now.version), tmp_path / "back")
        for version in versions.versions(registry):
            storage.download_folder(versions.find_version(registry, version), tmp_path / "back")
        # Tried again, it ends as if nothing had been.
        assert finish(registry, run, max_slice_drop=1.0)[0]["outcome"] == "promoted"
    assert [one.number for one in generations(registry)] == [1, 2, 3, 4, 5]
