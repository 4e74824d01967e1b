"""Our pipelines on the double of Kubeflow's backend: texts arrive as written, and what is known is taken over."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2llm.components.shared.base.settings_text import read_settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import FORM_PARAMETERS, load_config, to_parameters
from llm2llm.pipelines.config.configured import configured
from tests.support.kubeflow.backend import run
from tests.support.kubeflow.compiled import compiled_config
from tests.support.kubeflow.driver import Cache
from tests.support.kubeflow.launcher import StageInput, StageOutput
from tests.support.kubeflow.store import MetadataStore

pytestmark = pytest.mark.mlmd

TEXTS = [
    "{{workflow.name}}",
    "{{=1+1}}",
    "{{$.inputs.parameters['settings']}} {{$}} {{$.pipeline_job_name}}",
    "$(KUBERNETES_SERVICE_HOST) $(HOME) $$HOME $$x^2$$ ${USER}",
    "{{task}} {{ {% for %} {0} %s {a: {b: 1}}",
    'it\'s "so",\nwith a second line\tand C:\\new \\frac{1}{2} \\n',
    "é 猫 \u2028 \U0001f600 100% `x`",
]


@pytest.fixture
def pretend(tmp_path: Path) -> Callable[[StageInput], StageOutput]:
    """`configure` does what it does with what it receives; the other stages leave something."""

    def as_it_is(stage: StageInput) -> StageOutput:
        if stage.task != "configure":
            return StageOutput({})
        given = stage.parameters
        parameters = {name: given[name] for name in (*FORM_PARAMETERS, "settings")}
        artifact = LocalArtifact(str(tmp_path / "config.json"))
        return StageOutput(configured(given["name"], given["compiled"], parameters, artifact))

    return as_it_is


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_a_config_reach_every_stage_as_they_were_written(
    store: MetadataStore, pretend: Callable[[StageInput], StageOutput], text: str
) -> None:
    overrides = [f"task.instruction={_yaml(text)}", f"task.description={_yaml(text)}", "max_iterations=1"]
    result = run(compiled_config("quickstart", overrides), store=store, pretend=pretend)
    assert result.state == "Succeeded", result.message
    seen = 0
    for stage in result.stages:
        if "settings" in stage.parameters and stage.task != "configure":
            task = read_settings_text(stage.parameters["settings"], stage.task).get("task")
            if task is not None:
                assert (task["instruction"], task["description"]) == (text, text), stage.task
                seen += 1
    assert seen >= 8


def test_the_same_config_with_the_same_data_is_taken_over_but_for_what_looks_outside(
    store: MetadataStore, pretend: Callable[[StageInput], StageOutput]
) -> None:
    cache = Cache()
    documents = compiled_config("quickstart", ["promote.registry=s3://b/r", "max_iterations=2"])
    first = run(documents, store=store, cache=cache, pretend=pretend)
    again = run(documents, store=store, cache=cache, pretend=pretend)
    assert (first.state, again.state, first.cached) == ("Succeeded", "Succeeded", [])
    ran, taken_over = ({re.sub(r"-(\d+|end)$", "", name) for name in of} for of in (again.not_cached, again.cached))
    assert {"controls-end", "report-end"} <= {*again.cached, *again.not_cached}, "the loop has ended"
    # The report and the registry are handed the config, an artifact of a task that always runs.
    assert ran == {"configure", "promote", "report"}
    assert {stage.replace("_", "-") for stage in STAGES} - {
        "detect-changes",
        "notify",
        "predict",
        "tune",
    } == ran | taken_over


def test_another_setting_of_the_teacher_leaves_iteration_0_as_it_was(
    store: MetadataStore, pretend: Callable[[StageInput], StageOutput]
) -> None:
    cache = Cache()
    config = load_config("quickstart", ["max_iterations=1"])
    documents = compiled_config("quickstart", ["max_iterations=1"])
    run(documents, to_parameters(config), store=store, cache=cache, pretend=pretend)
    changed = to_parameters(config) | {"teacher_examples_per_error": 3}
    again = run(documents, changed, store=store, cache=cache, pretend=pretend)
    assert {"prepare", "train", "evaluate", "filter-errors"} <= set(again.cached)
    assert "teacher-augment" in again.not_cached


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)
