"""The loop as a Kubeflow pipeline: every stage of `run_loop` becomes a task on its image and in its place.

KFP has no loop. Iteration i + 1 sits inside `dsl.If` on what `filter_errors` returned in iteration i, so iterations
nest, data flows only downwards, and the run ends where the condition is first false.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kfp import dsl

from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.compiled import compiled_settings
from llm2llm.pipelines.config.form import describe_form, to_parameters
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.config.placement_values import seconds
from llm2llm.pipelines.kubeflow.apply_placement import placed
from llm2llm.pipelines.kubeflow.components import component
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement
from llm2llm.pipelines.loop import run_loop


class TaskOutputs:
    """The outputs of a task, as the loop asks for them."""

    def __init__(self, task: Any) -> None:
        self.task = task

    @property
    def returned(self) -> Any:
        return self.task.outputs["Output"]

    def __getitem__(self, name: str) -> Any:
        return self.task.outputs[name]


class KubeflowRunner:
    """Makes a task of each call.

    Args:
        config: Says where the stages run.
        form: The pipeline's parameters, for `configure`.
        settings: Each stage's, compiled in; None: every stage gets them from `configure`, when the pipeline runs.
    """

    def __init__(self, config: Config, form: Mapping[str, Any], settings: Mapping[str, str] | None) -> None:
        self._config = config
        self._placement = fit_placement(config)
        self._form = form
        self._settings: Any = settings
        self._handed_on: dict[str, Any] = {}
        self._in_order = settings is not None
        self._aside: list[Any] = []

    def __call__(self, stage: str, **inputs: Any) -> TaskOutputs:
        given = {name: value for name, value in inputs.items() if value is not None}
        if stage == "configure":
            compiled = settings_text(compiled_settings(self._config))
            given |= {"name": self._config.name, "compiled": compiled, **self._form}
        elif STAGES[stage].sections:
            given["settings"] = self._handed_on.get(stage) or self._settings[stage]
        task = component(stage)(**given)
        iteration = inputs.get("iteration")
        task.set_container_image(self._config.image_of(stage))
        task.set_display_name(stage if iteration is None else f"{stage} {iteration}")
        if stage == "detect_changes":  # on one machine too: what it says depends on the registry
            task.set_caching_options(False)
        config = self._config
        done = TaskOutputs(placed(task, stage, self._placement, config.train.nodes, config.evaluate.shards))
        if stage == "configure" and self._settings is None:
            self._settings = done
        self._handed_on |= {name: done[name] for name in STAGES[stage].hands_on}
        # In a cluster nobody waits for a report or a candidate of the registry. On one machine they would come in any
        # order, even last of all: a run that fails later would leave none, and the last promotion needs them.
        if stage in ("report", "promote"):
            self._aside.append(task)
        elif stage == "teacher_augment" and self._in_order and self._aside:
            task.after(*self._aside)
            self._aside = []
        return done

    @contextmanager
    def told(self) -> Iterator[None]:
        """A block after which stage `notify` runs, however it ends, where the config has it. A run on this machine is
        told of by the process that runs it."""
        if not self._config.notifies or self._in_order:
            yield
            return
        from llm2llm.pipelines.kubeflow.exit_task import check_address, ending_text

        check_address(self._config, self._placement)
        config = self._config
        task = component("notify")(name=config.name, ending=ending_text(config))
        task.set_container_image(config.image_of("notify"))
        task.set_display_name("notify")
        with dsl.ExitHandler(placed(task, "notify", self._placement), name="run"):
            yield

    def for_each(self, count: int, name: str, body: Callable[[Any], Any]) -> Any:
        with dsl.ParallelFor(items=list(range(count)), name=name) as item:
            output = body(item)
        return dsl.Collected(output)

    @contextmanager
    def only_if(self, condition: Any, name: str, holds: bool = True) -> Iterator[bool]:
        outside = list(self._aside)
        with dsl.If(condition == holds, name=name):
            yield True
        self._aside = outside  # no task outside may wait for one inside


def build_pipeline(config: Config, settings: Mapping[str, str] | None = None) -> Any:
    """The pipeline of a config as KFP's pipeline function.

    The config decides what cannot change at run time: depth, images, whether there are folds, shards, replay rows and a
    registry, whether the student of the iteration before is handed on. Everything else is a parameter of the form.

    Args:
        config: The config.
        settings: Each stage's, to compile in, for a run on one machine: KFP's local runner gives the tasks of a loop
            the loop's number in place of every value that comes from another task (kfp 2.17, task_spec_utils).
    """
    defaults = to_parameters(config)

    def llm2llm(*values: Any) -> None:
        runner = KubeflowRunner(config, dict(zip(defaults, values, strict=True)), settings)
        with runner.told():
            run_loop(config, runner)

    llm2llm.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=type(v)) for n, v in defaults.items()]
    )
    described = describe_form()
    llm2llm.__doc__ = "LLM2LLM: error-driven fine-tuning.\n\nArgs:\n" + "\n".join(
        f"    {name}: {described[name]}" for name in defaults
    )
    return dsl.pipeline(
        name=config.name,
        display_name=f"LLM2LLM: {config.name}",
        description=f"Fine-tunes a student on task {config.task.name}, has a teacher write new examples from its "
        f"errors, and repeats, up to {config.max_iterations} times.",
        pipeline_config=_pipeline_config(config.placement),
    )(llm2llm)


def _pipeline_config(placement: PlacementSettings) -> dsl.PipelineConfig:
    """How long a run may take, and its Workflow stays."""
    return dsl.PipelineConfig(
        active_deadline_seconds=seconds(placement.deadline) if placement.deadline else None,
        ttl_seconds_after_finished=seconds(placement.keep_finished) if placement.keep_finished else None,
    )
