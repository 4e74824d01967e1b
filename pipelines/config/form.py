"""The form of the compiled pipeline: what a person in the Kubeflow UI, the API or a schedule may change of a run.

Each of `FORM_PARAMETERS` stands for one key of the config; whatever else the config says travels in `settings`, one
JSON object. The UI sorts the form by name, so names begin with what belongs together: data, loop, student, teacher.

Texts pass through Argo, the launcher and the kubelet, which replace parts of them (see `base.settings_text`).
`settings` is written so that they find nothing; the short texts of the form are refused where they would.
"""

import json
from collections.abc import Mapping
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import read_settings_text, settings_text
from llm2llm.pipelines.config.config import Config, ImageSettings
from llm2llm.pipelines.config.loading import check_config

FORM_PARAMETERS: dict[str, str] = {
    "data_seeds": "data.seeds",
    "data_validation": "data.validation",
    "data_test": "data.test",
    "data_seed_count": "prepare.seed_count",
    "loop_max_iterations": "max_iterations",
    "loop_patience": "filter_errors.patience",
    "loop_random_seed": "random_seed",
    "student": "student",
    "student_epochs": "train.epochs",
    "student_learning_rate": "train.learning_rate",
    "teacher": "teacher_augment.teacher",
    "teacher_model": "teacher_augment.model",
    "teacher_url": "teacher_augment.url",
    "teacher_examples_per_error": "teacher_augment.examples_per_error",
}
"""The form's parameters, each with the key of the config that it stands for."""

REST = "settings"
"""The parameter with the rest of the config."""

NOT_IN_THE_FORM = ("name", "images", "placement")
"""Sections that are compiled in."""

MOST_BYTES = 100 * 1024
"""Of all parameters together. Linux takes 128 KiB for one argument, and the driver is given all of them as one."""

_REPLACED = ("{{", "$(", "$$")


def to_parameters(config: Config) -> dict[str, Any]:
    """The config as the pipeline's run-time parameters; `from_parameters` is the inverse.

    Raises:
        UserError: A text of the form that Kubeflow would change on its way, or parameters of more than `MOST_BYTES`.
    """
    values = config.model_dump(mode="json")
    rest = config.model_dump(mode="json", exclude_defaults=True, exclude=set(NOT_IN_THE_FORM))
    parameters = {}
    for name, key in FORM_PARAMETERS.items():
        *sections, last = key.split(".")
        value, left = values, rest
        for section in sections:
            value, left = value[section], left.get(section, {})
        parameters[name] = value[last]
        left.pop(last, None)
    # A section of which everything is in the form, or at its default, is not there.
    parameters[REST] = settings_text({key: value for key, value in rest.items() if value != {}})
    check_texts(parameters)
    return parameters


def check_texts(parameters: Mapping[str, Any]) -> None:
    """Refuses what would not arrive as it is.

    Raises:
        UserError: Names the parameter, what is wrong and what to do.
    """
    for name, value in parameters.items():
        if isinstance(value, str) and (found := [mark for mark in _REPLACED if mark in value]):
            key = FORM_PARAMETERS.get(name, "the texts in it")
            raise UserError(
                f"{name} ({key}): {value[:200]!r} holds {found[0]!r}, which Kubeflow replaces on the way to the stage; "
                "use a name without it"
                + ("" if name != REST else ", or write braces and $ in it as \\u007b, \\u007d and \\u0024")
            )
    size = sum(len(json.dumps(value)) for value in parameters.values())
    if size > MOST_BYTES:
        largest = max(parameters, key=lambda name: len(json.dumps(parameters[name])))
        raise UserError(
            f"the run's parameters are {size / 1024:,.0f} KiB, more than the {MOST_BYTES // 1024} that Kubeflow can "
            f"hand to a pod; most of it is {largest}: put long prompts, labels or grammars into a file in object "
            "storage, and name the file"
        )


def from_parameters(name: str, parameters: Mapping[str, Any], images: ImageSettings | None = None) -> Config:
    """The config that a run's parameters stand for, checked as a whole.

    Args:
        name: The pipeline's.
        parameters: Those of `FORM_PARAMETERS` and `settings`, which may be JSON text or an object.
        images: The pipeline's.

    Raises:
        UserError: Unknown keys, wrong values, contradictions, a key given both as a parameter and in `settings`.
    """
    values: dict[str, Any] = {"name": name, **_rest(parameters.get(REST))}
    for section in NOT_IN_THE_FORM[1:]:
        if section in values:
            raise UserError(f"{REST}.{section}: fixed when the pipeline is compiled; set it there")
    if images is not None:
        values["images"] = images.model_dump()
    for parameter, key in FORM_PARAMETERS.items():
        *sections, last = key.split(".")
        within = values
        for section in sections:
            within = within.setdefault(section, {})
            if not isinstance(within, dict):
                raise UserError(f"{REST}.{section}: expected keys and values, got {within!r}")
        if last in within:
            raise UserError(
                f"{REST}.{key}: set the parameter {parameter} instead; it is {parameters.get(parameter)!r} now"
            )
        if parameters.get(parameter) is not None:  # a form may leave out what is empty
            within[last] = parameters[parameter]
    return check_config(values, name)


def _rest(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, str):
        return read_settings_text(value or "", REST)
    if not isinstance(value, Mapping):
        raise UserError(f"{REST}: expected a JSON object of keys and values, got {value!r}")
    # Kubeflow hands mappings over in an order of its own.
    return dict(json.loads(json.dumps(dict(value), sort_keys=True)))


def describe_form() -> dict[str, str]:
    """What the form says of each parameter: the settings' own docstrings."""
    described = {}
    for name, key in FORM_PARAMETERS.items():
        *sections, last = key.split(".")
        found: Any = Config
        for section in sections:
            found = found.model_fields[section].annotation
        described[name] = " ".join((found.model_fields[last].description or "").replace("`", "").split())
    described[REST] = (
        "Everything else of the config as one JSON object: task, data.pool, data.replay and the sections prepare, "
        "train, evaluate, filter_errors, teacher_augment, dedupe, promote. Keys that have a field of their own in this "
        "form are not repeated here. Write { } and $ inside texts as \\u007b \\u007d \\u0024."
    )
    return described
