"""Compiled pipelines: they load, they are small, they say the same as the config, and nothing secret is in them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config, to_parameters
from llm2llm.pipelines.kubeflow.compile import compile_config
from tests.pipelines.config.test_config import NAMES


def compiled(name: str, path: Path, *overrides: str) -> dict[str, Any]:
    compile_config(load_config(name, overrides), path)
    (spec,) = yaml.safe_load_all(path.read_text())
    return dict(spec)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configs_compile_small_at_ten_iterations(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    spec = compiled(name, path, "max_iterations=10")
    assert path.stat().st_size < 100_000
    assert components.load_component_from_file(str(path)).pipeline_spec.pipeline_info.name == name
    text = path.read_text()
    assert "OneOf" not in text
    assert "oneof" not in text.lower()
    conditions = [key for key in spec["components"] if key.startswith("comp-condition")]
    assert len(conditions) == 11, "one nested iteration for each after the first, and one end for all"


def test_the_form_of_the_ui_has_described_parameters_with_the_configs_values(tmp_path: Path) -> None:
    spec = compiled("snips", tmp_path / "p.yaml")
    form = spec["root"]["inputDefinitions"]["parameters"]
    expected = to_parameters(load_config("snips"))
    assert form.keys() == expected.keys()
    assert len(form) <= 16
    for name, definition in form.items():
        assert len(definition["description"]) > 15, name
        assert definition["defaultValue"] == expected[name], name


def test_iterations_are_named_sub_graphs(tmp_path: Path) -> None:
    spec = compiled("quickstart", tmp_path / "p.yaml")
    names = [task["taskInfo"]["name"] for c in [spec["root"], *spec["components"].values()] if "dag" in c
             for task in c["dag"]["tasks"].values()]  # fmt: skip
    for name in (
        "iteration 1",
        "iteration 3",
        "train 0",
        "teacher_augment 1",
        "out_of_fold",
        "report 2",
        "end 3",
        "folds 0",
        "folds 2",
    ):
        assert name in names
    assert "folds 3" not in names, "at the limit no student of a fold is trained"
    assert names.count("out_of_fold") == 3, "few loops: none costs a pod more in a row"


def test_many_loops_share_one_sub_graph(tmp_path: Path) -> None:
    spec = compiled("quickstart", tmp_path / "p.yaml", "max_iterations=7", "filter_errors.folds=3", "evaluate.shards=2")
    graphs = [c["dag"]["tasks"] for c in [spec["root"], *spec["components"].values()] if "dag" in c]
    names = [task["taskInfo"]["name"] for tasks in graphs for task in tasks.values()]
    assert [names.count(name) for name in ("folds", "shards", "out_of_fold", "predict")] == [1, 1, 1, 1]
    assert {"folds 6", "shards 7"} <= set(names)


def test_replay_rows_reach_every_training(tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text('{"question": "Name a river.", "answer": "The Rhine."}\n')
    more = (f"data.replay={general}", "train.replay_fraction=0.5", "max_iterations=1")
    for name, overrides in (("with", more), ("without", more[2:])):
        spec = compiled("quickstart", tmp_path / f"{name}.yaml", *overrides)
        graphs = [c["dag"] for c in [spec["root"], *spec["components"].values()] if "dag" in c]
        tasks = [task for graph in graphs for task in graph["tasks"].values()]
        trainings = [task for task in tasks if task["taskInfo"]["name"].startswith(("train ", "out_of_fold"))]
        assert len(trainings) == 3
        assert {"replay_set" in task["inputs"]["artifacts"] for task in trainings} == {name == "with"}


@pytest.mark.parametrize("shards", [1, 2])
def test_the_training_set_reaches_those_that_ask_only_where_generated_rows_are_asked(
    tmp_path: Path, shards: int
) -> None:
    more = (f"evaluate.shards={shards}", "filter_errors.selection=wrong", "max_iterations=8")
    for name, overrides in (("with", ("filter_errors.generated_rows=true",)), ("without", ())):
        spec = compiled("quickstart", tmp_path / f"{name}.yaml", *more, *overrides)
        graphs = [c["dag"] for c in [spec["root"], *spec["components"].values()] if "dag" in c]
        tasks = {task["taskInfo"]["name"]: task for graph in graphs for task in graph["tasks"].values()}
        asking = [task for stage, task in tasks.items() if stage.startswith("evaluate " if shards == 1 else "predict")]
        assert asking
        assert {"training_set" in task["inputs"]["artifacts"] for task in asking} == {name == "with"}


def test_tuned_settings_come_from_their_own_task_where_there_is_something_to_tune(tmp_path: Path) -> None:
    more = ("train.learning_rate=2e-5", "max_iterations=1")
    for name, overrides in (("with", ("tune.learning_rate=[0.001, 0.002]",)), ("without", ())):
        spec = compiled("quickstart", tmp_path / f"{name}.yaml", *more, *overrides)
        graphs = [c["dag"] for c in [spec["root"], *spec["components"].values()] if "dag" in c]
        tasks = [(key, task) for graph in graphs for key, task in graph["tasks"].items()]
        assert sum(task["taskInfo"]["name"] == "tune" for _, task in tasks) == (name == "with")
        assert ("exec-tune" in spec["deploymentSpec"]["executors"]) == (name == "with")
        makers = {
            task["taskInfo"]["name"]: task["inputs"]["parameters"]["settings"]
            for _, task in tasks
            if task["taskInfo"]["name"] in ("train 0", "evaluate 0")
        }
        of_train = makers["train 0"]["taskOutputParameter"]
        assert (of_train["producerTask"], of_train["outputParameterKey"]) == (
            "tune" if name == "with" else "configure",
            "train",
        )
        assert makers["evaluate 0"]["taskOutputParameter"]["producerTask"] == "configure"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [((), True), (("controls.steps=false",), False), (("train.start_from=previous",), False)],
)
def test_controls_are_there_once_where_they_are_wanted_and_only_the_last_report_waits(
    tmp_path: Path, overrides: tuple[str, ...], expected: bool
) -> None:
    spec = compiled("quickstart", tmp_path / "p.yaml", "max_iterations=2", *overrides)
    graphs = [c["dag"] for c in [spec["root"], *spec["components"].values()] if "dag" in c]
    named = [(key, task["taskInfo"]["name"], task) for graph in graphs for key, task in graph["tasks"].items()]
    ends = {name: task for _, name, task in named if name.startswith("end ")}
    assert sorted(ends) == (["end 0", "end 1", "end 2"] if expected else [])
    assert len({task["componentRef"]["name"] for task in ends.values()}) == bool(expected), "all are the same sub-graph"
    numbers = {
        name: task["inputs"]["parameters"]["iteration"]["runtimeValue"]["constant"] for name, task in ends.items()
    }
    assert all(name == f"end {number:.0f}" for name, number in numbers.items())
    assert [key for key, name, _ in named if name == "controls"] == (["controls-end"] if expected else [])
    waiting = [key for key, _, task in named if "controls-end" in task.get("dependentTasks", [])]
    assert waiting == (["report-end"] if expected else [])
    reports = {(key, name) for key, name, _ in named if key.startswith("report")}
    assert reports == {("report", "report 0"), ("report-2", "report 1")} | (
        {("report-end", "report")} if expected else {("report-3", "report 2")}
    ), "their keys say which iteration they are of"


@pytest.mark.parametrize("overrides", [(), ("report.each_iteration=false",), ("controls.steps=false",)])
def test_on_one_machine_an_iteration_waits_for_the_promotion_of_the_one_before(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """KFP's local runner takes tasks that do not wait for one another in any order; the last promotion needs the
    candidates of all iterations. In a cluster a candidate is stored beside the next iteration."""
    given = ["promote.registry=s3://b/r", "max_iterations=3", *overrides]
    for for_cluster in (False, True):
        compile_config(load_config("quickstart", given), tmp_path / "p.yaml", for_cluster)
        spec = next(yaml.load_all((tmp_path / "p.yaml").read_text(), Loader=yaml.CSafeLoader))
        waits = []
        for component in [spec["root"], *spec["components"].values()]:
            tasks = component.get("dag", {}).get("tasks", {})
            promotions = {key for key, task in tasks.items() if task["taskInfo"]["name"].startswith("promote ")}
            waits += [
                bool(promotions & {*task["dependentTasks"]})
                for task in tasks.values()
                if task["taskInfo"]["name"].startswith("iteration ")
            ]
        assert waits == [not for_cluster] * 3


def test_every_reference_of_a_compacted_pipeline_resolves(tmp_path: Path) -> None:
    """What a task takes from its sub-graph's inputs is there, what it passes on is asked for, executors exist."""
    spec = compiled("quickstart", tmp_path / "p.yaml", "max_iterations=4")
    everything, executors = spec["components"], spec["deploymentSpec"]["executors"]
    assert {c["executorLabel"] for c in everything.values() if "executorLabel" in c} == set(executors)
    for component in [spec["root"], *everything.values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            inner = everything[task["componentRef"]["name"]]
            for kind, reference in (("parameters", "componentInputParameter"), ("artifacts", "componentInputArtifact")):
                own = component.get("inputDefinitions", {}).get(kind, {})
                asked = inner.get("inputDefinitions", {}).get(kind, {})
                given = task.get("inputs", {}).get(kind, {})
                for key, value in given.items():
                    assert value.get(reference) is None or value[reference] in own, (name, key)
                    assert key in asked, (name, key)
                iterated = {task[i]["itemInput"] for i in ("parameterIterator",) if i in task and kind == "parameters"}
                required = {key for key, definition in asked.items() if not definition.get("isOptional")}
                assert required <= given.keys() | iterated, name


def test_sub_graphs_inputs_have_short_names_in_a_cluster_and_those_that_kfps_local_runner_knows_here(
    tmp_path: Path,
) -> None:
    """The local runner looks for an input by the task that makes it, and ends the loop where it finds none."""
    for for_cluster, wanted in (
        (True, {"Output", "journal", "training_set", "train"}),
        (False, {"filter-errors-Output"}),
    ):
        compile_config(load_config("quickstart"), tmp_path / "p.yaml", for_cluster)
        spec = next(yaml.load_all((tmp_path / "p.yaml").read_text(), Loader=yaml.CSafeLoader))
        (first,) = (t for t in spec["root"]["dag"]["tasks"].values() if t["taskInfo"]["name"] == "iteration 1")
        inputs = first["inputs"]
        assert wanted <= inputs["parameters"].keys() | inputs["artifacts"].keys()
        (name,) = (name for name in inputs["parameters"] if name.endswith("Output"))
        assert f"['{name}'] == true" in first["triggerPolicy"]["condition"]


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        compiled("quickstart", tmp_path / name)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_no_secret_and_no_docstring_is_compiled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    compiled("snips", tmp_path / "p.yaml")
    text = (tmp_path / "p.yaml").read_text()
    assert "sk-canary" not in text
    assert "OPENAI_API_KEY" not in text or "api_key_env" in text
    assert "Google" not in text
    assert "Args:" not in text


def test_the_output_must_be_a_writable_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.yaml"):
        compile_config(load_config("snips"), tmp_path / "p.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        compile_config(load_config("snips"), tmp_path / "file" / "p.yaml")
