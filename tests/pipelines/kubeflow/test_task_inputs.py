"""What a task is handed: conditions, loops, collected outputs, optional inputs."""

import pytest

from llm2llm.pipelines.kubeflow.task_inputs import DAG, DriverError, condition_holds
from llm2llm.pipelines.kubeflow.workflow_spec import Installation
from tests.support.kubeflow import toys
from tests.support.kubeflow.backend import run
from tests.support.kubeflow.compiled import compiled_toy
from tests.support.kubeflow.launcher import StageInput, StageOutput
from tests.support.kubeflow.store import MetadataStore


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("inputs.parameter_values['more'] == true", True),
        ("inputs.parameter_values['more'] == false", False),
        ("int(inputs.parameter_values['number']) > 2", True),
        ("inputs.parameter_values['name'] == 'a b'", True),
        ("!(inputs.parameter_values['more'] == true)", False),
        ("inputs.parameter_values['name'] != 'x' && int(inputs.parameter_values['number']) <= 2", False),
    ],
)
def test_conditions_as_the_compiler_writes_them(condition: str, holds: bool) -> None:
    assert condition_holds(condition, {"more": True, "number": 3.0, "name": "a b"}) is holds


def test_a_condition_of_another_form_is_no_code() -> None:
    with pytest.raises(DriverError, match="does not know"):
        condition_holds("__import__('os').getcwd() == ''", {})
    with pytest.raises(DriverError, match="evaluation error"):
        condition_holds("inputs.parameter_values['gone'] == true", {})


def _written(stage: StageInput) -> StageOutput:
    """Stages of the toys as if they had run."""
    given = stage.parameters
    if stage.task.startswith("count"):
        return StageOutput({"Output": 3 + given["add"]})
    if stage.task == "above":
        return StageOutput({"Output": given["number"] > given["limit"]})
    return StageOutput(metadata={"data": {"rows": given.get("rows", 0)}})


@pytest.mark.mlmd
def test_defaults_outputs_and_a_condition_that_does_not_hold(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.chain), {"rows": 7}, store=store, pretend=_written)
    assert result.state == "Succeeded", result.message
    assert result.received("write") == {"rows": 7}
    assert result.received("count") == {"add": 1}  # the component's default, added by the launcher
    assert result.received("above") == {"number": 4.0, "limit": 2.0}
    assert result.received("count-2") == {"add": 10}
    assert [stage.task for stage in result.stages] == ["write", "count", "above", "count-2"]
    given = result.stages[1].executor_input["inputs"]["artifacts"]["data"]["artifacts"]
    assert given[0]["metadata"]["rows"] == 7
    skipped = [node for node in result.nodes.values() if node["phase"] == "Skipped"]
    assert [node["displayName"] for node in skipped] == ["condition-2"]


@pytest.mark.mlmd
def test_a_loop_and_what_it_made_in_order(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.fan), store=store, pretend=_written)
    assert result.state == "Succeeded", result.message
    assert sorted(stage.parameters["rows"] for stage in result.stages if stage.task == "write") == [1, 2, 3]
    assert result.received("total") == {"numbers": [4, 4, 4]}
    merged = next(stage for stage in result.stages if stage.task == "merge")
    parts = merged.executor_input["inputs"]["artifacts"]["parts"]["artifacts"]
    assert [part["metadata"]["rows"] for part in parts] == [1, 2, 3]


@pytest.mark.mlmd
def test_a_list_of_artifacts_does_not_survive_a_sub_graph(store: MetadataStore) -> None:
    """A sub-graph's input artifacts are found by name, one for each name: a fault of KFP's client."""
    store.begin_run("pipeline", "run", "s3://bucket", "{}")
    parts = [
        store.record(f"part {number}", "system.Dataset", "s3://bucket/x", {"rows": number}) for number in (1, 2, 3)
    ]
    dag = store.create(DAG, "RUNNING", {"task_name": "condition-1"}, {"parts": parts})
    assert store.inputs_of(dag)["parts"].metadata == {"rows": 3}


@pytest.mark.mlmd
def test_one_artifact_under_two_names_is_the_stores_own_refusal(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.two_names), store=store, pretend=True)
    assert (result.state, result.failed_task) == ("Failed", "both")
    assert result.message.endswith('no execution found for type="system.ContainerExecution", name=""')


@pytest.mark.mlmd
def test_a_parameter_of_another_type_ends_the_driver(store: MetadataStore) -> None:
    result = run(compiled_toy(toys.chain), {"rows": "seven"}, store=store, pretend=_written)
    assert (result.state, result.failed_task) == ("Failed", "write")
    assert "input parameter 'rows' type mismatch: expect NUMBER_INTEGER, got string" in result.message


@pytest.mark.mlmd
def test_an_exit_task_runs_after_a_failure(store: MetadataStore) -> None:
    def fails(stage: StageInput) -> StageOutput:
        return StageOutput(failed="exit code 1") if stage.task == "count" else _written(stage)

    result = run(compiled_toy(toys.guarded), store=store, pretend=fails, backend=Installation(version="2.16"))
    assert (result.state, result.failed_task) == ("Failed", "count")
    assert result.received("write") == {"rows": 9}
