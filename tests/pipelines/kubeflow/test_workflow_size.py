"""The size model: against a real run, by version, and what it refuses."""

import base64
import csv
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow import predicted_run
from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.workflow_nodes import Walk, nodes_json
from llm2llm.pipelines.kubeflow.workflow_size import (
    MAX_ARGUMENT,
    MAX_WORKFLOW,
    StoredBytes,
    compressed,
    refuse_too_large,
    workflow_size,
)
from llm2llm.pipelines.kubeflow.workflow_spec import Installation, workflow_spec
from tests.support.kubeflow import toys
from tests.support.kubeflow.compiled import compiled_config, compiled_toy, read_compiled

Json = dict[str, Any]
HASH = re.compile(r"[0-9a-f]{64}")


@pytest.mark.data
def test_the_spec_is_the_real_one_byte_for_byte(
    real_run: Path, real_workflow: Json, real_backend: Installation
) -> None:
    ours = workflow_spec(read_compiled(real_run / "pipeline.yaml.xz"), real_backend)
    theirs = dict(real_workflow["spec"])
    del theirs["hostAliases"]  # of that one installation
    by_name = [sorted(HASH.sub("hash", go_json(one)) for one in spec["templates"]) for spec in (ours, theirs)]
    assert by_name[0] == by_name[1]
    values = [sorted(one["value"] for one in spec["arguments"]["parameters"]) for spec in (ours, theirs)]
    assert values[0] == values[1]
    rest = [{key: spec[key] for key in spec if key not in ("templates", "arguments")} for spec in (ours, theirs)]
    assert rest[0] == rest[1]
    assert len(go_json(ours)) == len(go_json(theirs))


@pytest.mark.data
def test_nodes_grow_as_those_of_the_real_run(
    real_run: Path,
    real_workflow: Json,
    real_backend: Installation,
    real_metadata: predicted_run.MetadataOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sampler saw the Workflow every 20 seconds: before a pod had ended or after. One of the sizes must agree."""
    with (real_run / "size.csv").open(encoding="utf-8") as file:
        rows = [
            {k: float(v) for k, v in row.items() if k not in ("time", "compressed")} for row in csv.DictReader(file)
        ]
    seen = [row for row in rows if row["nodes_json_kb"] > 300]
    assert len(seen) > 40
    agreed: set[float] = set()

    def observe(walk: Walk) -> None:
        text = nodes_json(walk).encode()
        near = [row for row in seen if len(text) / 1024 == pytest.approx(row["nodes_json_kb"], rel=0.03)]
        for row in near:
            if row["nodes_json_kb"] in agreed or walk.pods not in (row["pods"], row["pods"] - 1):
                continue
            # size.csv was measured with Python's gzip, at level 9.
            best = len(base64.b64encode(zlib.compress(text, 9))) / 1024
            stored = row["spec_kb"] + compressed(text) / 1024 if row["nodes_json_kb"] > 1024 else row["stored_kb"]
            if best == pytest.approx(row["nodes_gzip_base64_kb"], rel=0.03) and stored == pytest.approx(
                row["stored_kb"], rel=0.02
            ):
                agreed.add(row["nodes_json_kb"])

    class ObservedWalk(Walk):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.observe = observe

    monkeypatch.setattr(predicted_run, "Walk", ObservedWalk)
    documents = read_compiled(real_run / "pipeline.yaml.xz")
    walk, _ = predicted_run.predicted_walk(
        documents, real_backend, None, metadata_bytes=0, metadata=real_metadata, outputs=None
    )
    assert walk.pods == 113  # as in the real run that came to its end
    real = real_workflow["status"]["nodes"]
    assert set(real) <= set(walk.nodes)
    assert [walk.nodes[key]["name"] for key in real] == [node["name"] for node in real.values()]
    assert agreed == {row["nodes_json_kb"] for row in seen}


@pytest.mark.data
def test_the_real_run_is_known_beforehand_not_to_fit(
    real_run: Path, real_backend: Installation, real_metadata: predicted_run.MetadataOf
) -> None:
    documents = read_compiled(real_run / "pipeline.yaml.xz")
    size = workflow_size(documents, version="2.17", metadata=real_metadata, backend=real_backend)
    assert size.iterations == 5
    assert size.stored.total > MAX_WORKFLOW
    with pytest.raises(UserError, match=r"grow to 13\d\d KB on Kubeflow Pipelines 2\.17.*at most 3 with the rest"):
        refuse_too_large(size)
    # With two short fields an artifact it came to its end at 656 KB.
    small = workflow_size(documents, version="2.17", metadata_bytes=100, backend=real_backend)
    assert small.stored.total / 1024 == pytest.approx(656, rel=0.05)
    refuse_too_large(small)


def _copies(toy: Any, version: str) -> int:
    documents = compiled_toy(toy)
    backend = Installation(version=version)  # type: ignore[arg-type]
    walk, _ = predicted_run.predicted_walk(documents, backend, None, metadata_bytes=100, metadata=None, outputs=None)
    return nodes_json(walk).count('"name":"pod-spec-patch","value":"{')


@pytest.mark.parametrize(("version", "copies", "with_retry"), [("2.15", 3, 4), ("2.16", 3, 4), ("2.17", 6, 6)])
def test_a_patch_is_stored_once_for_each_node_it_passes(version: str, copies: int, with_retry: int) -> None:
    """2.17's manifests put a retry on every template; before, only a stage with retries of its own has a node more."""
    assert _copies(toys.one, version) == copies
    assert _copies(toys.one_with_retry, version) == with_retry


def test_an_iteration_costs_what_one_more_adds() -> None:
    for overrides in ([], ["filter_errors.folds=3", "evaluate.shards=2"]):  # each loop on its own, and shared
        seven, eight = (
            workflow_size(compiled_config("quickstart", [*overrides, f"max_iterations={number}"]), version="2.17")
            for number in (7, 8)
        )
        assert (seven.iterations, eight.iterations) == (7, 8)
        assert seven.per_iteration == pytest.approx(eight.stored.total - seven.stored.total, rel=0.1)
        assert eight.pods > seven.pods
        assert eight.pods_in_a_row > seven.pods_in_a_row


def test_what_metadata_and_parameters_add() -> None:
    documents = compiled_config("quickstart")
    small, large = (workflow_size(documents, version="2.17", metadata_bytes=size) for size in (100, 5000))
    assert large.stored.nodes > 2 * small.stored.nodes
    assert large.stored.spec == small.stored.spec
    wide = workflow_size(documents, version="2.17", parameters={"seeds": "s3://bucket/" + "x" * 5000})
    assert wide.parameters > small.parameters + 4900
    assert wide.largest_argument >= small.largest_argument


def test_pods_of_a_chain_a_loop_and_an_exit_handler() -> None:
    chain = workflow_size(compiled_toy(toys.chain), version="2.17")
    # root; write, count, above; a condition; count; a condition; write: each with its driver, conditions only that.
    assert (chain.pods, chain.pods_in_a_row, chain.iterations) == (13, 13, 2)
    fan = workflow_size(compiled_toy(toys.fan), version="2.17")
    # root, the loop's driver; of three rounds one driver and two tasks; two tasks that collect.
    assert fan.pods == 2 + 3 * 5 + 2 * 2
    assert fan.pods_in_a_row == 2 + 5 + 2
    guarded = workflow_size(compiled_toy(toys.guarded), version="2.17")
    assert guarded.pods == 1 + 1 + 4 + 2


def test_a_loop_that_two_tasks_refer_to_is_refused_as_the_api_server_does() -> None:
    """Its compiler makes the template of a loop's items once for each task, under one name."""
    documents = compiled_config("quickstart", ["filter_errors.folds=2", "max_iterations=2"])
    workflow_spec(documents, Installation())
    components = documents[0]["components"]
    loop = next(name for name in components if name.startswith("comp-for-loop"))
    for graph in (documents[0]["root"], *components.values()):
        for task in graph.get("dag", {}).get("tasks", {}).values():
            if task["taskInfo"]["name"].startswith("folds "):
                task["componentRef"] = {"name": loop}
    with pytest.raises(UserError, match=f'template name="{loop}-iteration": template already exists'):
        workflow_spec(documents, Installation())


def test_a_pipeline_without_documents_is_refused() -> None:
    with pytest.raises(UserError, match=r"no document has pipelineInfo"):
        workflow_size([{"platforms": {}}], version="2.17")


def test_refusals_name_what_is_too_large_and_what_to_change() -> None:
    documents = compiled_config("quickstart")
    refuse_too_large(workflow_size(documents, version="2.17"))
    with pytest.raises(UserError, match=r"parameters are 19\d KB together.*put labels and prompts in a file"):
        refuse_too_large(workflow_size(documents, version="2.17", parameters={"settings": "x" * 200_000}))
    with pytest.raises(
        UserError,
        match=r"is handed \(executor_input\) is .*fewer evaluate\.shards",
    ):
        refuse_too_large(workflow_size(documents, version="2.17", metadata_bytes=40_000))
    with pytest.raises(UserError, match=r"2\.17, and Argo ends a run at 1024 KB; use fewer max_iterations \(at most"):
        refuse_too_large(workflow_size(compiled_config("quickstart", ["max_iterations=20"]), version="2.17"))


def test_argo_compresses_only_what_does_not_fit() -> None:
    assert not StoredBytes(spec=300_000, nodes=700_000, compressed=50_000).is_compressed
    large = StoredBytes(spec=300_000, nodes=900_000, compressed=50_000)
    assert large.is_compressed
    assert large.total < 400_000
    assert MAX_ARGUMENT == 128 * 1024
