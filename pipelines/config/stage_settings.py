"""Each stage's settings: the sections of the config that `STAGES` names for it, as one text."""

from typing import Any

from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config.config import Config


def stage_settings(config: Config, data_versions: dict[str, str] | None = None) -> dict[str, str]:
    """Every stage's settings by its name; only what is not at its default, so that equal settings are equal texts.

    Args:
        config: The run's.
        data_versions: See `data_versions`; in the settings of `prepare` alone.
    """
    return {
        name: settings_text(stage_values(config, name, data_versions))
        for name, stage in STAGES.items()
        if stage.sections
    }


def stage_values(config: Config, stage: str, data_versions: dict[str, str] | None = None) -> dict[str, Any]:
    """One stage's settings, as `stage_settings` writes them."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    values["data_versions"] = data_versions
    values["out_of_fold"] = _out_of_fold(config)
    values["ceiling"] = _ceiling(config)
    if stage == "tune":
        values["handed_on"] = _handed_on(values)
    values["max_iterations"] = config.max_iterations  # said even where it is the default: it is what the stage is for
    return {section: values[section] for section in STAGES[stage].sections if values.get(section)}


def _handed_on(values: dict[str, Any]) -> dict[str, Any]:
    """What the stages that get their settings from `tune` need beside what it needs itself."""
    known = STAGES["tune"]
    wanted = {section for stage in known.hands_on for section in STAGES[stage].sections} - {*known.sections}
    return {section: values[section] for section in sorted(wanted) if values.get(section)}


def _ceiling(config: Config) -> dict[str, Any] | None:
    """The teacher that stage `controls` asks, with its ledger and money; None where it asks none."""
    asked = config.ceiling_teacher
    if asked is None:
        return None
    augment = config.teacher_augment
    values = augment.model_dump(mode="json", exclude_defaults=True)
    names = ("attempts", "ledger", "cache", "budget", "prices")
    return {
        "teacher": asked.model_dump(mode="json", exclude_defaults=True),
        **{name: values[name] for name in names if name in values},
    }


def _out_of_fold(config: Config) -> dict[str, Any]:
    chosen = config.filter_errors
    only_above = {"only_above": chosen.auto_above} if chosen.waits_for_known_seeds else {}
    return {"folds": chosen.folds, **only_above}
