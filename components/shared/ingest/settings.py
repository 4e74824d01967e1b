"""Settings for reading a user's rows."""

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.ingest.formats import RowFormat
from llm2llm.components.shared.tasks.task import Columns


class RowsSettings(Settings):
    """How rows are read; keys of the `prepare` section of a config."""

    format: RowFormat = "auto"
    """How rows hold question and answer: `columns` (as `task.columns` says), `messages`, `prompt_completion`,
    `sharegpt`, `alpaca` or `examples` (as `llm2llm export` writes them). `auto`: as the first row of a source looks;
    columns that the task names win, and a column `context` beside `question` and `answer` is put before the
    question."""
    encoding: str = "auto"
    """The encoding of text files, such as `cp1252` or `gb18030`. `auto`: UTF-8, UTF-16, or in CSV what old spreadsheets
    of Western Europe write."""
    replay_columns: Columns = Columns()
    """Where `data.replay` has question and answer, such as `{question: instruction, answer: output}`."""
    replay_format: RowFormat = "auto"
    """As `format`, for `data.replay`."""
