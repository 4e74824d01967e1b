"""Near copies, asked for again until there is a row that is none."""

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from tests.support.fake_teacher import examples, shown


class TestNearCopiesAreAskedForAgain:
    """As the reference implementation does, of the same parent."""

    LONG = "the {} bird that sits up in the old tree by the river sings a song in the morning"

    def go(self, augment, colours, seeds, writes, **settings):
        settings = {"ask_again_above": 0.9, "attempts": 3, "checks": [], **settings}
        return augment(writes, colours, seeds, 2, **settings)

    def test_until_there_is_a_row_that_is_none(self, augment, colours, seeds) -> None:
        said = iter([self.LONG.format("big"), self.LONG.format("small"), "quite another text"])
        got, fake = self.go(augment, colours, seeds, lambda request, number: examples((next(said), "blue")))
        assert len(fake.requests) == 3
        assert sorted(row.question for row in got.candidates) == sorted([self.LONG.format("big"), "quite another text"])
        assert [(one.reason, one.question) for one in got.rejects] == [("near_copy", self.LONG.format("small"))]
        assert {row.parent_id for row in got.candidates} == {seed.id for seed in seeds[:2]}, "a row for each error"
        assert shown(fake.requests[2]) == shown(fake.requests[1]), "of the same parent"

    def test_no_more_than_attempts(self, augment, colours, seeds) -> None:
        got, fake = self.go(
            augment, colours, seeds, lambda request, number: examples((self.LONG.format(f"b{number}"), "blue"))
        )
        assert len(got.candidates) == 1
        assert len(fake.requests) == 2 + 1 + 1

    def test_off_it_is_left_to_dedupe(self, augment, colours, seeds) -> None:
        got, fake = self.go(
            augment, colours, seeds, lambda request, number: examples((self.LONG.format(f"b{number}"), "blue")),
            ask_again_above=None,
        )  # fmt: skip
        assert len(got.candidates) == len(fake.requests) == 2

    def test_a_copy_of_a_seed_counts(self, augment, colours, seeds) -> None:
        said = iter([f"a blue thing, number {n}!" for n in (7, 8)] + ["one", "two"])
        got, _ = self.go(augment, colours, seeds, lambda request, number: examples((next(said), "blue")))
        assert sorted(row.question for row in got.candidates) == ["one", "two"]

    def test_an_offline_teacher_is_not_asked_again(self) -> None:
        with pytest.raises(UserError, match="ask_again_above: only a language model is asked again"):
            TeacherAugmentSettings.load({"teacher": "pool", "ask_again_above": 0.9}, "teacher_augment")
