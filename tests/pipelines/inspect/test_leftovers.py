"""`llm2llm clean`: what goes, what stays, on a disk and on a real server."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry.production import current, move
from llm2llm.components.shared.storage import is_remote, join, list_uris, upload_folder, write_bytes
from llm2llm.pipelines.cli.storage import clean
from llm2llm.pipelines.inspect.leftovers import Leftovers, age_in_seconds, find_leftovers, remove

LATER = time.time() + 10**6
"""Everything is older."""
CLUSTER_RUN = "5f1d6c1e-3b1f-4a52-9a63-0c3f6f6f2d11"
LEDGER_ENTRY = "3f/3f" + "a" * 62 + ".json.gz"


@pytest.fixture
def runs(place: str) -> str:
    """Two output folders, one run of a cluster, and what is none of ours."""
    root = join(place, "runs")
    for name, run in (("a", "run-a"), ("deeper/b", "run-b")):
        output_folder(join(root, name), run)
    pipeline = join(root, "snips", CLUSTER_RUN)
    for name in ("configure/1b0c/config", "prepare/77aa/splits/seeds.parquet", "train-2/9c/model/model.safetensors"):
        write_bytes(join(pipeline, name), b"x" * 100)
    for name in (
        "snips/0e9ff7a3-58a4-4f0c-a5d9-4a1a4b2f1c77/somebody-elses/output",
        "else/run.json",
        "notes.txt",
        f"ledger/{LEDGER_ENTRY}",
    ):
        write_bytes(join(root, name), b"{}")
    return root


def output_folder(uri: str, run: str) -> None:
    write_bytes(join(uri, "run.json"), json.dumps({"run_id": run, "llm2llm": "0.1.0", "config": {}}).encode())
    for name in ("events.jsonl", "artifacts/prepare/splits/seeds.parquet", "student/model.safetensors", "report.html"):
        write_bytes(join(uri, name), b"x" * 10)
    for name in (f"ledger/{LEDGER_ENTRY}", "my notes.txt"):
        write_bytes(join(uri, name), b"mine")


@pytest.fixture
def registry(place: str, tmp_path: Path) -> str:
    """Versions 1 and 2 were promoted by run-a and the cluster's run, version 3 never; run-b has a candidate."""
    uri = join(place, "registry")
    for name, base in (("versions/v-1", ""), ("versions/v-2", ""), ("versions/v-3", ""), ("candidates/run-b", "")):
        folder = tmp_path / "students" / name
        write_bytes(folder / "model.safetensors", name.encode())
        write_bytes(folder / "llm2llm.json", json.dumps({"student": base or "scratch"}).encode())
        upload_folder(folder, join(uri, name))
        if name.startswith("versions"):
            write_bytes(join(uri, "serving", f"{name.partition('/')[2]}.yaml"), b"kind: InferenceService")
    first = move(uri, to="v-1", kind="promote", after=None, run="run-a")
    assert move(uri, to="v-2", kind="promote", after=first, run=CLUSTER_RUN)
    write_bytes(join(uri, "tried", "1.json"), b"{}")
    return uri


def names(found: Leftovers, place: str) -> list[tuple[str, str]]:
    """Kind and name of what can go."""
    return [(one.kind, one.uri.removeprefix(place).lstrip("/")) for one in found.leftovers]


def below(uris: Iterable[str], place: str) -> set[str]:
    return {uri.removeprefix(place).lstrip("/") for uri in uris}


def test_what_no_promoted_version_needs_goes_and_all_else_stays(place: str, runs: str, registry: str) -> None:
    checkpoints = join(place, "checkpoints")
    key = "0123456789abcdef" * 2
    for name in (f"{key}/step-00000150/MANIFEST.json", f"{key}/step-00000150/model", "jobs/train-1/job.json", "other"):
        write_bytes(join(checkpoints, name), b"x")
    before = below(list_uris(place), place)
    found = find_leftovers(LATER, runs, registry, checkpoints)
    assert names(found, place) == [
        ("candidate", "registry/candidates/run-b"),
        ("checkpoints", f"checkpoints/{key}"),
        ("checkpoints", "checkpoints/jobs/train-1"),
        ("run", "runs/deeper/b"),
        ("version", "registry/versions/v-3"),
    ]
    assert set(below(found.kept, place)) == {
        "runs/a", f"runs/snips/{CLUSTER_RUN}", "registry/versions/v-1", "registry/versions/v-2",
    }  # fmt: skip
    assert below(list_uris(place), place) == before, "to look removes nothing"
    remove(found.leftovers, registry)
    gone = {
        *(f"runs/deeper/b/{name}" for name in ("run.json", "events.jsonl", "report.html", "student/model.safetensors")),
        "runs/deeper/b/artifacts/prepare/splits/seeds.parquet",
        *(f"registry/candidates/run-b/{name}" for name in ("MANIFEST.json", "llm2llm.json", "model.safetensors")),
        *(f"registry/versions/v-3/{name}" for name in ("MANIFEST.json", "llm2llm.json", "model.safetensors")),
        "registry/serving/v-3.yaml",
        f"checkpoints/{key}/step-00000150/MANIFEST.json",
        f"checkpoints/{key}/step-00000150/model",
        "checkpoints/jobs/train-1/job.json",
    }
    assert before - below(list_uris(place), place) == gone
    assert not find_leftovers(LATER, runs, registry, checkpoints).leftovers
    if not is_remote(place):
        assert not (Path(place) / "registry" / "versions" / "v-3").exists()
        assert {path.name for path in (Path(runs) / "deeper" / "b").iterdir()} == {"ledger", "my notes.txt"}


def test_of_what_was_in_production_only_the_last_stays_when_that_is_asked(runs: str, registry: str, place: str) -> None:
    found = find_leftovers(LATER, runs, registry, keep_promoted=False)
    assert set(below(found.kept, place)) == {f"runs/snips/{CLUSTER_RUN}", "registry/versions/v-2"}
    assert ("version", "registry/versions/v-1") in names(found, place)
    assert ("run", "runs/a") in names(found, place)


def test_what_was_written_to_since_stays_as_a_whole(runs: str, registry: str, place: str) -> None:
    time.sleep(1.1)  # servers know whole seconds
    now = time.time()
    time.sleep(1.1)
    write_bytes(join(runs, "deeper/b/events.jsonl"), b"it goes on")
    found = find_leftovers(now, runs, registry)
    assert names(found, place) == [("version", "registry/versions/v-3")]
    assert found.young == 1


def test_what_a_kept_versions_documents_name_stays(runs: str, registry: str, place: str) -> None:
    for version, base in (("v-2", join(registry, "versions/v-3")), ("v-3", join(runs, "deeper/b/student"))):
        adapter = {"base_model_name_or_path": base}
        write_bytes(join(registry, f"versions/{version}/adapter_config.json"), json.dumps(adapter).encode())
    found = find_leftovers(LATER, runs, registry)
    assert names(found, place) == [("candidate", "registry/candidates/run-b")]
    assert "version v-2 names" in found.kept[join(registry, "versions/v-3")]
    assert "version v-3 names" in found.kept[join(runs, "deeper/b")]
    write_bytes(join(registry, "versions/v-2/adapter_config.json"), b"{")
    with pytest.raises(UserError, match="damaged"):
        find_leftovers(LATER, runs, registry)


def test_what_a_younger_run_needs_stays(runs: str, registry: str, place: str) -> None:
    time.sleep(1.1)  # servers know whole seconds
    now = time.time()
    time.sleep(1.1)
    output_folder(join(runs, "live"), "run-b")
    config = {"student": join(runs, "deeper/b/student"), "teacher_augment": {"ledger": "/elsewhere"}}
    write_bytes(
        join(runs, "live/run.json"), json.dumps({"run_id": "run-b", "llm2llm": "0.1.0", "config": config}).encode()
    )
    found = find_leftovers(now, runs, registry)
    assert names(found, place) == [("version", "registry/versions/v-3")]
    assert found.kept[join(registry, "candidates/run-b")] == "its run was written to since"
    assert f"run run-b names {config['student']}" in found.kept[join(runs, "deeper/b")]
    assert found.young == 1


def test_a_run_whose_ledger_a_younger_one_uses_can_go_without_it(runs: str, registry: str, place: str) -> None:
    time.sleep(1.1)  # servers know whole seconds
    now = time.time()
    time.sleep(1.1)
    config = {"teacher_augment": {"ledger": join(runs, "deeper/b/ledger")}, "train": {"checkpoint_uri": runs}}
    write_bytes(
        join(runs, "live/run.json"), json.dumps({"run_id": "run-c", "llm2llm": "0.1.0", "config": config}).encode()
    )
    found = find_leftovers(now, runs, registry)
    assert ("run", "runs/deeper/b") in names(found, place)
    remove(found.leftovers, registry)
    assert join(runs, f"deeper/b/ledger/{LEDGER_ENTRY}") in set(list_uris(runs))


@pytest.mark.parametrize("what", ["candidate", "run", "version"])
def test_what_was_written_to_after_it_was_listed_is_not_removed(
    runs: str, registry: str, place: str, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_leftovers(LATER, runs, registry)
    time.sleep(1.1)
    new = {
        "candidate": join(registry, "candidates/run-b"),
        "run": join(runs, "deeper/b"),
        "version": join(registry, "versions/v-3"),
    }
    if what == "candidate":
        write_bytes(tmp_path / "better" / "model.safetensors", b"better")
        upload_folder(tmp_path / "better", new[what])
    elif what == "run":
        write_bytes(join(new[what], "events.jsonl"), b"it goes on")
    else:
        assert move(registry, to="v-3", kind="by_hand", after=current(registry))
        assert move(registry, to="v-1", kind="rollback", after=current(registry))
    before = below(list_uris(new[what]), place)
    write_bytes(join(runs, "deeper/b/notes of mine.txt"), b"newer, and none of the run's")
    assert remove(found.leftovers, registry) == len(found.leftovers) - 1
    assert below(list_uris(new[what]), place) >= before
    assert f"since: {new[what]}" in capsys.readouterr().out
    if what != "run":
        assert join(runs, "deeper/b/run.json") not in set(list_uris(runs))


def test_a_version_that_came_into_production_since_it_was_listed_stays(registry: str, place: str) -> None:
    found = find_leftovers(LATER, registry=registry)
    assert move(registry, to="v-3", kind="by_hand", after=current(registry))
    remove(found.leftovers, registry)
    assert join(registry, "versions/v-3/MANIFEST.json") in set(list_uris(registry))


def test_a_name_that_is_no_registry_is_refused(runs: str, place: str) -> None:
    with pytest.raises(UserError, match="there is no registry"):
        find_leftovers(LATER, runs, join(place, "registri"))
    with pytest.raises(UserError, match="--registry: missing"):
        find_leftovers(LATER, runs)
    assert [kind for kind, _ in names(find_leftovers(LATER, runs, keep_promoted=False), place)] == ["run"] * 3


def test_the_command_lists_asks_and_removes(
    runs: str, registry: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(clean, ["--run-root", runs, "--registry", registry, *more], standalone_mode=False)
        if isinstance(done.exception, UserError):
            return 2, f"{done.output}error: {done.exception}"
        return int(done.return_value), done.output

    code, said = command("--older-than", "30d")
    assert (code, "0 to remove" in said) == (0, True)
    monkeypatch.setattr("llm2llm.pipelines.cli.storage.time.time", lambda: LATER + 40 * 86_400)
    code, said = command("--older-than", "30d")
    assert code == 2
    assert "registry/versions/v-3" in said
    assert "add --yes" in said
    assert join(registry, "versions/v-3/MANIFEST.json") in set(list_uris(registry))
    code, said = command("--older-than", "30d", "--keep-promoted", "--yes")
    assert (code, "removed 3" in said) == (0, True)
    assert join(registry, "versions/v-3/MANIFEST.json") not in set(list_uris(registry))


@pytest.mark.parametrize(("text", "days"), [("1d", 1), ("30d", 30), ("6w", 42)])
def test_ages(text: str, days: int) -> None:
    assert age_in_seconds(text) == days * 86_400


@pytest.mark.parametrize("text", ["", "0d", "30", "12h", "-1d", "1.5d", "d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UserError, match="a whole number of days or weeks"):
        age_in_seconds(text)
