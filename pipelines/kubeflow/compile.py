"""From a config to a pipeline file that Kubeflow takes."""

import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config, to_parameters
from llm2llm.pipelines.config.data_versions import data_versions
from llm2llm.pipelines.config.stage_settings import stage_settings
from llm2llm.pipelines.kubeflow.apply_placement import mlflow_unset
from llm2llm.pipelines.kubeflow.compact import compact, drop_type_versions, merge_components, share_bodies
from llm2llm.pipelines.kubeflow.expected_size import expected_size, size_line
from llm2llm.pipelines.kubeflow.spec_checks import refuse_repeated_artifacts
from llm2llm.pipelines.kubeflow.workflow_size import WorkflowSize, refuse_too_large


def compile_config(config: Config, output: Path, for_cluster: bool = True) -> None:
    """Writes the compiled pipeline of a config, whole or not at all; its parameters default to the config's values.

    The same config gives the same bytes.

    Args:
        config: The config.
        output: The file to write.
        for_cluster: Rather than for a run on this machine. There equal components are one; KFP's local runner names the
            folders of outputs by component, so `train 1` would overwrite what `train 0` left. And there some stages
            are never answered from Kubeflow's cache, see `_ask_again`. A run on this machine has copies of the files,
            whose names change with them, and its settings compiled in.

    Raises:
        UserError: The output cannot be written, or has no YAML suffix; a task would get one artifact under two names.
    """
    _refuse_suffix(output)
    # Importing KFP and the stages' faces takes half a second; a bad config should not wait for it.
    from kfp import compiler

    from llm2llm.pipelines.kubeflow.pipeline import build_pipeline

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draft = Path(folder) / "pipeline.yaml"
        settings = None if for_cluster else stage_settings(config, data_versions(dict(config.data)))
        pipeline = build_pipeline(config, settings)
        compiler.Compiler().compile(pipeline, str(draft), pipeline_parameters=to_parameters(config))
        text = draft.read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # three times as fast, where there is one
    documents = compact(list(yaml.load_all(text, Loader=loader)), for_cluster)
    refuse_repeated_artifacts(documents[0])
    if for_cluster:
        drop_type_versions(documents[0])
        share_bodies(documents[0])
        merge_components(documents[0])
        _ask_again(documents[0])
    # Not the compiler's own comments, in which the order of keys changes from one time to the next.
    header = f"# PIPELINE DEFINITION\n# Name: {config.name}\n"
    style: dict[str, Any] = {"default_flow_style": None, "sort_keys": True, "width": 100_000, "allow_unicode": True}
    _put_in_lines(*documents)
    write_text(output, header + yaml.dump_all(documents, Dumper=_Dumper, **style))


MOST_WITH_REPORTS = 900 * 1024
"""Bytes of the Workflow above which a report after each iteration must be asked for."""


@dataclass(frozen=True)
class Checked:
    """A compiled pipeline that fits."""

    config: Config
    """What was compiled: with `report.each_iteration` as it fits, where it was not set."""
    size: WorkflowSize

    @property
    def notes(self) -> list[str]:
        """What a person should know about it, a line each."""
        notes = [size_line(self.size)]
        if not self.config.reports_each_iteration:
            notes.append("one report, when the loop has ended (report.each_iteration)")
        if unlogged := mlflow_unset(self.config):
            notes.append(f"warning: {unlogged}")
        return notes


def compile_checked(config: Config, output: Path) -> Checked:
    """Writes the compiled pipeline of a config, for a cluster, and returns what it will come to there.

    Raises:
        UserError: As `compile_config`, or its run would outgrow Kubeflow; then nothing is written.
    """
    _refuse_suffix(output)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "pipeline.yaml"
        text, size = _drafted(config, draft)
        if config.report.each_iteration is None and size.stored.total > MOST_WITH_REPORTS:
            report = config.report.model_copy(update={"each_iteration": False})
            config = config.model_copy(update={"report": report})
            text, size = _drafted(config, draft)
        refuse_too_large(size)
    write_text(output, text)
    return Checked(config, size)


def _drafted(config: Config, draft: Path) -> tuple[str, WorkflowSize]:
    compile_config(config, draft)
    text = draft.read_text(encoding="utf-8")
    return text, expected_size(config, text)


def _refuse_suffix(output: Path) -> None:
    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"{output}: a compiled pipeline is YAML; give a name that ends in .yaml")


def _ask_again(spec: dict[str, Any]) -> None:
    """Switches off the cache for the stages whose answer depends on more than their inputs."""
    never = "|".join(name.replace("_", "-") for name, stage in STAGES.items() if not stage.cached)
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if re.fullmatch(rf"({never})(-\d+)?", name):
                task["cachingOptions"] = {}


class _Line(dict[str, Any]):
    """A mapping that is written in one line: a fifth of the file was indentation."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Line` as `{...}`."""


_Dumper.add_representer(
    _Line, lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True)
)


def _put_in_lines(spec: dict[str, Any], *platforms: dict[str, Any]) -> None:
    """Each task, what a component takes and gives, and where an executor runs, in a line."""
    for platform in platforms:
        places = platform["platforms"]["kubernetes"].get("deploymentSpec", {}).get("executors", {})
        places |= {name: _Line(place) for name, place in places.items()}
    for component in [spec["root"], *spec["components"].values()]:
        tasks = component.get("dag", {}).get("tasks", {})
        tasks |= {name: _Line(task) for name, task in tasks.items()}
        if component is not spec["root"]:  # the form's parameters have descriptions
            component |= {side: _Line(component[side]) for side in component if side.endswith("Definitions")}
