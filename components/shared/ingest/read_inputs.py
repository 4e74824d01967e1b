"""All of a run's own rows, read in one place, so that `preflight` reads what `prepare` will read."""

from collections.abc import Mapping

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Columns, Task

GENERAL = Task(name="general", form="text", match="exact", question_cue="\0")
"""How general rows are read: any text is an answer. No text has the cue, so none is cut where another question begins.
"""


def read_input(name: str, source: str, task: Task, replay_columns: Columns) -> list[Example]:
    """The rows of one key of the `data` section; none for an empty source.

    Args:
        name: The key: `replay` rows are general ones, all others are of the task.
        source: As the config names it.
        task: Says what a row must have.
        replay_columns: Where general rows have question and answer.

    Raises:
        UserError: See `read_examples`.
    """
    if not source:
        return []
    return read_examples(source, GENERAL, replay_columns) if name == "replay" else read_examples(source, task)


def read_inputs(sources: Mapping[str, str], task: Task, replay_columns: Columns) -> dict[str, list[Example]]:
    """The rows of every key of the `data` section, by key; see `read_input`."""
    return {name: read_input(name, source, task, replay_columns) for name, source in sources.items()}
