"""Stage `configure`, a run's first task: its parameters, checked together, become the settings of each stage."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Output

from llm2llm.components.images import CPU
from llm2llm.components.stages import STAGES

# A value for each stage, not one for all: a stage is then found in Kubeflow's cache when another's settings change.
StageSettingsTexts = NamedTuple(  # type: ignore[misc]  # the fields are those of the table
    "StageSettingsTexts", [(name, str) for name, stage in STAGES.items() if stage.sections]
)


@dsl.component(base_image=CPU, install_kfp_package=False)
def configure(
    name: str,
    compiled: str,
    data_seeds: str,
    data_validation: str,
    data_test: str,
    data_seed_count: int,
    loop_max_iterations: int,
    loop_patience: int,
    loop_random_seed: int,
    student: str,
    student_epochs: float,
    student_learning_rate: float,
    teacher: str,
    teacher_model: str,
    teacher_url: str,
    teacher_examples_per_error: int,
    settings: str,
    config: Output[Artifact],
) -> StageSettingsTexts:
    """Checks the run's parameters together, before anything is spent, and hands each stage its settings.

    The arguments that are not named below are the pipeline's form; see `config.form`.

    Args:
        name: The pipeline's name.
        compiled: What was fixed when the pipeline was compiled, as JSON.
        settings: Everything of the config that the form has no parameter for, as JSON.
        config: The config of this run, as JSON.

    Returns:
        The settings of each stage, as JSON, under its name.
    """
    given = locals()
    from llm2llm.pipelines.config.configured import configured
    from llm2llm.pipelines.config.form import FORM_PARAMETERS

    parameters = {key: given[key] for key in (*FORM_PARAMETERS, "settings")}
    return StageSettingsTexts(**configured(name, compiled, parameters, config))
