"""The face of `answer`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def answer(
    model: Input[Model],
    seeds_set: Input[Dataset],
    task: dict,
    predictions: Output[Dataset],
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    shard: int = 0,
    shards: int = 1,
    iteration: int = 0,
    settings: dict = {},
):
    """Asks the student one shard's share of the seed, validation and test questions, and grades the answers.

    Args:
        model: The student, as train saved it.
        seeds_set: All seeds (examples).
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        predictions: The answers of this shard with their grades (predictions), for evaluate to put together.
        validation_set: All validation rows (examples).
        test_set: All test rows (examples).
        shard: Which share to answer, from 0.
        shards: How many there are; each has about as much work as any other.
        iteration: Which iteration this is, from 0.
        settings: The config's `evaluate` section.
    """
    from llm2llm.components.answer.run import run

    run(
        model=model,
        seeds_set=seeds_set,
        validation_set=validation_set,
        test_set=test_set,
        task=task,
        shard=shard,
        shards=shards,
        iteration=iteration,
        settings=settings,
        predictions=predictions,
    )
