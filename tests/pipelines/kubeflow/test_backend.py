"""Compiled pipelines on the double of Kubeflow's backend, with the real metadata store."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import Config, load_config
from llm2llm.pipelines.config.stage_settings import stage_settings
from llm2llm.pipelines.kubeflow import compact
from llm2llm.pipelines.kubeflow.compile import compile_config
from llm2llm.pipelines.kubeflow.expected_size import expected_size, written_metadata
from llm2llm.pipelines.kubeflow.predicted_run import MetadataOf
from llm2llm.pipelines.kubeflow.workflow_nodes import PodResult
from llm2llm.pipelines.kubeflow.workflow_size import MAX_WORKFLOW, refuse_too_large, workflow_size
from llm2llm.pipelines.kubeflow.workflow_spec import VERSIONS, Installation
from tests.support.kubeflow import toys
from tests.support.kubeflow.argo import ADMINISTRATORS_RETRY
from tests.support.kubeflow.backend import Fault, Pod, run
from tests.support.kubeflow.compiled import EVERYTHING, compiled_config, compiled_text, compiled_toy, read_compiled
from tests.support.kubeflow.driver import Cache
from tests.support.kubeflow.launcher import StageInput, StageOutput
from tests.support.kubeflow.metadata import with_lineage
from tests.support.kubeflow.store import MetadataStore
from tests.support.kubeflow.table import SHIPPED

pytestmark = pytest.mark.mlmd
Json = dict[str, Any]
BEFORE = Path(__file__).parent / "data" / "before-one-name.yaml.xz"


def _mended(documents: list[Json]) -> list[Json]:
    """The pipeline of before, with `training_set` left out of `filter_errors` in iteration 0."""
    mended = deepcopy(documents)
    task = mended[0]["root"]["dag"]["tasks"]["filter-errors"]
    del task["inputs"]["artifacts"]["training_set"]
    return mended


def test_the_pipeline_of_before_fails_in_iteration_0_by_the_stores_refusal(store: MetadataStore) -> None:
    result = run(read_compiled(BEFORE), store=store, pretend=True)
    assert (result.state, result.failed_task) == ("Failed", "filter-errors")
    assert result.message == (
        'failed to lookup existing execution: no execution found for type="system.ContainerExecution", name=""'
    )
    assert not any(stage.task.endswith("-2") for stage in result.stages if not stage.task.startswith("out-of-fold"))


def test_the_pipeline_of_before_mended_outgrows_argo_in_iteration_4(store: MetadataStore) -> None:
    result = run(_mended(read_compiled(BEFORE)), store=store, pretend=with_lineage)
    assert result.state == "Error"
    assert result.message.startswith("compressed size ")
    assert result.message.endswith(f" > maxSize {MAX_WORKFLOW}")
    assert result.shown == "Request entity too large: limit is 3145728"
    ran = {stage.task for stage in result.stages}
    # Iteration 4 trains `train-5`; it had begun, and did not come to its report.
    assert {"report-4", "teacher-augment-4"} <= ran
    assert not {"report-5"} & ran
    # The real one: 84 pods, 690 KB of nodes after gzip -9, 1051061 bytes.
    assert 80 <= result.pods <= 90
    assert result.sizes[-1].total / 1051061 == pytest.approx(1, rel=0.05)
    # Argo compresses from 1 MiB on, which was so at the end of iteration 0.
    first = next(size for size in result.sizes if size.is_compressed)
    assert 17 <= first.pods <= 22


@pytest.mark.data
def test_with_the_real_runs_metadata_it_ends_where_the_real_one_did(
    store: MetadataStore, real_run: Path, real_backend: Installation, real_metadata: MetadataOf
) -> None:
    def as_then(stage: StageInput) -> StageOutput:
        made = stage.executor_input["outputs"]["artifacts"]
        return StageOutput(metadata={name: real_metadata(stage.task, name) for name in made})

    documents = read_compiled(real_run / "pipeline.yaml.xz")
    result = run(documents, store=store, backend=real_backend, pretend=as_then, workflow=real_backend.workflow)
    assert result.shown == "Request entity too large: limit is 3145728"
    # The real one had 84 pods when it wanted to start `dedupe-4`; nobody was handed what that would have left.
    assert result.stages[-1].task in ("teacher-augment-4", "dedupe-4")
    assert 84 <= result.pods <= 88
    assert result.sizes[-1].total == pytest.approx(1051061, rel=0.005)
    at_84 = min(size.total for size in result.sizes if size.pods == 84)
    assert at_84 / 1024 == pytest.approx(1004, rel=0.01)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_runs_to_its_end(store: MetadataStore, name: str) -> None:
    documents = compiled_config(name)
    result = run(documents, store=store, pretend=_small_metadata)
    assert result.state == "Succeeded", (result.failed_task, result.message)
    predicted = workflow_size(documents, version="2.17")
    assert (result.pods, result.pods_in_a_row) == (predicted.pods, predicted.pods_in_a_row)
    assert result.sizes[-1].total == pytest.approx(predicted.stored.total, rel=0.05)


def _small_metadata(stage: StageInput) -> StageOutput:
    made = stage.executor_input["outputs"]["artifacts"]
    fields = {"kind": "examples", "rows": 72, "version": 5}
    return StageOutput(
        metadata={
            name: {**fields, "sha256": hashlib.sha256(f"{stage.execution} {name}".encode()).hexdigest()}
            for name in made
            if name != "executor-logs"
        }
    )


def _as_stages_write(config: Config) -> Callable[[StageInput], StageOutput]:
    written, settings = written_metadata(), stage_settings(config)

    def pretend(stage: StageInput) -> StageOutput:
        made = [name for name in stage.executor_input["outputs"]["artifacts"] if name != "executor-logs"]
        returned = settings if stage.task == "configure" else {}
        return StageOutput(returned, metadata={name: written(stage.task, name) for name in made})

    return pretend


def test_every_training_gets_what_tune_has_chosen_also_the_folds(store: MetadataStore, tmp_path: Path) -> None:
    """KFP's local runner hands nothing on into the loop of the folds, and is refused; a cluster does."""
    tried = ["train.learning_rate=2e-5", "tune.learning_rate=[0.001, 0.002]"]
    overrides = ["max_iterations=1", "filter_errors.selection=out_of_fold", *tried]
    config = load_config("quickstart", overrides)
    settings = stage_settings(config)

    def pretend(stage: StageInput) -> StageOutput:
        said = {**settings} if stage.task == "configure" else {}
        if stage.task == "tune":
            said = {name: f"tuned {name}" for name in stage.executor_input["outputs"]["parameters"]}
        return StageOutput(said, metadata=_small_metadata(stage).metadata)

    compile_config(config, tmp_path / "pipeline.yaml")
    result = run(read_compiled(tmp_path / "pipeline.yaml"), store=store, pretend=pretend)
    assert result.state == "Succeeded", (result.failed_task, result.message)
    given = {stage.task: stage.parameters["settings"] for stage in result.stages if "settings" in stage.parameters}
    trains = {task: text for task, text in given.items() if task.startswith(("train", "out-of-fold", "controls"))}
    assert {task.split("-")[0] for task in trains} == {"train", "out", "controls"}
    assert {text.split()[0] for text in trains.values()} == {"tuned"}, trains
    assert not [task for task, text in given.items() if task not in trains and text.startswith("tuned")]


def test_the_largest_pipeline_resolves_on_2_16(
    store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds, shards, registry, replay and a first task that looks for news, three iterations of them, loops shared as
    in ten."""
    monkeypatch.setattr(compact, "MOST_LOOPS", 1)
    overrides = [one for one in EVERYTHING if not one.startswith("max_iterations")]
    compile_config(load_config("quickstart", [*overrides, "max_iterations=3"]), tmp_path / "p.yaml")
    documents = read_compiled(tmp_path / "p.yaml")
    assert sum(name.startswith("comp-for-loop") for name in documents[0]["components"]) == 2
    result = run(documents, store=store, pretend=True, backend=Installation(version="2.16"))
    assert result.state == "Succeeded", (result.failed_task, result.message)
    assert sum(stage.task.startswith("out-of-fold") for stage in result.stages) >= 9


ONCE = "report.each_iteration=false"
NODES = ("train.nodes=2", "train.checkpoint_uri=s3://b/c", 'placement.stages.train={cpu: "4", memory: 8Gi}')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "fits"),
    [
        (["report.each_iteration=true", "max_iterations=12"], False),
        ([ONCE], True),
        ([ONCE, *NODES], False),
        ([ONCE, *NODES, "max_iterations=9"], True),
    ],
)
def test_what_is_refused_beforehand_is_what_argo_would_end(store: MetadataStore, more: list[str], fits: bool) -> None:
    """Three folds, four shards, a registry, replay and a first task that looks for news; ten iterations unless said."""
    overrides = (*EVERYTHING, *more)
    config = load_config("quickstart", overrides)
    predicted = expected_size(config, compiled_text("quickstart", overrides))
    with nullcontext() if fits else pytest.raises(UserError, match="the Workflow would grow to"):
        refuse_too_large(predicted)
    result = run(compiled_config("quickstart", overrides), store=store, pretend=_as_stages_write(config))
    assert (result.state == "Succeeded") == fits, result.message
    assert fits or result.message.startswith("compressed size ")
    assert not fits or result.pods == predicted.pods
    assert result.sizes[-1].total == pytest.approx(predicted.stored.total, rel=0.02) or not fits


@pytest.mark.parametrize("overrides", [["placement.profile=gke"], ["train.nodes=2", "train.checkpoint_uri=s3://b/c"]])
def test_placed_pipelines_run_on_each_version(store: MetadataStore, overrides: list[str]) -> None:
    documents = compiled_config("quickstart", ["placement.profile=gke", *overrides, "max_iterations=1"])
    for version in VERSIONS:
        result = run(documents, store=store, pretend=True, backend=Installation(version=version))
        assert result.state == "Succeeded", (version, result.failed_task, result.message)
        pods = [node for node in result.nodes.values() if node["templateName"].endswith("system-container-impl")]
        patches = [
            one["value"] for node in pods for one in node["inputs"]["parameters"] if one["name"] == "pod-spec-patch"
        ]
        assert patches
        assert all('"runAsUser":65532' in patch for patch in patches)
        assert any("nvidia.com/gpu" in patch for patch in patches)


def test_the_loop_ends_where_a_condition_is_false(store: MetadataStore) -> None:
    def twice(stage: StageInput) -> StageOutput:
        last = stage.task.startswith("filter-errors") and stage.parameters.get("iteration") == 2
        return StageOutput({"Output": not last})

    result = run(compiled_config("quickstart", ["max_iterations=5"]), store=store, pretend=twice)
    assert result.state == "Succeeded", (result.failed_task, result.message)
    trained = [stage.task for stage in result.stages if stage.task.startswith("train")]
    assert len(trained) == 3


def test_a_second_submission_takes_over_what_stands_behind_values(store: MetadataStore) -> None:
    """The cache's key holds the ids of input artifacts, so an uncached task that returns an artifact spoils it."""
    cache = Cache()
    documents = compiled_toy(toys.cached)
    first = run(documents, store=store, cache=cache, pretend=True)
    again = run(documents, store=store, cache=cache, pretend=True)
    assert first.cached == []
    assert (again.cached, again.not_cached) == (["write", "count"], ["look"])
    assert again.state == "Succeeded"
    assert again.pods < first.pods  # no pods for what was taken over
    other = run(documents, {"name": "other"}, store=store, cache=cache, pretend=lambda stage: StageOutput({"rows": 9}))
    assert other.cached == []
    spoilt = compiled_toy(toys.uncached_artifact)
    for _ in range(2):
        assert run(spoilt, store=store, cache=cache, pretend=True).cached == []


def test_an_argument_above_128_kib_ends_the_run(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.texts), {"text": "x" * 200_000}, store=store, pretend=True)
    assert (result.state, result.pods) == ("Failed", 1)
    assert "argument list too long" in result.message

    def long_metadata(stage: StageInput) -> StageOutput:
        return StageOutput({"Output": True}, {"data": {"lineage": "x" * 60_000}})

    result = run(compiled_toy(toys.fan), store=store, pretend=long_metadata)
    assert (result.state, result.failed_task) == ("Failed", "merge")
    assert "argument list too long" in result.message


def _always(kind: str, task: str, phase: str) -> Fault:
    def fault(pod: Pod) -> PodResult | None:
        if (pod.kind, pod.task) != (kind, task):
            return None
        return PodResult(phase, message="broken", exit_code=0 if phase == "Error" else 143)

    return fault


@pytest.mark.parametrize(
    ("version", "retry", "phase", "pods"),
    [
        ("2.17", None, "Failed", 1),  # exit code 1, or deleted politely: 2.17 retries errors only
        ("2.17", None, "Error", 3 * 3 * 3 * 3),  # vanished: the pod, the sub-graph around it, and the ones around that
        ("2.17", ADMINISTRATORS_RETRY, "Failed", 3),
        ("2.17", ADMINISTRATORS_RETRY, "Error", 3),
        ("2.16", None, "Failed", 3),
        ("2.16", None, "Error", 1),
    ],
)
def test_how_often_a_stage_with_two_retries_is_tried(
    store: MetadataStore, version: Any, retry: Any, phase: str, pods: int
) -> None:
    backend = Installation(version=version, template_retry=retry)
    fault = _always("executor", "write", phase)
    result = run(compiled_toy(toys.one_with_retry), store=store, backend=backend, pretend=True, fault=fault)
    assert result.state == phase
    assert result.pods_of["executor", "write"] == pods
    assert (result.pods_of["driver", ""] == 1) == (pods <= 3)


def test_a_service_account_that_is_missing_gives_nine_drivers(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.one), store=store, pretend=True, fault=_always("driver", "", "Error"))
    assert (result.state, result.pods) == ("Error", 9)


def test_a_stage_that_comes_back_on_its_second_try(store: MetadataStore) -> None:
    def once(pod: Pod) -> PodResult | None:
        return PodResult("Error") if (pod.kind, pod.task, pod.attempt) == ("executor", "write", 0) else None

    result = run(compiled_toy(toys.one), store=store, pretend=True, fault=once)
    assert result.state == "Succeeded"
    assert result.pods_of["executor", "write"] == 2


def _process_env() -> dict[str, str]:
    """The stages' `python3` is this one."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_processes_run_as_in_their_containers(store: MetadataStore, tmp_path: Path) -> None:
    backend = Installation(pipeline_root=str(tmp_path))
    result = run(compiled_toy(toys.fan), store=store, backend=backend, env=_process_env())
    assert result.state == "Succeeded", result.message
    assert result.received("total") == {"numbers": [2, 3, 4]}
    merged = next(stage for stage in result.stages if stage.task == "merge")
    assert (
        Path(merged.executor_input["outputs"]["artifacts"]["whole"]["artifacts"][0]["uri"]).read_text() == "row\n" * 6
    )


def test_a_process_that_fails_says_why(store: MetadataStore, tmp_path: Path) -> None:
    backend = Installation(pipeline_root=str(tmp_path))
    result = run(compiled_toy(toys.chain), {"rows": 1}, store=store, backend=backend, env={"PATH": "/bin"})
    assert (result.state, result.failed_task) == ("Failed", "write")
    assert "exit code 1" in result.message


TOLD = (
    "notify.kind=webhook",
    "placement.secrets=[{env: LLM2LLM_NOTIFY_URL, secret: hook, key: url, stages: [notify]}]",
    "max_iterations=2",
)


@pytest.mark.parametrize(
    ("failing", "goes_on", "state", "told"),
    [
        ("", True, "Succeeded", "COMPLETE"),
        ("", False, "Succeeded", "COMPLETE"),
        ("evaluate", True, "Failed", "FAILED"),
        ("report-end", True, "Failed", "FAILED"),
    ],
)
def test_the_exit_task_runs_once_and_is_told_how_the_run_ended(
    store: MetadataStore, failing: str, goes_on: bool, state: str, told: str
) -> None:
    def pretend(stage: StageInput) -> StageOutput:
        stops = stage.task.startswith("filter-errors") and not goes_on
        return StageOutput({"Output": False} if stops else {}, failed="broken" if stage.task == failing else "")

    result = run(compiled_config("quickstart", TOLD), store=store, pretend=pretend)
    assert result.state == state, result.message
    assert result.pods_of["executor", "notify"] == 1
    status = result.received("notify")["status"]
    status = json.loads(status) if isinstance(status, str) else status
    assert (status["state"], status["pipelineTaskName"]) == (told, "exit-handler-1")


def test_the_exit_task_costs_little_and_nothing_where_nobody_is_told() -> None:
    plain = workflow_size(compiled_config("quickstart", TOLD[2:]), version="2.17")
    told = workflow_size(compiled_config("quickstart", TOLD), version="2.17")
    assert told.stored.total - plain.stored.total < 20_000
    assert told.pods - plain.pods == 3  # two of its own, and the driver of the sub-graph around the loop
    assert "notify" not in json.dumps(compiled_config("quickstart", TOLD[2:])[0]["components"])


def test_the_exit_task_is_not_tried_again_and_alone_has_the_address() -> None:
    spec, platform = compiled_config("quickstart", [*TOLD, "placement.profile=kind"])
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["notify"].get("retryPolicy", {}).get("maxRetryCount", 0) == 0
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert [name for name, one in executors.items() if "LLM2LLM_NOTIFY_URL" in str(one)] == ["exec-notify"]


def test_a_pipeline_whose_exit_task_has_no_address_is_refused() -> None:
    with pytest.raises(UserError, match=r"notify.url_env: no secret gives LLM2LLM_NOTIFY_URL to stage notify"):
        compiled_config("quickstart", ["notify.kind=slack"])


def test_deadline_and_time_to_live_are_in_the_platforms_part() -> None:
    given = ["placement.deadline=48h", "placement.keep_finished=24h"]
    (platform,) = compiled_config("quickstart", given)[1:]
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {
        "activeDeadlineSeconds": 48 * 3600,
        "resourceTtlOnCompletion": 24 * 3600,
    }


@pytest.mark.slow
def test_the_quickstart_runs_as_processes(store: MetadataStore, tmp_path: Path) -> None:
    documents = compiled_config("quickstart", ["max_iterations=1", "train.epochs=1", "filter_errors.selection=wrong"])
    result = run(documents, store=store, backend=Installation(pipeline_root=str(tmp_path)), env=_process_env())
    assert result.state == "Succeeded", (result.failed_task, result.message)
    assert "report-end" in {stage.task for stage in result.stages}
