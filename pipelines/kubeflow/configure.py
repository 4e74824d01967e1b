"""The first task of a run: its parameters, checked together before anything is spent, and kept as one file."""

from kfp import dsl
from kfp.dsl import Artifact, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def configure(
    name: str,
    compiled: dict,
    seeds: str,
    validation: str,
    test: str,
    pool: str,
    replay: str,
    student: str,
    seed_count: int,
    max_iterations: int,
    patience: int,
    epochs: float,
    learning_rate: float,
    teacher: str,
    teacher_model: str,
    teacher_url: str,
    examples_per_error: int,
    random_seed: int,
    task: dict,
    prepare_settings: dict,
    train_settings: dict,
    evaluate_settings: dict,
    filter_errors_settings: dict,
    teacher_augment_settings: dict,
    dedupe_settings: dict,
    promote_settings: dict,
    config: Output[Artifact],
):
    """Checks the run's parameters together, before anything is spent, and writes them down as one config.

    The arguments that are not named below are the pipeline's parameters, which `build_pipeline` describes.

    Args:
        name: The pipeline's name.
        compiled: What was fixed when the pipeline was compiled.
        config: The config of this run, as JSON.
    """
    from llm2llm.pipelines.config.config import configure_run

    parameters = {
        key: value for key, value in locals().items() if key not in ("name", "compiled", "config", "configure_run")
    }
    configure_run(name, compiled, parameters, config)
