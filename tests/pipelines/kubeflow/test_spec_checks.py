"""One artifact, one name: what Kubeflow's metadata store demands of every task."""

import copy
import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.kubeflow.compile import compile_config
from llm2llm.pipelines.kubeflow.spec_checks import artifact_inputs, refuse_repeated_artifacts
from tests.pipelines.config.test_config import NAMES

BEFORE = Path(__file__).parent / "data" / "before-one-name.yaml.xz"
"""The quickstart for five iterations as it was compiled when every run died in iteration 0 of a real Kubeflow."""
EVERYTHING = (
    "max_iterations=10",
    "filter_errors.folds=3",
    "evaluate.shards=4",
    "promote.registry=s3://bucket/registry",
    "promote.only_if_new=true",
    "data.replay=s3://bucket/replay.jsonl",
    "train.replay_fraction=0.5",
    "train.start_from=previous",
)


def compiled(name: str, path: Path, *overrides: str) -> dict[str, Any]:
    compile_config(load_config(name, overrides), path)
    return dict(next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)))


def test_the_pipeline_of_before_is_refused_by_task_names_and_producer() -> None:
    spec = next(yaml.load_all(lzma.decompress(BEFORE.read_bytes()), Loader=yaml.CSafeLoader))
    with pytest.raises(UserError) as refusal:
        refuse_repeated_artifacts(spec)
    assert str(refusal.value).startswith(
        "filter-errors: the inputs seeds_set, training_set are all output 'seeds_set' of prepare; "
    )


@pytest.mark.parametrize("overrides", [(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", NAMES)
def test_no_task_of_a_shipped_config_gets_an_artifact_twice(
    name: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    if load_config(name).train.head == "classifier":  # which takes no general rows
        overrides = tuple(one for one in overrides if "replay" not in one)
    spec = compiled(name, tmp_path / "p.yaml", *overrides)
    seen = 0
    for path, inputs in artifact_inputs(spec):
        producers = [producer for one in inputs.values() for producer in one]
        assert len(producers) == len(set(producers)), path
        seen += len(producers)
    assert seen > 60


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled("quickstart", tmp_path_factory.mktemp("p") / "p.yaml", *EVERYTHING)


def tasks_of(spec: dict[str, Any], name: str) -> list[dict[str, Any]]:
    graphs = [component["dag"] for component in [spec["root"], *spec["components"].values()] if "dag" in component]
    return [task for graph in graphs for task in graph["tasks"].values() if task["taskInfo"]["name"] == name]


@pytest.mark.parametrize("stage", ["train 0", "teacher_augment 1", "report 10", "out_of_fold", "iteration 4"])
def test_a_second_name_is_found_at_any_depth(spec: dict[str, Any], stage: str) -> None:
    planted = copy.deepcopy(spec)
    inputs = tasks_of(planted, stage)[0]["inputs"]["artifacts"]
    name = sorted(inputs)[0]
    inputs["again"] = inputs[name]
    with pytest.raises(UserError, match="again"):
        refuse_repeated_artifacts(planted)


def test_the_same_artifact_through_two_inputs_of_a_sub_graph_is_found(spec: dict[str, Any]) -> None:
    """Each of the two tasks gets it once from where it stands; only its maker tells that both are one."""
    planted = copy.deepcopy(spec)
    condition = tasks_of(planted, "iteration 1")[0]
    inner = planted["components"][condition["componentRef"]["name"]]
    training = tasks_of(planted, "teacher_augment 1")[0]["inputs"]["artifacts"]
    handed_on = training["training_set"]["componentInputArtifact"]
    condition["inputs"]["artifacts"]["other"] = condition["inputs"]["artifacts"][handed_on]
    inner["inputDefinitions"]["artifacts"]["other"] = inner["inputDefinitions"]["artifacts"][handed_on]
    training["pool_set"] = {"componentInputArtifact": "other"}
    with pytest.raises(UserError, match="'training_set' of"):
        refuse_repeated_artifacts(planted)


def test_lists_of_a_loop_are_told_by_what_makes_their_items(spec: dict[str, Any]) -> None:
    found = {path[-1]: inputs for path, inputs in artifact_inputs(spec)}
    (producer,) = found["evaluate"]["shard_predictions"]
    assert producer[-2:] == ("predict", "predictions")
    assert any(part.startswith("for-loop") for part in producer)
