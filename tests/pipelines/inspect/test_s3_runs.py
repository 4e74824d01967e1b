"""`llm2llm inspect why` and `inspect diff` on runs on a real server: whole, half there, damaged, out of reach."""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import without_record
from llm2llm.components.shared.storage import delete, join, read_bytes, write_bytes
from llm2llm.pipelines.cli.inspect import diff as diff_command
from llm2llm.pipelines.cli.inspect import why as why_command
from llm2llm.pipelines.inspect.diff import diff
from llm2llm.pipelines.inspect.run_files import open_run
from llm2llm.pipelines.inspect.why import why
from tests.support.made_run import generated, make_run, seed
from tests.support.rgw import S3Server

pytestmark = pytest.mark.s3

ROWS = {"kept": generated(0, 2).id, "rejected": generated(3, 1).id, "seed": seed(3).id}
TASK = "artifacts/colours-2026"


def put(folder: Path, uri: str) -> str:
    """Stores a folder's files as Kubeflow and `aws s3 sync` do, without a manifest of sizes; returns the URI."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda p: write_bytes(join(uri, p.relative_to(folder).as_posix()), p.read_bytes()), files))
    return uri


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    s3_server.use(monkeypatch)
    return f"s3://{s3_server.bucket()}"


@pytest.fixture
def run(bucket: str, tmp_path: Path) -> str:
    """An output folder that was moved to the server, its ledger with it."""
    made = make_run(tmp_path / "run", seeds=24)
    uri = put(made, f"{bucket}/runs/a run, 100% größer")
    shutil.move(made, tmp_path / "moved")
    return uri


def without_places(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {key: without_places(value) for key, value in facts.items() if key not in ("run", "runs", "uri")}
    return [without_places(one) for one in facts] if isinstance(facts, list) else facts


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_why_finds_the_same_as_on_a_disk(run: str, bucket: str, tmp_path: Path, row: str) -> None:
    on_disk = why(open_run(str(tmp_path / "moved")), row)
    facts = why(open_run(run), row)
    assert without_places(facts) == without_places(on_disk)
    assert facts["run"] == run
    if row == ROWS["kept"]:
        assert facts["teacher"]["ledger"]["uri"].startswith(f"{run}/ledger/")
        assert facts["student"]["model"]["uri"] == f"{run}/{TASK}/train-2/model"
    cluster = make_run(tmp_path / "in-cluster" / "run-7", seeds=24, in_cluster=True)
    of_kubeflow = put(cluster, f"{bucket}/v2/artifacts/colours/run-7")
    for uri in (of_kubeflow, f"{of_kubeflow}/", of_kubeflow.replace("s3://", "minio://")):
        assert without_places(why(open_run(uri), row)) == without_places(on_disk)


def test_diff_finds_the_same_as_on_a_disk(run: str, bucket: str, tmp_path: Path) -> None:
    other = make_run(tmp_path / "b", seeds=27, iterations=1, config={"student": "bigger"})
    on_disk = diff(open_run(str(tmp_path / "moved")), open_run(str(other)))
    found = diff(open_run(run), open_run(put(other, f"{bucket}/runs/b")))
    assert without_places(found) == without_places(on_disk)
    assert found["runs"] == [run, f"{bucket}/runs/b"]
    assert found["data"]["seeds"]["only_b"] == 3


def test_the_commands_take_uris(run: str) -> None:
    said = CliRunner().invoke(why_command, [ROWS["kept"], "--run", run]).output
    assert "kept in iteration 2" in said
    assert f"{run}/ledger/" in said
    assert "config: the same" in CliRunner().invoke(diff_command, [run, run]).output


def test_a_run_that_is_still_going_on_tells_what_is_there(run: str, bucket: str) -> None:
    lines = read_bytes(f"{run}/events.jsonl").splitlines(keepends=True)
    # The second iteration's training set is there; its training has begun, and a line is half written.
    written = next(n for n, line in enumerate(lines) if b'"dedupe"' in line)
    write_bytes(f"{run}/events.jsonl", b"".join(lines[: written + 1]) + lines[written + 1][:40])
    facts = why(open_run(run), generated(0, 1).id)
    assert facts["what"] == "generated"
    assert facts["used"] == {
        "training_sets": [1], "best_iteration": 0, "in_best": False,
        "outcome": None, "version": None, "in_version": None,
    }  # fmt: skip
    assert [one["iteration"] for one in why(open_run(run), ROWS["seed"])["history"]["answers"]] == [0]
    found = diff(open_run(run), open_run(run))
    assert found["best"] == {"a": 0, "b": 0}
    first = f"{bucket}/runs/has-only-begun"
    write_bytes(f"{first}/configure/1b0c/config", b'{"name": "colours"}')
    assert diff(open_run(first), open_run(run))["best"] == {"a": None, "b": 0}
    with pytest.raises(UserError, match="no row of this id in the run"):
        why(open_run(first), ROWS["seed"])


def test_an_object_that_is_gone_or_damaged_is_named(run: str) -> None:
    splits = f"{run}/{TASK}/prepare/splits"
    seeds = f"{splits}/seeds.parquet"
    whole = read_bytes(seeds)
    for content, what in ((whole[:-7], f"{splits}: damaged"), (whole[:-1] + b"!", f"{splits}: damaged"),
                          (None, f"{seeds}: is missing: prepare")):  # fmt: skip
        delete(seeds) if content is None else write_bytes(seeds, content)
        with pytest.raises(UserError, match=what):
            why(open_run(run), ROWS["kept"])
        with pytest.raises(UserError, match=what):
            diff(open_run(run), open_run(run))


def test_a_damaged_ledger_entry_costs_only_the_prompt(run: str) -> None:
    entry = why(open_run(run), ROWS["kept"])["teacher"]["ledger"]["uri"]
    write_bytes(entry, read_bytes(entry)[:50])
    teacher = why(open_run(run), ROWS["kept"])["teacher"]
    assert teacher["ledger"] is None
    assert f"{entry}: damaged" in teacher["note"]
    assert teacher["call"]["usd"] == 0.0012


def test_what_cannot_be_reached_is_named(
    run: str, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Callable[[str], object]] = [
        lambda uri: why(open_run(uri), ROWS["kept"]), lambda uri: diff(open_run(uri), open_run(uri)),
    ]  # fmt: skip
    for look in looks:
        with pytest.raises(UserError, match="s3://no-such-bucket: there is no such bucket"):
            look("s3://no-such-bucket/runs/a")
        with pytest.raises(UserError, match=f"{bucket}/runs/b: holds no run: give the output folder"):
            look(f"{bucket}/runs/b")
        with pytest.raises(UserError, match="gs:// is not known here"):
            look("gs://bucket/run")
    stranger = s3_server.user()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stranger.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stranger.secret_key)
    for look in looks:
        with pytest.raises(UserError, match=r"not permitted: these credentials need s3:GetObject there"):
            look(run)
    s3_server.let(stranger, bucket.removeprefix("s3://"), "s3:GetObject")
    assert why(open_run(run), ROWS["kept"])["what"] == "generated", "an output folder is read without listing it"
    with pytest.raises(UserError, match=r"need s3:GetObject there \(or, if nothing is stored there, s3:ListBucket\)"):
        open_run(f"{run}/{TASK}")


def test_a_kubeflow_run_of_more_objects_than_a_page_of_a_listing(bucket: str, tmp_path: Path) -> None:
    cluster = make_run(tmp_path / "run-7", seeds=24, in_cluster=True)
    (parts,) = (cluster / "answer").parent.glob("train/*")
    (parts / "model").unlink()
    for number in range(1_050):
        path = parts / "model" / f"part {number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1")
    facts = why(open_run(put(cluster, f"{bucket}/colours/run-7")), ROWS["kept"])
    assert facts["used"]["training_sets"] == [2]
    assert facts["teacher"]["call"]["key"] == generated(0, 2).call_key


def test_of_a_task_that_was_tried_again_the_last_counts(bucket: str, tmp_path: Path) -> None:
    cluster = make_run(tmp_path / "run-7", in_cluster=True)
    (first,) = cluster.glob("configure/*/config")
    uri = f"{bucket}/colours/run-7"
    write_bytes(f"{uri}/configure/ffff/config", json.dumps({"name": "the first try"}).encode())
    time.sleep(1.1)  # servers know whole seconds
    put(cluster, uri)
    assert open_run(uri).config() == without_record(json.loads(first.read_text()))


def test_what_an_events_file_names_outside_of_its_run_is_not_read(bucket: str) -> None:
    outputs = {"config": "/x/artifacts/../../secret.json"}
    event = {"event": "finished", "stage": "configure", "iteration": None, "fold": None, "outputs": outputs}
    write_bytes(f"{bucket}/run/events.jsonl", json.dumps(event).encode())
    with pytest.raises(UserError, match=r"'../../secret.json' is no name of a file within the folder"):
        open_run(f"{bucket}/run")


def test_a_manifest_of_another_version_is_named(bucket: str) -> None:
    write_bytes(f"{bucket}/run/configure/1b0c/config", b"{}")
    write_bytes(f"{bucket}/run/report/1b0c/manifest", b'{"schema_version": 9, "stages": [{}]}')
    with pytest.raises(UserError, match=f"{bucket}/run/report/1b0c/manifest: no run's manifest of schema version 1"):
        open_run(f"{bucket}/run")
