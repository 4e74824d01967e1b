"""A student's folder, opened before any GPU starts: tokenizer, chat template, names and shapes of weights, answers."""

from collections.abc import Iterator
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.pipelines.config import Config


def student_notes(config: Config) -> Iterator[str]:
    """What is worth knowing about a student in a folder of this machine. No weights are read, only their headers.

    Raises:
        UserError: It cannot be loaded, trained by the method, asked in its chat template, or answer within the limit.
    """
    from llm2llm.components.shared.inference.limits import answer_limit
    from llm2llm.components.shared.models.load import check_loadable
    from llm2llm.components.shared.models.prompts import frame
    from llm2llm.components.shared.training.methods import check_optimiser, refuse_quantised

    refuse_quantised(config.student, config.train)
    check_optimiser(config.train)
    labels = config.task.labels if config.train.classifies else ()
    tokenizer = check_loadable(config.student, config.train.trust_remote_code, config.train.head, labels)
    if config.train.classifies:
        yield f"read as a classifier of {len(labels)} labels; the question as it stands"
        return
    found = frame(tokenizer, config.task.chat)
    if found is None:
        yield "no chat template: asked in plain text"
    else:
        yield f"its chat template lets the student begin after {found.between[-40:]!r}"
    limit, note = answer_limit(tokenizer, config.task, _rows(config), config.evaluate)
    yield note or f"answers of up to {limit} tokens hold every right one"


def vocabulary_note(config: Config) -> str:
    """That the teacher of a distillation, a folder of this machine as the student is, has the student's vocabulary.

    Raises:
        UserError: It has another, or cannot be loaded.
    """
    from llm2llm.components.shared.models.load import check_loadable, load_config
    from llm2llm.components.shared.models.vocabulary import refuse_other_vocabulary

    trusted, named = config.train.trust_remote_code, config.train.distill.model
    own, other = (check_loadable(one, trusted) for one in (config.student, named))
    sizes = tuple(load_config(one, trusted).get_text_config().vocab_size for one in (config.student, named))
    refuse_other_vocabulary(own, other, (sizes[0], sizes[1]), named)
    return f"{named} has the student's {sizes[0]:,} tokens"


def on_this_machine(student: str) -> bool:
    """Whether a student is a folder here."""
    return Path(student).expanduser().is_dir()


def _rows(config: Config) -> list[Example]:
    """The rows that are read from files of this machine; what is wrong with them, their own check says."""
    from llm2llm.components.shared.ingest.sources import is_file_source, read_examples, source_path

    rows = []
    for source in (config.data.seeds, config.data.validation, config.data.test):
        if source and (is_file_source(source) or source_path(source).exists()):
            try:
                rows += read_examples(source, config.task)
            except UserError:
                continue
    return rows
