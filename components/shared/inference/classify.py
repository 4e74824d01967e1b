"""The labels' probabilities from a student that is a classifier, in batches."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.data.schemas import ASKED, Example, Split
from llm2llm.components.shared.inference.questions import Replies, StudentQuestion, StudentReply, cut, shard_of
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.classifier import columns_of, label_logs, text_ids
from llm2llm.components.shared.models.load import load_config, load_model, load_reader
from llm2llm.components.shared.models.memory import in_pieces
from llm2llm.components.shared.models.prompts import Encoded
from llm2llm.components.shared.tasks import Task

MORE_MEMORY = "use a larger GPU, or train with a lower train.max_length"


def ask_classifier(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    task: Task,
    settings: AnswerSettings,
    shard: int = 0,
    shards: int = 1,
) -> tuple[Replies, dict[str, float]]:
    """The log-probability of each of the task's labels for the examples of one shard, and how fast they came.

    Args:
        student: A classifier's folder.
        splits: What to ask. A text that is too long for the student loses its end, as whoever serves it cuts it.
        task: Has the student's labels, in any order.
        settings: `batch_size` and `trust_remote_code` are looked at.
        shard, shards: See `predict_share`.

    Raises:
        UserError: The student cannot be loaded, or has other labels; a single row does not fit into memory.
    """
    config = load_config(student, settings.trust_remote_code)
    columns = columns_of(config, task, f"student {student}")
    tokenizer = load_reader(student, settings.trust_remote_code)
    questions = []
    for split in ASKED:
        for example in splits.get(split, []):
            text = text_ids(tokenizer, example)
            measured = [Encoded(text, [place]) for place in range(len(columns))]
            questions.append(
                StudentQuestion(split=split, example=example, prompt=text, samples=0, limit=1, measured=measured)
            )
    batches = shard_of(cut(questions, settings.batch_size), shard, shards)
    asked = [question for batch in batches for question in batch]
    if not asked:
        return [], {}
    longest = tokenizer.model_max_length
    full = [one for one in asked if len(one.prompt) == longest]
    cut_off = sorted(one.example.id for one in full if len(text_ids(tokenizer, one.example, whole=True)) > longest)
    if cut_off:
        print(
            f"evaluate: {len(cut_off)} texts have more than {longest} tokens, of which the student reads the first: "
            f"{', '.join(cut_off[:10])}",
            flush=True,
        )
    started = time.monotonic()
    model = load_model(student, settings.trust_remote_code, head="classifier").eval()
    loaded = time.monotonic()

    def scores(piece: Sequence[StudentQuestion]) -> list[list[float]]:
        found: list[list[float]] = label_logs(model, tokenizer, [one.prompt for one in piece])[:, columns].tolist()
        return found

    progress = Progress("evaluate", len(asked), "rows")
    replies: Replies = []
    rows = settings.batch_size
    for batch in batches:
        values, rows = in_pieces(batch, rows, scores, "evaluate", MORE_MEMORY)
        replies += [(question, StudentReply([], value)) for question, value in zip(batch, values, strict=True)]
        progress.show(len(replies))
    ended = time.monotonic()
    return replies, {"load_seconds": loaded - started, "rows_per_second": len(asked) / max(1e-9, ended - loaded)}
