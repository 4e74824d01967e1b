"""All inputs of a config, read alike by `prepare` and by preflight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.examples import RawRows, first_place, to_examples
from llm2llm.components.shared.ingest.settings import RowsSettings
from llm2llm.components.shared.ingest.sources import read_raw
from llm2llm.components.shared.tasks import Task

GENERAL = Task(name="general", form="text", match="exact", question_cue="\0")
"""How general rows are read: any text is an answer. No text has the cue, so none is cut where another question begins.
"""
REPLAY = "replay"


@dataclass(frozen=True)
class Input:
    """One input of a run."""

    examples: list[Example]
    format: str = "columns"
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read."""


def read_inputs(
    sources: Mapping[str, str],
    task: Task,
    settings: RowsSettings,
    failed: Callable[[str, UserError], None] | None = None,
) -> dict[str, Input]:
    """Reads every input. `replay` holds general rows, of no task; the others hold rows of the task.

    Args:
        sources: Files or data sets by the input's name: `seeds`, `validation`, `test`, `pool`, `replay`; an empty one
            has no rows.
        task: Of all inputs but `replay`.
        settings: Formats, encoding, and the columns of `replay`.
        failed: Told of each input that cannot be read, which is then left out.

    Raises:
        UserError: An input cannot be read, and `failed` is None.
    """
    raw: dict[str, RawRows] = {}
    inputs: dict[str, Input] = {}

    def carefully(name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except UserError as problem:
            raw.pop(name, None)
            if failed is None:
                raise
            failed(name, problem)

    def read(name: str, source: str) -> None:
        if name == REPLAY:
            raw[name] = read_raw(source, GENERAL, settings.replay_columns, settings.replay_format, settings.encoding)
        else:
            raw[name] = read_raw(source, task, task.columns, settings.format, settings.encoding)

    def check(name: str) -> None:
        found = raw[name]
        if name == REPLAY:
            examples = to_examples(found, GENERAL, settings.replay_columns, None)
        else:
            examples = to_examples(found, task, task.columns, first)
        inputs[name] = Input(examples, found.format, tuple(found.notes))

    for name, source in sources.items():
        if source:
            carefully(name, partial(read, name, source))
        else:
            inputs[name] = Input([])
    # All inputs of the task are one column's rows: a 0 in any of them tells what the others count from.
    first = first_place([found for name, found in raw.items() if name != REPLAY], task, task.columns)
    for name in list(raw):
        carefully(name, partial(check, name))
    return {name: inputs[name] for name in sources if name in inputs}
