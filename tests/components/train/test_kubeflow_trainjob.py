"""Training on several nodes: the real Kubernetes client against a loopback API, and real workers on two "nodes"."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.storage import join, list_uris, upload_folder, write_bytes
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob, is_abandoned, last_followed, say_followed
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings
from llm2llm.components.shared.training.training_log import CURVES, TrainingLog
from llm2llm.components.train import kubeflow_trainjob as train_job
from llm2llm.pipelines.config import placement
from llm2llm.pipelines.kubeflow import apply_placement, trainjob_template
from tests.support.kubernetes_server import JOBS, KubernetesServer, ends, pod, run_workers
from tests.support.rgw import S3Server

TINY = ScratchSettings(vocabulary=300, hidden_size=16, layers=1, heads=2, context=64)
PLACED = placement.load_placement({
    "profile": "gke",
    "stages": {"train": {"accelerator": "nvidia-h100-80gb", "gpus": 1, "spot": True, "queue": "gpus"}},
    "secrets": [{"env": "AWS_SECRET_ACCESS_KEY", "secret": "bucket", "key": "secret"}],
    "image_pull_secrets": ["registry"],
})  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setenv(train_job.POD_VARIABLE, "stage-pod")
    monkeypatch.setenv(train_job.RUN_VARIABLE, "run-7")
    template = trainjob_template.train_job(PLACED, "example.org/train:1", nodes=2)
    monkeypatch.setenv(train_job.TEMPLATE_VARIABLE, json.dumps(template))
    monkeypatch.setattr(train_job, "POLL_SECONDS", 0.02)
    yield server
    server.stop()


@pytest.fixture
def place(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    s3_server.use(monkeypatch)
    return f"s3://{s3_server.bucket()}/checkpoints"


@pytest.fixture
def rows(example: Callable[..., Example]) -> list[Example]:
    shapes = ["a {} ball", "{} is nice", "paint it {}", "so {}"]
    return [example(shape.format(colour), colour) for shape in shapes for colour in ("red", "green")]


def settings(place: str, **values: Any) -> FineTuneSettings:
    return FineTuneSettings(**{
        "epochs": 2, "learning_rate": 5e-3, "batch_size": 4, "max_length": 64, "scratch": TINY, "nodes": 2,
        "checkpoint_uri": place, **values,
    })  # fmt: skip


@pytest.fixture
def train(colours: Task, rows: list[Example], tmp_path: Path) -> Callable[..., Any]:
    """Trains on nodes into a folder."""

    def call(settings: FineTuneSettings, **values: Any) -> Any:
        output = tmp_path / f"model-{len(list(tmp_path.glob('model-*')))}"
        output.mkdir()
        return train_job.train_on_nodes(TrainingJob(rows, colours, "scratch", settings, 7, **values), output), output

    return call


def leaves_student(
    server: KubernetesServer, then: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """A worker that is done at once, as far as anybody can see from its job's folder."""

    def on_create(job: dict[str, Any]) -> None:
        uri = job["spec"]["trainer"]["command"][-1]
        folder = Path(os.environ["KUBECONFIG"]).parent / "student"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        upload_folder(folder, join(uri, "model"))
        log = {one.name: 1 for one in dataclasses.fields(TrainingLog)} | {name: [] for name in CURVES}
        log["loss_curve"] = [[1, 2.0], [4, 1.0]]
        write_bytes(join(uri, "result.json"), json.dumps({"log": log}).encode())
        server.play = then

    return on_create


def test_the_template_asks_for_what_the_placement_says_and_the_launcher_asks_for_no_gpu() -> None:
    job = trainjob_template.train_job(PLACED, "example.org/train:1", nodes=3)
    trainer, (patch,) = job["spec"]["trainer"], job["spec"]["runtimePatches"]
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"]) == ("example.org/train:1", 3, 1)
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": "1"}
    secrets = [one for one in trainer["env"] if "valueFrom" in one]
    assert {"name": "bucket", "key": "secret", "optional": False} in [
        one["valueFrom"]["secretKeyRef"] for one in secrets
    ]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    spec = node["template"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-spot": "true",
    }  # fmt: skip
    assert {one["key"] for one in spec["tolerations"]} == {"nvidia.com/gpu", "cloud.google.com/gke-spot"}
    assert spec["serviceAccountName"] == "llm2llm-train"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert {one["mountPath"] for one in spec["containers"][0]["volumeMounts"]} == {"/tmp", "/dev/shm", "/models"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    labels = node["template"]["spec"]["template"]["metadata"]["labels"]
    assert not [key for key in labels if key.startswith("kueue")]
    assert labels["sidecar.istio.io/inject"] == "false"
    assert labels["app.kubernetes.io/part-of"] == "llm2llm", "by which the network policies of manifests/ know it"
    own = apply_placement.stage_placement(PLACED, "train", nodes=3)
    assert own is not None
    assert (own.gpus, own.accelerator, own.spot, own.queue, own.shm) == (0, "", False, "", "")


@pytest.mark.s3
def test_the_student_comes_back_and_nothing_is_left(
    server: KubernetesServer, place: str, train: Callable[..., Any]
) -> None:
    server.on_create = leaves_student(server, ends("Complete"))
    log, output = train(settings(place))
    assert log.loss_curve == [(1, 2.0), (4, 1.0)]
    assert [path.name for path in output.iterdir()] == ["model.safetensors"]
    (job,) = server.made
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-7", "uid": "u-7"}
    ]
    names = {one["name"]: one for one in job["spec"]["trainer"]["env"]}
    assert names["AWS_ENDPOINT_URL"]["value"] == os.environ["AWS_ENDPOINT_URL"]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in json.dumps(job)
    assert server.deleted == [job["metadata"]["name"]]
    assert server.jobs == {}
    assert list(list_uris(place)) == []


@pytest.mark.s3
def test_a_retry_follows_the_train_job_that_is_there_and_makes_no_second(
    server: KubernetesServer, place: str, train: Callable[..., Any]
) -> None:
    server.on_create = leaves_student(server, lambda job: None)
    server.faults.append(("GET", JOBS, 403, 1))  # ends the first try before anything is made
    with pytest.raises(UserError, match="may not see TrainJobs"):
        train(settings(place))
    # A stage that is killed outright deletes nothing: as if it had been, once the TrainJob is there.
    server.faults = [("DELETE", JOBS, 403, 1)]
    looks = 0

    def play(job: dict[str, Any]) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            server.faults.append(("GET", JOBS, 403, 1))

    server.on_create = leaves_student(server, play)
    with pytest.raises(UserError):
        train(settings(place))
    assert len(server.jobs) == 1
    server.play = ends("Complete")
    _, output = train(settings(place))
    assert (output / "model.safetensors").is_file()
    assert len(server.made) == 1
    train_again = settings(place, learning_rate=1e-3)
    server.on_create = leaves_student(server, ends("Complete"))
    train(train_again)
    assert len({job["metadata"]["name"] for job in server.made}) == 2, "another training is another TrainJob"


@pytest.mark.s3
def test_what_is_left_of_a_failed_try_is_cleared_away_first(
    server: KubernetesServer, place: str, train: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [("DELETE", JOBS, 403, 1)]
    server.on_create = lambda job: setattr(server, "play", ends("Failed", "DeadlineExceeded", "it took too long"))
    with pytest.raises(RuntimeError, match="failed: DeadlineExceeded: it took too long"):
        train(settings(place))
    assert "goes with its run" in capsys.readouterr().out
    assert len(server.jobs) == 1
    server.lingers = 3
    server.on_create = leaves_student(server, ends("Complete"))
    train(settings(place))
    assert len(server.made) == 2


@pytest.mark.s3
def test_lost_answers_busy_servers_and_a_slow_start_stop_nothing(
    server: KubernetesServer, place: str, train: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [("POST", JOBS, 0, 1), ("GET", JOBS, 503, 2), ("GET", "/pods$", 429, 2), ("DELETE", JOBS, 500, 1)]
    waits = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/9 nodes are available: 9 Insufficient nvidia.com/gpu"}
    ]}  # fmt: skip
    pulls = {"phase": "Pending", "containerStatuses": [{
        "name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }]}  # fmt: skip
    looks = 0

    def play(job: dict[str, Any]) -> None:
        nonlocal looks
        looks += 1
        name = job["metadata"]["name"]
        suspended = {"type": "Suspended", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        job["status"] = {"conditions": [{**suspended, "status": "True" if looks < 3 else "False"}]}
        server.pods = [pod("stage-pod"), pod("w0", 0, name), pod("w1", 1, name, **(waits if looks < 6 else pulls))]
        server.logs["w0"] = "".join(f"2026-01-01T00:00:0{i}.5Z step {i}\n" for i in range(min(looks, 9)))
        if looks == 12:
            ends("Complete")(job)

    server.on_create = leaves_student(server, play)
    train(settings(place))
    said = capsys.readouterr().out.splitlines()
    assert len(server.made) == 1
    assert [line for line in said if line.startswith("node 0 |")] == [f"node 0 | step {i}" for i in range(9)]
    assert "train: waits for its queue to admit it" in said
    assert "train: admitted" in said
    assert "train: node 1 (w1) waits: 0/9 nodes are available: 9 Insufficient nvidia.com/gpu" in said
    assert "train: node 1 (w1) waits: ImagePullBackOff: no such image" in said
    assert len(said) == len(set(said)), "nothing is said twice"


@pytest.mark.s3
@pytest.mark.parametrize(
    ("method", "status", "message"),
    [
        ("POST", 403, r"may not make TrainJobs in namespace team \(403: broken.*train-jobs"),
        ("POST", 404, "knows no TrainJobs.*install Kubeflow Trainer"),
        ("POST", 422, "refuses to make TrainJobs"),
        ("GET", 401, "may not see TrainJobs"),
    ],
)
def test_what_the_cluster_refuses_is_a_message_and_leaves_nothing(
    method: str, status: int, message: str, server: KubernetesServer, place: str, train: Callable[..., Any]
) -> None:
    server.faults = [(method, JOBS, status, 1)]
    with pytest.raises(UserError, match=message):
        train(settings(place))
    assert server.jobs == {}
    assert list(list_uris(place)) == []


@pytest.mark.s3
def test_a_workers_failure_comes_through(server: KubernetesServer, place: str, train: Callable[..., Any]) -> None:
    def fails(kind: str, message: str) -> Callable[[dict[str, Any]], None]:
        def on_create(job: dict[str, Any]) -> None:
            uri = join(job["spec"]["trainer"]["command"][-1], "result.json")
            write_bytes(uri, json.dumps({"failed": kind, "message": message}).encode())
            server.play = ends("Failed", "JobsFailed", "jobset failed")

        return on_create

    server.on_create = fails("user_error", "train.max_length: 64, and every row is longer")
    with pytest.raises(UserError, match="every row is longer"):
        train(settings(place))
    server.on_create = fails("error", "ValueError: it broke")
    with pytest.raises(RuntimeError, match="it broke"):
        train(settings(place))
    made = len(server.made)
    server.on_create = fails("out_of_memory", "CUDA out of memory")
    with pytest.raises(UserError, match="no memory left with one row at once and activation checkpointing"):
        train(settings(place))
    assert len(server.made) - made == 3, "two rows of each device at once, the same with less memory, then one"
    assert server.jobs == {}


@pytest.mark.s3
def test_a_train_job_that_somebody_deletes_ends_the_stage(
    server: KubernetesServer, place: str, train: Callable[..., Any]
) -> None:
    server.on_create = lambda job: server.jobs.clear()
    with pytest.raises(RuntimeError, match="somebody else deleted it"):
        train(settings(place))


@pytest.mark.s3
def test_a_cluster_out_of_reach_is_given_up_after_a_while(
    server: KubernetesServer, place: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_job, "OUT_OF_TOUCH_SECONDS", 0.2)
    server.on_create = lambda job: server.faults.append(("GET", JOBS, 500, 10_000))
    with pytest.raises(RuntimeError, match="answers 500"):
        train(settings(place))
    assert server.jobs == {}


def test_what_cannot_work_is_said_before_anything_is_made(
    server: KubernetesServer, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"train.checkpoint_uri: ''.*s3://bucket/folder"):
        train(settings(""))
    with pytest.raises(UserError, match=r"train.checkpoint_uri: '/tmp/x'"):
        train(settings("/tmp/x"))
    with pytest.raises(UserError, match="5 rows in one optimiser step cannot be divided by 2 devices"):
        train(settings("s3://bucket/x", batch_size=5))
    with pytest.raises(UserError, match="compiled with 2; compile it again"):
        train(settings("s3://bucket/x", nodes=3))
    monkeypatch.delenv("KUBECONFIG")
    with pytest.raises(UserError, match="in a pod of a cluster only"):
        train(settings("s3://bucket/x"))
    monkeypatch.delenv(train_job.TEMPLATE_VARIABLE)
    with pytest.raises(UserError, match=r"set placement\.profile and compile it again"):
        train(settings("s3://bucket/x"))
    assert server.requests == []


STAGE = """
import sys, json
from pathlib import Path
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.tasks import Task
from llm2llm.components.train import kubeflow_trainjob as train_job
from llm2llm.components.shared.base.atomic import atomic_folder
train_job.POLL_SECONDS = 0.05
rows, task, settings, output = sys.argv[1:]
with stage_lifecycle("train", iteration=0), atomic_folder(output) as partial:
    rows, settings = read_rows(rows, "examples", Example), FineTuneSettings(**json.loads(settings))
    train_job.train_on_nodes(TrainingJob(rows, Task(**json.loads(task)), "scratch", settings, 7), partial)
"""


@pytest.mark.s3
def test_sigterm_deletes_the_train_job_and_leaves_no_output(
    server: KubernetesServer, place: str, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    from llm2llm.components.shared.data.parquet import write_rows

    write_rows(tmp_path / "rows.parquet", "examples", rows)
    arguments = [
        str(tmp_path / "rows.parquet"), colours.model_dump_json(), settings(place).model_dump_json(),
        str(tmp_path / "model"),
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", STAGE, *arguments], stdout=subprocess.PIPE, text=True)
    since = time.monotonic()
    while not server.made and time.monotonic() - since < 60:
        time.sleep(0.05)
    assert server.jobs
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143, out
    assert server.jobs == {}
    assert not (tmp_path / "model").exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.s3
def test_the_workers_are_told_that_they_are_followed(
    server: KubernetesServer, place: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_job, "FOLLOW_SECONDS", 0.0)
    seen: list[bytes | None] = []

    def play(job: dict[str, Any]) -> None:
        seen.append(last_followed(job["spec"]["trainer"]["command"][-1]))
        if len(seen) == 3:
            server.play = ends("Complete")

    server.on_create = leaves_student(server, play)
    train(settings(place))
    assert None not in seen
    assert len(set(seen)) == 3


WAITING_WORKER = """
import sys
from llm2llm.components.shared.training import torchrun_worker as worker
worker.LOOK_SECONDS, worker.ABANDONED_SECONDS = 0.05, 2.0
worker._end_when_abandoned(sys.argv[1])
"""


@pytest.mark.s3
def test_workers_that_nobody_follows_end_and_stay_ended(place: str) -> None:
    uri = f"{place}/jobs/one"
    say_followed(uri)
    process = subprocess.Popen([sys.executable, "-c", WAITING_WORKER, uri], stdout=subprocess.PIPE, text=True)
    since = time.monotonic()
    while time.monotonic() - since < 6:
        say_followed(uri)
        assert process.poll() is None, "it is followed"
        time.sleep(0.1)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nobody has followed this job" in out
    assert is_abandoned(uri)
    worker = [sys.executable, "-m", "llm2llm.components.shared.training.torchrun_worker", uri]
    again = subprocess.run(worker, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "train: nobody follows this job any more\n")
    say_followed(uri)  # a retry of the stage has come
    again = subprocess.run(worker, capture_output=True, text=True)
    assert again.returncode == 2, "it looks for what to train on"


@pytest.mark.s3
@pytest.mark.slow
def test_two_nodes_really_train_the_student_that_one_would(
    server: KubernetesServer, place: str, train: Callable[..., Any], rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    server.on_create = run_workers(server, tmp_path / "nodes")
    log, output = train(settings(place))
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = fine_tune(rows, colours, "scratch", settings("", nodes=1), 7, alone)
    assert [step for step, _ in log.loss_curve] == [step for step, _ in expected.loss_curve]
    for (_, one), (_, other) in zip(log.loss_curve, expected.loss_curve, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}
    assert server.jobs == {}
    assert not [uri for uri in list_uris(place) if "/jobs/" in uri]


@pytest.mark.s3
@pytest.mark.slow
def test_a_node_is_lost_and_a_retry_goes_on_from_the_checkpoint_in_storage(
    server: KubernetesServer, place: str, train: Callable[..., Any], rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    """The weights and the optimiser's state are spread over the nodes, and so are the random generators."""
    key = f"{place}/key"
    given = {"checkpoint_steps": 4, "sharding": "fsdp", "scheduler": "constant", "warmup": 0.0}

    def stored() -> list[int]:
        return [int(uri.split("step-")[1][:8]) for uri in list_uris(key) if uri.endswith("/MANIFEST.json")]

    server.on_create = run_workers(server, tmp_path / "first", lose=lambda: bool(stored()))
    with pytest.raises(RuntimeError):
        train(settings(place, epochs=100_000, **given), checkpoints=key)
    assert server.jobs == {}
    epochs = max(stored()) // 2 + 3  # of two steps each
    server.on_create = run_workers(server, tmp_path / "second")
    log, output = train(settings(place, epochs=epochs, **given), checkpoints=key)
    assert 4 <= log.resumed_from_step < log.steps == 2 * epochs
    assert log.checkpoints_failed == 0
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = fine_tune(rows, colours, "scratch", settings("", nodes=1, epochs=epochs, **given), 7, alone)
    for (_, one), (_, other) in zip(log.loss_curve, expected.loss_curve, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}
