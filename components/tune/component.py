"""Stage `tune`: settings of the training, tried on the seeds before the loop."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import TRAIN


class Tuned(NamedTuple):
    """The settings of the stages that train."""

    train: str
    out_of_fold: str
    controls: str


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def tune(
    splits: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    journal: Output[Dataset],
    replay_set: Input[Dataset] | None = None,
) -> Tuned:
    """Trains a student on the seeds with each of several settings, and chooses the settings whose student is best.

    Args:
        splits: Seeds, which the students are trained on, and validation (a folder of examples).
        previous_journal: What the run has found out so far (a folder).
        settings: task, student, train, evaluate, tune and random_seed of the config, as JSON, and in handed_on
            what else the stages that train are to get.
        journal: The journal, with every trial and its score.
        replay_set: General rows (examples), mixed in as for train.

    Returns:
        The settings of the stages that train, with the chosen values in `train`, as JSON.
    """
    given = locals()
    from llm2llm.components.shared.base.settings_text import read_settings_text
    from llm2llm.components.shared.data.artifacts import read_optional
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.stage import running_stage
    from llm2llm.components.tune.component import Tuned
    from llm2llm.components.tune.settings import TuneStage
    from llm2llm.components.tune.tune import discard, handed_on
    from llm2llm.components.tune.tune import tune as tried

    with running_stage("tune", given, TuneStage) as stage:
        rows = read_splits(splits.path)
        kept: list[str] = []
        replay = read_optional(replay_set, "examples", Example)
        trials = tried(rows["seeds"], rows["validation"], stage, replay, kept)
        write_journal(journal, read_journal(previous_journal).with_more(trials=trials))
        discard(kept)
        texts = handed_on(read_settings_text(settings, "settings"), trials)
    return Tuned(**texts)
