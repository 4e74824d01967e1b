"""Batches and shards: every row once, whatever the order of the rows and the number of shards."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.questions import BLOCK, FEW, Planned, StudentQuestion, cut, plan, shard_of


@st.composite
def questions(draw: st.DrawFn) -> list[StudentQuestion]:
    made = []
    for number in range(draw(st.integers(1, 60))):
        split: Any = draw(st.sampled_from(["seeds", "validation", "test"]))
        made.append(
            StudentQuestion(
                split=split,
                example=Example(id=f"{number:03d}", question="", answer=""),
                prompt=[1] * draw(st.integers(1, 40)),
                samples=3 if split == "seeds" else 1,
                limit=draw(st.sampled_from([8, 8, 8, 2])),
            )
        )
    return made


@given(questions(), st.integers(1, 7), st.integers(1, 6), st.randoms())
def test_shards_hold_each_row_once_in_the_same_batches(
    asked: list[StudentQuestion], batch_size: int, shards: int, random: Any
) -> None:
    whole = cut(asked, batch_size)
    shuffled = asked.copy()
    random.shuffle(shuffled)
    parts = [shard_of(cut(shuffled, batch_size), shard, shards) for shard in range(shards)]
    dealt = [[row.example.id for row in batch] for part in parts for batch in part]
    assert sorted(dealt) == sorted([row.example.id for row in batch] for batch in whole)
    assert sorted(row for batch in dealt for row in batch) == sorted(question.example.id for question in asked)


@given(questions(), st.integers(1, 7))
def test_a_batch_asks_the_same_of_rows_of_like_length(asked: list[StudentQuestion], batch_size: int) -> None:
    batches = cut(asked, batch_size)
    for batch in batches:
        assert len(batch) <= batch_size
        assert len({(row.samples, row.limit) for row in batch}) == 1
    for alike in {(row.samples, row.limit) for row in asked}:
        lengths = [len(row.prompt) for batch in batches for row in batch if (row.samples, row.limit) == alike]
        assert lengths == sorted(lengths, reverse=True), "the longest first, and no batch mixes long with short"


def test_shards_have_about_the_same_work() -> None:
    asked = [
        StudentQuestion(
            split="test", example=Example(id=f"{n:04d}", question="", answer=""), prompt=[1] * (1 + n), limit=50
        )
        for n in range(400)
    ]
    batches = cut(asked, 8)
    loads = [
        sum(len(row.prompt) + row.limit for batch in shard_of(batches, shard, 4) for row in batch) for shard in range(4)
    ]
    assert max(loads) / min(loads) < 1.05


def test_more_shards_than_batches_leave_some_with_nothing() -> None:
    asked = [StudentQuestion(split="test", example=Example(id="a", question="", answer=""), prompt=[1], limit=5)]
    assert [len(shard_of(cut(asked, 8), shard, 3)) for shard in range(3)] == [1, 0, 0]
    with pytest.raises(ValueError, match=r"shard must be in 0\.\.2"):
        shard_of([], 3, 3)


@pytest.mark.parametrize("few", [True, False])
def test_only_of_a_few_rows_all_prompts_are_encoded(few: bool) -> None:
    rows: list[Any] = [
        ("test", Example(id=f"{n:05d}", question="x" * (4 * n), answer="")) for n in range(FEW if few else FEW + 1)
    ]
    encoded = []

    def encode(row: Example) -> list[int]:
        encoded.append(row.id)
        return [1] * 7

    planned, batches = plan(rows, encode, lambda split, row: (1, 0), 50, 40)
    assert [row.example.id for row in planned] == [row.id for _, row in rows]
    assert len(encoded) == (FEW if few else 0)
    assert batches == (1 if few else BLOCK)
    assert {row.limit for row in planned} == {33 if few else 50}
    assert {row.length for row in planned} == ({7} if few else set(range(FEW + 1)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 6), st.integers(1, 6), st.randoms())
def test_rows_are_dealt_before_they_are_encoded(lengths: list[int], size: int, shards: int, random: Any) -> None:
    planned = [
        Planned("test", Example(id=f"{n:03d}", question="", answer=""), length, 1, n % 2, 50)
        for n, length in enumerate(lengths)
    ]
    whole = cut(planned, size)
    random.shuffle(planned)
    parts = [block for shard in range(shards) for block in shard_of(cut(planned, size), shard, shards)]
    assert sorted(parts, key=str) == sorted(whole, key=str)
    assert all(len({row.alike for row in block}) == 1 for block in whole)
