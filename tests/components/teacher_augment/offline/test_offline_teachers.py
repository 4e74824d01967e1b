"""The teachers `grammar` and `pool`, and the strategy `eda`: offline and deterministic."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.jsonl import json_lines
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import source_path
from llm2llm.components.shared.similarity import rouge_l
from llm2llm.components.teacher_augment.offline import grammar, pool
from llm2llm.components.teacher_augment.offline.grammar import load_grammar
from llm2llm.components.teacher_augment.replies import Reply, Request
from llm2llm.components.teacher_augment.strategies import eda

SMALL = {
    "patterns": {
        "blue": ["{hello} the {thing} is like the {place}.", "{thing} , {thing}!"],
        "red": ["a rose"],
    },
    "slots": {
        "hello": ["Hi,", ""],
        "thing": ["bowl", "cup", "{size} plate"],
        "size": ["big", "small"],
        "place": ["sky", "sea", "lake"],
    },
}


def drafts(replies: list[Reply]) -> list[str]:
    return [draft.question for reply in replies for draft in reply.drafts]


def problems(replies: list[Reply]) -> list[str]:
    return [problem.reason for reply in replies for problem in reply.problems]


def asked(parents: list[Example], count: int = 1) -> list[Request]:
    return [Request(parent=parent, error=None, count=count) for parent in parents]


class TestGrammarFile:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ({"patterns": {"a": ["{plase}"]}, "slots": {"place": ["x"]}},
             "'a' uses the unknown slot 'plase'; did you mean 'place'?"),
            ({"patterns": {"a": ["x"]}, "slots": {"one": ["{two}"]}}, "'one' uses the unknown slot 'two'"),
            ({"patterns": {"a": ["{one}"]}, "slots": {"one": ["{two}"], "two": ["{three}"], "three": ["x {one}"]}},
             "slots go in a circle: one -> two -> three -> one"),
            ({"patterns": {"a": ["x"]}, "slots": {"one": ["{one}"]}}, "slots go in a circle: one -> one"),
            ({"patterns": {"a": []}}, "'a' has no patterns or fillers"),
            ({"patterns": {"a": ["x"]}, "slots": {"one": []}}, "'one' has no patterns or fillers"),
            ({"patterns": {}}, "patterns: empty; give at least one pattern for each answer"),
            ({"patterns": {"a": ["the {big thing}"]}}, "'a' has a brace that belongs to no slot, in 'the {big thing}'"),
            ({"patterns": {"a": ["x"]}, "slots": {"one": ["}"]}}, "'one' has a brace that belongs to no slot, in '}'"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, tmp_path: Path, content: dict[str, Any], expected: str) -> None:
        file = tmp_path / "grammar.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        for source, where in ((str(file), str(file)), (content, "teacher_augment.grammar")):
            with pytest.raises(UserError) as caught:
                load_grammar(source)
            assert str(caught.value) == f"{where}: {expected}"

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ({"slots": {}}, ".patterns: missing"),
            ({"patterns": {"a": ["x"]}, "slot": {}}, ".slot: unknown key; did you mean 'slots'?"),
            ({"patterns": {"a": "x"}}, ".patterns.a: Input should be a valid list (got 'x')"),
            ({"patterns": {True: ["x"]}}, ".patterns.1: Input should be a valid string (got True)"),
            ({"patterns": {"a": [None]}}, ".patterns.a.0: Input should be a valid string (got None)"),
        ],
    )
    def test_another_shape_is_refused(self, content: dict[str, Any], expected: str) -> None:
        with pytest.raises(UserError) as caught:
            load_grammar(content)
        assert str(caught.value).startswith(f"teacher_augment.grammar{expected}")

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"a: [", "not YAML"),
            (b"- a", "a grammar is a mapping with"),
            (b"\xff\xfe\xff", "not YAML"),
            (b"", "mapping"),
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes, expected: str) -> None:
        file = tmp_path / "grammar.yaml"
        file.write_bytes(content)
        with pytest.raises(UserError, match=expected):
            load_grammar(str(file))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read the grammar .*none\.yaml: No such file"):
            load_grammar(str(tmp_path / "none.yaml"))
        with pytest.raises(UserError, match=r"builtin:none\.yaml: no such shipped file"):
            load_grammar("builtin:none.yaml")

    def test_many_slots_in_layers_are_checked_at_once(self) -> None:
        """Each slot uses two of the next layer: as many paths as 2 to the 40th."""
        slots = {f"s{i}{side}": [f"{{s{i + 1}a}}", f"{{s{i + 1}b}}"] for i in range(40) for side in "ab"}
        slots |= {"s40a": ["x"], "s40b": ["y"]}
        load_grammar({"patterns": {"a": ["{s0a}"]}, "slots": slots})


class TestGrammar:
    def test_fills_slots_tidily(self, example) -> None:
        (reply,) = grammar.write(asked([example("something", "blue")], 8), load_grammar(SMALL), [], 1, 0)
        assert len(reply.drafts) == 8
        for text in drafts([reply]):
            assert text[0].isupper()
            assert "  " not in text
            assert " ," not in text
            assert "{" not in text

    def test_answers_are_the_parents(self, example) -> None:
        replies = grammar.write(asked([example("x", "blue"), example("y", "red")]), load_grammar(SMALL), [], 1, 0)
        assert [draft.answer for reply in replies for draft in reply.drafts] == ["blue", "red"]
        assert drafts(replies[1:]) == ["A rose"]

    def test_an_answer_without_patterns(self, example) -> None:
        replies = grammar.write(asked([example("x", "green")], 2), load_grammar(SMALL), [], 1, 0)
        assert problems(replies) == ["no_patterns", "no_patterns"]
        assert replies[0].problems[0].detail == "the grammar has no patterns for the answer 'green'"

    def test_says_when_it_has_nothing_new(self, example) -> None:
        replies = grammar.write(asked([example("x", "red"), example("y", "red")], 2), load_grammar(SMALL), [], 1, 0)
        assert drafts(replies) == ["A rose"]
        assert problems(replies) == ["exhausted"] * 3

    def test_nothing_is_repeated(self, example) -> None:
        loaded = load_grammar(SMALL)
        parents = [example(f"{n}", "blue") for n in range(6)]
        first = drafts(grammar.write(asked(parents, 3), loaded, [], 1, 0))
        second = drafts(grammar.write(asked(parents, 3), loaded, [text.upper() for text in first], 2, 0))
        assert len({text.lower() for text in first + second}) == len(first + second)

    def test_is_repeatable(self, example) -> None:
        loaded, parents = load_grammar(SMALL), asked([example("x", "blue")], 4)
        one, same, iteration, seed = (grammar.write(parents, loaded, [], *n) for n in ((1, 0), (1, 0), (2, 0), (1, 1)))
        assert one == same
        assert drafts(one) != drafts(iteration)
        assert drafts(one) != drafts(seed)
        assert len({replies[0].call.key for replies in (one, iteration, seed)}) == 3

    def test_writes_what_is_like_the_parent(self, example) -> None:
        """Most similar of the sentences that it tries, and so more similar than a sentence at random."""
        loaded = load_grammar("builtin:support_tickets/grammar.yaml")
        parents = [example(text, "refund") for text in ("I returned the headset and have no refund yet",
                                                        "How long does a refund to my card take?")]  # fmt: skip
        rng = random.Random(0)
        patterns = loaded.patterns["refund"]
        for parent in parents:
            made = drafts(grammar.write(asked([parent], 20), loaded, [], 1, 0))
            by_chance = [grammar._fill(loaded, rng.choice(patterns), rng) for _ in range(200)]
            assert rouge_l([parent.question], made).mean() > 1.5 * rouge_l([parent.question], by_chance).mean()


class TestShippedGrammar:
    def test_cannot_copy_a_test_row(self, example) -> None:
        loaded = load_grammar("builtin:support_tickets/grammar.yaml")
        rows = [row["ticket"] for _, row in json_lines(source_path("builtin:support_tickets/test.jsonl"))]
        assert len(rows) >= 300
        rng = random.Random(0)
        nearest = (0.0, "", "")
        for queue, patterns in loaded.patterns.items():
            # At random, and, harder, as near to the test rows themselves as the teacher gets when they are its parents.
            made = [grammar._fill(loaded, rng.choice(patterns), rng) for _ in range(300)]
            made += drafts(grammar.write(asked([example(row, queue) for row in rows]), loaded, [], 1, 0))
            scores = rouge_l(made, rows)
            i, j = divmod(int(scores.argmax()), len(rows))
            nearest = max(nearest, (float(scores[i, j]), made[i], rows[j]))
        print(f"nearest to a test row: ROUGE-L {nearest[0]:.3f}, {nearest[1]!r} to {nearest[2]!r}")
        assert nearest[0] < 0.8

    def test_writes_for_every_queue(self) -> None:
        loaded = load_grammar("builtin:support_tickets/grammar.yaml")
        rows = [row for _, row in json_lines(source_path("builtin:support_tickets/seeds.jsonl"))]
        assert set(loaded.patterns) == {row["queue"] for row in rows}


class TestPool:
    @pytest.fixture
    def rows(self, example) -> list[Example]:
        texts = {"the blue sky": "blue", "the blue sea": "blue", "the green sea": "green", "a red rose": "red"}
        return [example(text, label) for text, label in texts.items()]

    def test_takes_the_most_similar(self, example, rows) -> None:
        replies = pool.write(asked([example("the blue sea here", "blue")], 3), rows, set(), False, 1)
        assert drafts(replies)[0] == "the blue sea"
        assert set(drafts(replies)[1:]) == {"the blue sky", "the green sea"}

    def test_of_equals_the_smallest_id(self, example) -> None:
        rows = [example(f"thing {letter}", "blue") for letter in "abcdef"]
        replies = pool.write(asked([example("thing", "blue")], 6), rows[::-1], set(), False, 1)
        expected = [row.question for row in sorted(rows, key=lambda row: row.id)]
        assert drafts(replies) == expected

    def test_no_row_twice_and_none_that_was_used(self, example, rows) -> None:
        parents = [example("the blue sea here", "blue"), example("the blue sea there", "blue")]
        replies = pool.write(asked(parents, 2), rows, {rows[1].id}, False, 1)
        assert len(set(drafts(replies))) == 3
        assert "the blue sea" not in drafts(replies)
        assert problems(replies) == ["exhausted"]
        assert replies[1].problems[0].detail == "the pool has no unused row left that fits"

    def test_the_same_answer_only(self, example, rows) -> None:
        replies = pool.write(asked([example("the green rose", "green")], 2), rows, set(), True, 1)
        assert drafts(replies) == ["the green sea"]
        assert problems(replies) == ["exhausted"]

    def test_an_empty_pool(self, example) -> None:
        assert problems(pool.write(asked([example("x", "blue")], 2), [], set(), True, 1)) == ["exhausted"] * 2

    def test_order_and_chunks_change_nothing(self, example, monkeypatch) -> None:
        words = ["the", "a", "blue", "red", "green", "sea", "sky", "rose", "cup"]
        rng = random.Random(0)
        rows = [example(" ".join(rng.sample(words, 4)), rng.choice(["blue", "red"])) for _ in range(60)]
        parents = [example(" ".join(rng.sample(words, 5)), rng.choice(["blue", "red"])) for _ in range(9)]
        expected = pool.write(asked(parents, 2), rows, set(), True, 1)
        monkeypatch.setattr(pool, "CHUNK", 2)
        assert pool.write(asked(parents, 2), rng.sample(rows, len(rows)), set(), True, 1) == expected

    def test_choices_and_rationale_come_along(self, example) -> None:
        row = example("Which?", "A", choices=["one", "two"])
        (reply,) = pool.write(asked([example("Which one?", "B", choices=["x", "y"])]), [row], set(), False, 1)
        assert (reply.drafts[0].choices, reply.drafts[0].answer) == (["one", "two"], "A")


class TestEda:
    TEXT = "please send the money for my broken camera back to this card"

    def test_differs_from_the_parent_and_is_repeatable(self, example) -> None:
        parent = example(self.TEXT, "blue")
        one, same, iteration, seed = (
            eda.write(asked([parent], 5), 0.1, {}, *n) for n in ((1, 0), (1, 0), (2, 0), (1, 1))
        )
        assert one == same
        assert drafts(one) != drafts(iteration)
        assert drafts(one) != drafts(seed)
        assert len(set(drafts(one)) | {self.TEXT}) == 6

    def test_without_synonyms_no_word_is_new(self, example) -> None:
        for text in drafts(eda.write(asked([example(self.TEXT, "blue")], 10), 0.2, {}, 1, 0)):
            assert set(text.split()) <= set(self.TEXT.split())

    def test_with_synonyms_words_are_replaced_and_inserted(self) -> None:
        synonyms = {"camera": ["photo camera"], "money": ["cash"]}
        rng = random.Random(0)
        made = [eda.edit(self.TEXT, 0.1, synonyms, rng) for _ in range(100)]
        words = len(self.TEXT.split())
        replaced = [text for text in made if "cash" in text.split() and "money" not in text.split()]
        inserted = [text for text in made if "cash" in text.split() and "money" in text.split()]
        assert replaced
        assert inserted
        assert all(len(text.split()) <= words + 2 for text in made)

    def test_the_share_decides_how_much_changes(self) -> None:
        rng = random.Random(0)
        few, many = (
            sum(float(rouge_l([self.TEXT], [eda.edit(self.TEXT, share, {}, rng)])[0, 0]) for _ in range(100))
            for share in (0.1, 0.5)
        )
        assert many < few

    def test_too_few_words(self, example) -> None:
        replies = eda.write(asked([example("refund", "blue"), example("two  words", "blue")], 3), 0.1, {}, 1, 0)
        assert len(drafts(replies)) + len(problems(replies)) == 6
        assert set(problems(replies)) == {"exhausted"}
        assert "two words" not in drafts(replies)

    def test_no_words_at_all(self, example) -> None:
        assert problems(eda.write(asked([example(" ", "blue")]), 0.1, {}, 1, 0)) == ["exhausted"]

    def test_the_rest_of_the_row_stays(self, example) -> None:
        parent = example(self.TEXT, "A", choices=["one", "two"], rationale="because")
        (draft,) = eda.write(asked([parent]), 0.1, {}, 1, 0)[0].drafts
        assert (draft.answer, draft.choices, draft.rationale) == ("A", ["one", "two"], "because")

    def test_other_synonyms_are_another_call(self, example) -> None:
        parents = asked([example(self.TEXT, "blue")])
        keys = {eda.write(parents, 0.1, words, 1, 0)[0].call.key for words in ({}, {"money": ["cash"]})}
        assert len(keys) == 2

    def test_reads_a_thesaurus(self, tmp_path: Path) -> None:
        file = tmp_path / "words.yaml"
        file.write_text("Money: [cash, 5]\n", encoding="utf-8")
        assert eda.load_synonyms(str(file)) == {"money": ["cash", "5"]}
        assert eda.load_synonyms(None) == {}

    @pytest.mark.parametrize("content", [b"- a", b"a: b", b"a: []", b"a: [", b"\xff\xfe\xff", b""])
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "words.yaml"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"teacher_augment\.eda_synonyms: .*words\.yaml"):
            eda.load_synonyms(str(file))

    def test_a_thesaurus_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="eda_synonyms: cannot read"):
            eda.load_synonyms(str(tmp_path / "none.yaml"))
