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

    Args:
        name: The pipeline's name.
        compiled: What was fixed when the pipeline was compiled.
        seeds: Labelled rows to draw the seeds from: a file or a Hugging Face dataset name[:config][#split].
        validation: Rows to decide by; empty: a share of the seed rows is split off.
        test: Rows to report on, never used to decide; may be empty.
        pool: Further labelled rows for the teacher `pool`; may be empty.
        replay: General rows to mix into training; may be empty.
        student: The model to fine-tune: a Hugging Face name, a folder, or `scratch`.
        seed_count: How many rows to draw as seeds; 0: all, or prepare_settings.seed_fraction of them.
        max_iterations: Iterations after iteration 0; at most as many as the pipeline was compiled with.
        patience: Stop when the best validation accuracy is this many iterations old; 0: never for this reason.
        epochs: Passes over the training set in each iteration.
        learning_rate: Peak learning rate.
        teacher: Who writes new examples: openai (any OpenAI-compatible endpoint), grammar, or pool.
        teacher_model: For the teacher openai: the model's name at the endpoint.
        teacher_url: For the teacher openai: the endpoint's base URL, usually ending in /v1.
        examples_per_error: New examples for each error.
        random_seed: Decides every draw: seeds, folds, weights, order of rows.
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        prepare_settings: The other keys of the config's prepare section.
        train_settings: The other keys of the config's train section.
        evaluate_settings: The other keys of the config's evaluate section.
        filter_errors_settings: The other keys of the config's filter_errors section.
        teacher_augment_settings: The other keys of the config's teacher_augment section.
        dedupe_settings: The other keys of the config's dedupe section.
        promote_settings: The config's promote section.
        config: The config of this run, as JSON.
    """
    from llm2llm.pipelines.config import configure_run

    parameters = {
        key: value for key, value in locals().items() if key not in ("name", "compiled", "config", "configure_run")
    }
    configure_run(name, compiled, parameters, config)
