"""The question for each row, and how rows are batched and dealt to shards.

    rows -> plan -> cut -> blocks of rows of like length -> shard_of -> those of one shard -> questions -> batches

Batches depend on the rows alone, neither on their order nor on the number of shards, and a shard gets whole blocks. A
batch's padding can change the last digits of a row's logits: so every row gets the same answer, however many pods work.
A shard encodes its own rows only, but for the prompts of a few rows (`FEW`): those are a batch to a block, by tokens.
Of many rows a block is several batches by bytes, and is cut again by tokens once it is encoded.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from llm2llm.components.shared.data.schemas import Example, Split
from llm2llm.components.shared.models.prompts import Encoded

FEW = 2048
"""Rows whose prompts every shard encodes: half a second. Batches by bytes take a tenth more padding."""
BLOCK = 4
"""Batches to a block of many rows: cut by tokens, they have 1 to 4% more padding than batches of all rows would."""


class Row(Protocol):
    """What is batched and dealt."""

    @property
    def place(self) -> tuple[int, str, str]:
        """Where it stands: the longest first; ids break ties."""

    @property
    def alike(self) -> tuple[int, int, bool]:
        """What is asked of it: rows in a batch have the same."""

    @property
    def work(self) -> int:
        """About how many tokens it takes at most, padding left out."""


AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True, slots=True)
class Planned:
    """A row before it is encoded."""

    split: Split
    example: Example
    length: int
    """Of its prompt, in tokens or about as many."""
    samples: int
    completions: int
    """How many completions are measured."""
    limit: int
    prompt: list[int] | None = None
    """Where it has been encoded already."""

    @property
    def place(self) -> tuple[int, str, str]:
        return -self.length, self.example.id, self.split

    @property
    def alike(self) -> tuple[int, int, bool]:
        return self.samples, self.limit, bool(self.completions)

    @property
    def work(self) -> int:
        return self.samples * (self.length + self.limit) + self.completions * self.length


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

    @property
    def place(self) -> tuple[int, str, str]:
        return -len(self.prompt), self.example.id, self.split

    @property
    def alike(self) -> tuple[int, int, bool]:
        return self.samples, self.limit, bool(self.measured)

    @property
    def work(self) -> int:
        measured = sum(len(one.prompt) + len(one.completion) for one in self.measured)
        return self.samples * (len(self.prompt) + self.limit) + measured


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


Replies = list[tuple[StudentQuestion, StudentReply]]


def plan(
    rows: Sequence[tuple[Split, Example]],
    encode: Callable[[Example], list[int]],
    asked: Callable[[Split, Example], tuple[int, int]],
    limit: int,
    context: int | None,
) -> tuple[list[Planned], int]:
    """(the rows before they are asked, how many batches go to a block).

    Args:
        rows: All rows, of every shard.
        encode: Gives a row's prompt; called for a few rows only.
        asked: How many answers a row is to have, and how many completions are measured.
        limit: The longest answer in tokens.
        context: The most tokens of prompt and answer together; None where there is no bound.
    """
    few = len(rows) <= FEW
    planned = []
    for split, example in rows:
        samples, completions = asked(split, example)
        prompt = encode(example) if few else None
        texts = (example.question, *example.choices, *example.tools)
        length = sum(len(text.encode()) for text in texts) // 4 if prompt is None else len(prompt)
        room = limit if prompt is None or context is None else max(0, min(limit, context - length))
        planned.append(Planned(split, example, length, samples, completions, room, prompt))
    return planned, 1 if few else BLOCK


def cut(rows: Sequence[AnyRow], size: int) -> list[list[AnyRow]]:
    """The rows in batches of at most `size` of which the same is asked, those of like length together.

    The longest come first: a batch that does not fit into memory shows at once. Ids break ties.
    """
    alike: dict[tuple[int, int, bool], list[AnyRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.place):
        alike[row.alike].append(row)
    batches = [some[at : at + size] for some in alike.values() for at in range(0, len(some), size)]
    return sorted(batches, key=lambda batch: batch[0].place)


def shard_of(batches: Sequence[list[AnyRow]], shard: int, shards: int) -> list[list[AnyRow]]:
    """The batches of one shard, of about as much work as any other's: each batch, the longest first, goes to the shard
    that has the least so far (longest processing time first; Graham 1969). There may be none.

    Raises:
        ValueError: `shard` is not in 0..shards - 1.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard must be in 0..{shards - 1}, got {shard}")
    load = [0] * shards
    taken: list[list[list[AnyRow]]] = [[] for _ in load]
    for batch in sorted(batches, key=lambda batch: (-_work(batch), batch[0].place)):
        least = load.index(min(load))
        load[least] += _work(batch)
        taken[least].append(batch)
    return sorted(taken[shard], key=lambda batch: batch[0].place)


def _work(batch: Sequence[Row]) -> int:
    return sum(max(1, row.work) for row in batch)
