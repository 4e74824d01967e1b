"""The question for each row, and how rows are batched and dealt to shards.

    rows -> cut -> batches of rows of like length -> share -> those of one shard

Batches depend on the rows alone, neither on their order nor on the number of shards, and a shard gets whole batches. A
batch's padding can change the last digits of a row's logits: so every row gets the same answer, however many pods work.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm2llm.components.shared.data.schemas import Example, Split
from llm2llm.components.shared.models.prompts import Encoded


@dataclass(frozen=True, slots=True)
class StudentQuestion:
    """One row for a student."""

    split: Split
    example: Example
    prompt: list[int]
    samples: int = 1
    """Answers to write; 0: none. More than one are drawn."""
    drawn: bool = False
    """Whether a single answer is drawn, too, rather than greedy."""
    limit: int = 0
    """The longest answer in tokens: as the settings say, or what the student's context leaves."""
    measured: list[Encoded] = field(default_factory=list)
    """The prompt with completions of which the likelihood is wanted."""

    @property
    def draws(self) -> bool:
        """Whether its answers are drawn."""
        return self.drawn or self.samples > 1


@dataclass(frozen=True, slots=True)
class StudentAnswer:
    """What a student wrote, and whether it hit the token limit before it ended."""

    completion: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class StudentReply:
    """What a student makes of a question."""

    answers: list[StudentAnswer]
    likelihoods: list[float]
    """The log-likelihood of each completion of `measured`, in nats."""


def cut(questions: Sequence[StudentQuestion], batch_size: int) -> list[list[StudentQuestion]]:
    """The questions in batches of at most `batch_size` rows of which the same is asked, those of like length together.

    The longest come first: a batch that does not fit into memory shows at once. Ids break ties.
    """
    alike: dict[tuple[int, int, bool], list[StudentQuestion]] = defaultdict(list)
    for question in sorted(questions, key=_place):
        alike[question.samples, question.limit, bool(question.measured)].append(question)
    batches = [rows[at : at + batch_size] for rows in alike.values() for at in range(0, len(rows), batch_size)]
    return sorted(batches, key=lambda batch: _place(batch[0]))


def share(batches: Sequence[list[StudentQuestion]], shard: int, shards: int) -> list[list[StudentQuestion]]:
    """The batches of one shard, of about as much work as any other's: each batch, the longest first, goes to the shard
    that has the least so far (longest processing time first; Graham 1969). There may be none.

    Raises:
        ValueError: `shard` is not in 0..shards - 1.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard must be in 0..{shards - 1}, got {shard}")
    load = [0] * shards
    taken: list[list[list[StudentQuestion]]] = [[] for _ in load]
    for batch in sorted(batches, key=lambda batch: (-_work(batch), _place(batch[0]))):
        least = load.index(min(load))
        load[least] += _work(batch)
        taken[least].append(batch)
    return sorted(taken[shard], key=lambda batch: _place(batch[0]))


def _place(question: StudentQuestion) -> tuple[int, str, str]:
    return -len(question.prompt), question.example.id, question.split


def _work(batch: Sequence[StudentQuestion]) -> int:
    """The tokens that a batch takes at most, padding left out."""
    return sum(
        max(1, row.samples) * (len(row.prompt) + row.limit if row.samples else 0)
        + sum(len(one.prompt) + len(one.completion) for one in row.measured)
        for row in batch
    )
