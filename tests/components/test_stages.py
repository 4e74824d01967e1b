"""The table of stages says what the components and their settings say."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components import dedupe
from llm2llm.components.shared.base.settings import StageSettings
from llm2llm.components.stages import STAGES

COMPONENTS = [name for name in STAGES if name != "configure"]


def component_of(name: str) -> Any:
    """A stage's component; `configure` is made by the pipelines, as it checks a whole config."""
    room = "pipelines.kubeflow.configure" if name == "configure" else f"components.{name}.component"
    return getattr(import_module(f"llm2llm.{room}"), name)


def settings_of(name: str) -> type[StageSettings]:
    words = "".join(word.capitalize() for word in name.split("_"))
    found: type[StageSettings] = getattr(import_module(f"llm2llm.components.{name}.settings"), f"{words}Stage")
    return found


def test_every_folder_with_a_component_is_in_it() -> None:
    root = Path(str(dedupe.__file__)).parents[1]
    assert sorted(path.parent.name for path in root.glob("*/component.py")) == sorted(COMPONENTS)


@pytest.mark.parametrize("name", STAGES)
def test_its_outputs_are_those_of_the_component(name: str) -> None:
    spec = component_of(name).component_spec
    # Artifacts have types such as `system.Dataset@0.0.1`; parameters `Boolean` and the like.
    artifacts = {key for key, output in (spec.outputs or {}).items() if output.type.startswith("system.")}
    assert artifacts == set(STAGES[name].outputs)


@pytest.mark.parametrize("name", COMPONENTS)
def test_its_sections_are_the_fields_of_the_settings(name: str) -> None:
    assert set(settings_of(name).model_fields) == set(STAGES[name].sections)


@pytest.mark.parametrize("name", COMPONENTS)
def test_who_has_sections_is_handed_settings_as_a_text(name: str) -> None:
    inputs = component_of(name).component_spec.inputs
    assert ("settings" in inputs) == bool(STAGES[name].sections)
    if STAGES[name].sections:
        assert inputs["settings"].type == "String"
