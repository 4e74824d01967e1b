"""The cache's key."""

from copy import deepcopy
from typing import Any

from llm2llm.pipelines.kubeflow.driver_step import DriverStep
from tests.support.kubeflow.driver import Cache, fingerprint

CONTAINER: dict[str, Any] = {"image": "toy:1", "command": ["python3"], "args": ["--executor_input", "{{$}}"]}


def _step() -> DriverStep:
    output = {"name": "data", "type": {"schemaTitle": "system.Dataset"}, "uri": "s3://b/run 1/data"}
    return DriverStep(
        1,
        "write",
        {"outputDefinitions": {"parameters": {"Output": {"parameterType": "BOOLEAN"}}}},
        {
            "inputs": {
                "artifacts": {"seeds": {"artifacts": [{"name": "7", "uri": "s3://b/seeds", "metadata": {"rows": 1}}]}},
                "parameterValues": {"epochs": 3.0},
            },
            "outputs": {
                "artifacts": {"data": {"artifacts": [output]}},
                "parameters": {"Output": {"outputFile": "/tmp/kfp/outputs/Output"}},
            },
        },
    )


def test_the_key_holds_ids_of_artifacts_and_values_but_no_places() -> None:
    key = fingerprint(_step(), CONTAINER, [])
    same = _step()
    same.executor_input["outputs"]["artifacts"]["data"]["artifacts"][0]["uri"] = "s3://b/run 2/data"
    same.executor_input["inputs"]["artifacts"]["seeds"]["artifacts"][0]["metadata"] = {"rows": 2}
    assert fingerprint(same, CONTAINER, []) == key

    other_artifact, other_value = _step(), _step()
    other_artifact.executor_input["inputs"]["artifacts"]["seeds"]["artifacts"][0]["name"] = "8"
    other_value.executor_input["inputs"]["parameterValues"]["epochs"] = 4.0
    other_image = {**deepcopy(CONTAINER), "image": "toy:2"}
    keys = [
        fingerprint(other_artifact, CONTAINER, []),
        fingerprint(other_value, CONTAINER, []),
        fingerprint(_step(), other_image, []),
        fingerprint(_step(), CONTAINER, ["models"]),
    ]
    assert len({key, *keys}) == 5


def test_the_cache_is_of_one_pipeline_and_knows_the_latest() -> None:
    cache = Cache()
    cache.add("quickstart", "a", 1)
    cache.add("quickstart", "a", 2)
    assert (cache.find("quickstart", "a"), cache.find("snips", "a")) == (2, None)
