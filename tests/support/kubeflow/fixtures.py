"""The real metadata store for tests marked `mlmd`, and the real run that the model is held against."""

import json
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.pipelines.kubeflow.predicted_run import MetadataOf
from llm2llm.pipelines.kubeflow.workflow_spec import Installation
from tests.support.kubeflow.store import PYTHON_VARIABLE, MetadataStore, metadata_store

Json = dict[str, Any]


@pytest.fixture
def store() -> Iterator[MetadataStore]:
    """An empty metadata store; where none is named the test skips, and on CI it fails."""
    python = os.environ.get(PYTHON_VARIABLE, "")
    if not python:
        said = f"{PYTHON_VARIABLE} names no Python that has ml-metadata; `make mlmd` makes one"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    with metadata_store(python) as found:
        yield found


@pytest.fixture(scope="session")
def real_run(real_data: Path) -> Path:
    """The folder of a run on a real Kubeflow: its pipeline, its Workflow, its size over time."""
    folder = real_data / "kubeflow"
    if not folder.is_dir():
        pytest.skip("the real run on Kubeflow is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def real_workflow(real_run: Path) -> Json:
    """The Workflow of the real run as it stood at its end."""
    with lzma.open(real_run / "workflow.json.xz", "rt", encoding="utf-8") as file:
        return dict(json.load(file))


def _handed(workflow: Json) -> list[Json]:
    """What each stage of a real Workflow was handed."""
    found = {}
    for node in workflow["status"]["nodes"].values():
        for one in node.get("outputs", {}).get("parameters", []):
            if one["name"] == "pod-spec-patch" and one["value"]:
                command = json.loads(one["value"])["containers"][0]["command"]
                found[node["name"]] = json.loads(command[command.index("--executor_input") + 1])
    return list(found.values())


@pytest.fixture(scope="session")
def real_backend(real_workflow: Json) -> Installation:
    """The installation of the real run."""
    info = next(
        one["metadata"]["store_session_info"]
        for patch in _handed(real_workflow)
        for many in patch["inputs"].get("artifacts", {}).values()
        for one in many["artifacts"]
    )
    return Installation(
        workflow=real_workflow["metadata"]["name"],
        run_display_name=real_workflow["metadata"]["annotations"]["pipelines.kubeflow.org/run_name"],
        driver_image="localhost/driver:1",
        launcher_image="localhost/launcher:1",
        store_session_info=info,
    )


@pytest.fixture(scope="session")
def real_metadata(real_workflow: Json) -> MetadataOf:
    """The metadata that the stages of the real run wrote. What nobody was handed takes that of an earlier iteration."""
    known: dict[tuple[str, str], Json] = {}
    for patch in _handed(real_workflow):
        for many in patch["inputs"].get("artifacts", {}).values():
            for one in many["artifacts"]:
                parts = one["uri"].split("/")
                known[parts[-3], parts[-1]] = one["metadata"]

    def metadata(task: str, output: str) -> Json:
        stage = re.sub(r"-\d+$", "", task)
        earlier = [found for (t, o), found in known.items() if o == output and re.sub(r"-\d+$", "", t) == stage]
        return known.get((task, output)) or (earlier[-1] if earlier else {})

    return metadata
