"""`prepare`: draws, splits, duplicates, contradictions, leaks between the sets."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.prepare.component import prepare as stage
from llm2llm.components.prepare.prepare import Prepared, prepare
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import FILES, read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import VERSION, Example
from llm2llm.components.shared.data.splits import read_splits
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.lineage.records import DIGITS, record_of
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.tasks import Task
from tests.support.builders import content, outputs_of

Make = Callable[..., Example]

CHOICE = Task(name="choice", form="multiple_choice")
NUMBER = Task(name="number", form="numeric")
TEXT = Task(name="text", form="text")


@pytest.fixture(scope="module")
def rows(example: Make) -> Callable[[dict[str, int]], list[Example]]:
    """`{"red": 3}` gives three rows that are red."""

    def make(counts: dict[str, int]) -> list[Example]:
        return [
            example(f"the {label} thing number {i}", label, source=f"seeds.jsonl:{label}{i}")
            for label, count in counts.items()
            for i in range(count)
        ]

    return make


def prepared(task: Task, seeds: list[Example], random_seed: int = 0, **keywords: object) -> Prepared:
    sets = {name: keywords.pop(name, []) for name in ("validation", "test", "pool")}
    settings = PrepareSettings.load(keywords, "prepare")
    return prepare(seeds, **sets, task=task, settings=settings, random_seed=random_seed)


def labels(examples: list[Example]) -> dict[str, int]:
    return dict(Counter(row.answer for row in examples))


def questions(examples: list[Example]) -> list[str]:
    return [row.question for row in examples]


@pytest.fixture(scope="module")
def validation(example: Make) -> list[Example]:
    return [example("a pale red wall", "red")]


class TestDraws:
    def test_seeds_keep_the_proportions_of_the_labels(self, colours, rows, validation) -> None:
        got = prepared(colours, rows({"red": 60, "green": 30, "blue": 10}), validation=validation, seed_count=20)
        assert labels(got.seeds) == {"red": 12, "green": 6, "blue": 2}
        assert labels(got.pool) == {"red": 48, "green": 24, "blue": 8}

    def test_a_rare_label_gets_one_seed(self, colours, rows, validation) -> None:
        got = prepared(colours, rows({"red": 97, "green": 2, "blue": 1}), validation=validation, seed_count=5)
        assert labels(got.seeds) == {"red": 3, "green": 1, "blue": 1}

    def test_fewer_seeds_than_labels(self, colours, rows, validation) -> None:
        got = prepared(colours, rows({"red": 4, "green": 4, "blue": 4}), validation=validation, seed_count=2)
        assert len(got.seeds) == 2
        assert len(labels(got.seeds)) == 2

    def test_without_labels_any_rows_are_drawn(self, example, validation) -> None:
        seeds = [example(f"what is {i} and {i}?", str(2 * i)) for i in range(50)]
        got = prepared(NUMBER, seeds, validation=[example("what is 100 and 1?", "101")], seed_count=20)
        assert len(got.seeds) == 20
        assert len(got.pool) == 30

    @pytest.mark.parametrize(
        ("n", "fraction", "count"), [(100, 0.07, 7), (30, 0.1, 3), (10, 0.25, 2), (3, 0.01, 1), (9, 1.0, 9)]
    )
    def test_seed_fraction(self, colours, rows, validation, n: int, fraction: float, count: int) -> None:
        got = prepared(colours, rows({"red": n}), validation=validation, seed_fraction=fraction)
        assert (len(got.seeds), len(got.pool)) == (count, n - count)

    @given(
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
        share=st.floats(0.01, 1.0),
        random_seed=st.integers(0, 5),
    )
    def test_every_draw_is_exact_and_fair(self, colours, rows, validation, sizes, share, random_seed) -> None:
        counts = dict(zip(colours.labels, sizes, strict=False))
        total = sum(sizes)
        wanted = max(1, round(share * total))
        got = prepared(colours, rows(counts), random_seed, validation=validation, seed_count=wanted)
        assert len(got.seeds) == wanted
        assert len(got.pool) == total - wanted
        drawn = labels(got.seeds)
        for label, size in counts.items():
            exact = wanted * size / total
            most = max(2.0, exact + 1) if wanted >= len(counts) else exact + 1
            assert min(1, exact) - 1 < drawn.get(label, 0) <= min(size, most)
            if wanted >= len(counts):
                assert drawn[label] >= 1

    def test_another_random_seed_draws_other_rows(self, colours, rows, validation) -> None:
        seeds = rows({"red": 50})
        one, other = (prepared(colours, seeds, n, validation=validation, seed_count=10) for n in (0, 1))
        assert questions(one.seeds) != questions(other.seeds)

    def test_more_seeds_than_rows_is_refused(self, colours, rows, validation) -> None:
        with pytest.raises(UserError, match=r"prepare\.seed_count: 9 seeds are asked for, and only 5 rows are left"):
            prepared(colours, rows({"red": 5}), validation=validation, seed_count=9)


class TestValidation:
    def test_is_split_off_when_none_is_given(self, colours, rows) -> None:
        got = prepared(colours, rows({"red": 50, "green": 30, "blue": 20}))
        assert labels(got.validation) == {"red": 10, "green": 6, "blue": 4}
        assert labels(got.seeds) == {"red": 40, "green": 24, "blue": 16}
        assert got.pool == []
        assert "split 20 of 100 seed rows off as validation" in got.notes

    def test_is_left_alone_when_given(self, colours, rows, validation) -> None:
        got = prepared(colours, rows({"red": 5}), validation=validation)
        assert got.validation == validation
        assert len(got.seeds) == 5

    def test_the_only_row_of_a_label_stays_a_seed(self, colours, rows) -> None:
        got = prepared(colours, rows({"red": 30, "green": 10, "blue": 1}))
        assert labels(got.seeds)["blue"] == 1
        assert "blue" not in labels(got.validation)

    def test_seed_count_counts_after_the_split(self, colours, rows) -> None:
        got = prepared(colours, rows({"red": 10}), seed_count=8)
        assert (len(got.validation), len(got.seeds)) == (2, 8)
        with pytest.raises(UserError, match="only 8 rows are left"):
            prepared(colours, rows({"red": 10}), seed_count=9)

    def test_one_row_is_too_few(self, colours, rows) -> None:
        with pytest.raises(UserError, match="1 seed rows are too few to split off validation"):
            prepared(colours, rows({"red": 1}))

    def test_two_rows_are_enough(self, colours, rows) -> None:
        got = prepared(colours, rows({"red": 1, "green": 1}))
        assert (len(got.validation), len(got.seeds)) == (1, 1)


class TestDisjoint:
    def test_seeds_that_are_in_test_or_validation_go_and_a_note_says_so(self, colours, example) -> None:
        seeds = [example(f"the sky {i}", "blue") for i in range(5)]
        test, validation = [example("The sky 0!", "blue")], [example("  the SKY   1", "blue")]
        got = prepared(colours, seeds, test=test, validation=validation)
        assert questions(sorted(got.seeds, key=lambda r: r.question)) == ["the sky 2", "the sky 3", "the sky 4"]
        assert got.test == test
        assert got.validation == validation
        assert "removed 1 rows from seeds: their questions are in test" in got.notes
        assert "removed 1 rows from seeds: their questions are in validation" in got.notes
        assert sorted((one.stage, one.reason, one.question, one.neighbour) for one in got.rejects) == [
            ("prepare", "in_test", "the sky 0", "The sky 0!"),
            ("prepare", "in_validation", "the sky 1", "  the SKY   1"),
        ]

    def test_validation_and_pool_lose_what_is_in_test(self, colours, example) -> None:
        leak = example("the sea", "blue")
        got = prepared(
            colours, [example("a leaf", "green")], test=[leak], validation=[leak, example("a rose", "red")], pool=[leak]
        )
        assert questions(got.validation) == ["a rose"]
        assert got.pool == []
        assert "removed 1 rows from validation: their questions are in test" in got.notes
        assert "removed 1 rows from pool: their questions are in test" in got.notes

    def test_a_leak_with_another_answer_goes_too(self, colours, example) -> None:
        got = prepared(
            colours,
            [example("the sea", "green"), example("a leaf", "green")],
            test=[example("the sea", "blue")],
            validation=[example("a rose", "red")],
        )
        assert questions(got.seeds) == ["a leaf"]

    def test_a_leak_with_its_choices_in_another_order_goes_too(self, example) -> None:
        seeds = [example("Which?", "A", choices=["one", "two"]), example("Which?", "A", choices=["one", "three"])]
        got = prepared(
            CHOICE,
            seeds,
            test=[example("which", "B", choices=["Two", "one"])],
            validation=[example("What?", "A", choices=["x", "y"])],
        )
        assert [row.choices for row in got.seeds] == [["one", "three"]]

    def test_seeds_that_are_all_in_test_are_refused_with_the_reason(self, colours, example) -> None:
        row = example("the sea", "blue")
        with pytest.raises(UserError, match=r"no seed rows are left; removed 1 rows from seeds: .* are in test"):
            prepared(colours, [row], test=[row])

    def test_rows_that_are_not_drawn_join_the_pool(self, colours, rows, example, validation) -> None:
        seeds, more = rows({"red": 10}), [example("a far star", "blue")]
        got = prepared(colours, seeds, validation=validation, pool=[*more, seeds[0]], seed_count=4)
        assert len(got.pool) == 7
        assert {row.id for row in got.pool} == {row.id for row in [*seeds, *more]} - {row.id for row in got.seeds}

    @given(data=st.data())
    def test_no_question_is_ever_in_two_sets(self, colours, example, data) -> None:
        word = st.sampled_from(["sky", "Sky", "sky!", "sea", "the sea", "the  sea", "leaf", "LEAF", "?", "??", "rose"])
        some = st.lists(st.builds(example, word, st.sampled_from(colours.labels)), max_size=8)
        sets = {name: data.draw(some) for name in ("validation", "test", "pool")}
        seeds = data.draw(some)
        try:
            got = prepared(colours, seeds, contradictions="drop", **sets)
        except UserError:
            return
        keys = [question_key(row) for name in ("seeds", "validation", "test", "pool") for row in getattr(got, name)]
        assert len(keys) == len(set(keys))
        assert {row.id for row in got.test} <= {row.id for row in sets["test"]}
        for name in ("seeds", "validation", "test", "pool"):
            assert getattr(got, name) == sorted(getattr(got, name), key=lambda row: row.id)


class TestFirewall:
    SECRET = "A train leaves Oslo at 9 with 120 people and 3 dogs on board, and 14 people get off in Hamar"

    def test_seeds_and_pool_that_nearly_match_test_or_validation_are_rejected(self, example) -> None:
        test = [example(self.SECRET, "106")]
        validation = [example("Eva has 5 red hats and buys 4 more of them every single week of the year", "213")]
        other_numbers = example(self.SECRET.replace("120", "77").replace("14", "8"), "69")
        other_name = example(validation[0].question.replace("Eva", "Ida"), "213")
        seeds = [other_numbers, *(example(f"What is {n} and {n}?", str(2 * n)) for n in range(5))]
        got = prepared(NUMBER, seeds, test=test, validation=validation, pool=[other_name])
        assert other_numbers not in got.seeds
        assert got.pool == []
        assert sorted((one.id, one.reason, one.neighbour_id, one.iteration) for one in got.rejects) == sorted(
            [(other_numbers.id, "in_test", test[0].id, 0), (other_name.id, "in_validation", validation[0].id, 0)]
        )
        assert "removed 1 rows from seeds: they nearly match rows of test" in got.notes
        assert "removed 1 rows from pool: they nearly match rows of validation" in got.notes

    def test_seeds_that_nearly_match_the_validation_rows_split_off_go_too(self, example) -> None:
        seeds = [example(f"{name} has {n} red hats and buys 4 more of them every week", str(n))
                 for n, name in enumerate(["Eva", "Ida", "Tom", "Kim", "Ben"])]  # fmt: skip
        with pytest.raises(UserError, match=r"no seed rows are left; split 1 of 5 .*; removed 4 rows from seeds: they"):
            prepared(NUMBER, seeds)

    def test_the_threshold_can_be_set(self, example) -> None:
        test, seed = example("one two three four five", "1"), example("one two three six seven", "2")
        more = [example(f"a b c {word}", "3") for word in ("x", "y")]
        assert seed in prepared(TEXT, [seed], test=[test], validation=more[:1]).seeds
        got = prepared(TEXT, [seed, more[1]], test=[test], validation=[example("v", "1")], leak={"rouge_l": 0.6})
        assert got.seeds == more[1:]


class TestDuplicates:
    def test_one_of_each_question_stays(self, colours, example, validation) -> None:
        seeds = [example("The sea.", "blue"), example("the sea", "blue"), example("a leaf", "green")]
        got = prepared(colours, seeds, validation=validation)
        assert len(got.seeds) == 2
        assert "dropped 1 duplicate rows of seeds" in got.notes

    def test_of_equal_rows_the_first_is_kept(self, colours, example, validation) -> None:
        seeds = [example("the sea", "blue", source=f"seeds.jsonl:{n}") for n in (9, 10)]
        (row,) = prepared(colours, seeds, validation=validation).seeds
        assert row.source == "seeds.jsonl:9"

    def test_which_one_stays_does_not_depend_on_the_order(self, colours, example, validation) -> None:
        seeds = [example("The sea.", "blue"), example("the sea", "blue")]
        one, other = (prepared(colours, rows, validation=validation) for rows in (seeds, seeds[::-1]))
        assert one.seeds == other.seeds

    def test_punctuation_alone_is_still_a_question(self, colours, example, validation) -> None:
        got = prepared(colours, [example("???", "red"), example("!", "blue")], validation=validation)
        assert len(got.seeds) == 2


class TestContradictions:
    def test_are_refused_naming_both_rows(self, colours, example) -> None:
        seeds = [
            example("the sea", "blue", source="seeds.jsonl:1"),
            example("a leaf", "green", source="seeds.jsonl:2"),
            example("The sea", "green", source="seeds.jsonl:3"),
        ]
        with pytest.raises(UserError) as caught:
            prepared(colours, seeds)
        assert str(caught.value) == (
            "seeds: seeds.jsonl:1 answers 'blue' and seeds.jsonl:3 answers 'green' to the same question 'the sea'; "
            "correct the rows, or set prepare.contradictions: drop"
        )

    def test_the_message_counts_the_others_and_shortens_the_question(self, colours, example) -> None:
        long = "long " * 50
        seeds = [example(text, label) for text in (long, "the sea") for label in ("blue", "red")]
        with pytest.raises(UserError, match=r"long long.*\.\.\.' \(and 1 more such questions\)") as caught:
            prepared(colours, seeds)
        assert len(str(caught.value)) < 300

    def test_or_dropped_all_of_them(self, colours, example, validation) -> None:
        seeds = [example("the sea", "blue"), example("the sea", "green"), example("a leaf", "green")]
        got = prepared(colours, seeds, validation=validation, contradictions="drop")
        assert questions(got.seeds) == ["a leaf"]
        assert "dropped 2 rows of seeds whose questions have contradictory answers" in got.notes

    @pytest.mark.parametrize("name", ["test", "validation", "pool"])
    def test_are_looked_for_in_every_set(self, colours, rows, example, name: str) -> None:
        sets = {name: [example("the sea", "blue"), example("the sea", "green")]}
        with pytest.raises(UserError, match=f"^{name}: "):
            prepared(colours, rows({"red": 5}), **sets)

    @pytest.mark.parametrize(
        ("task", "one", "other"),
        [(NUMBER, "72", "72.0"), (NUMBER, "1,000", "$1000"), (NUMBER, "1/2", "0.5"), (TEXT, "Paris", "paris.")],
    )
    def test_the_same_answer_in_other_words_is_none(self, task, example, one: str, other: str) -> None:
        seeds = [example("What is it?", one), example("What is it?", other)]
        got = prepared(task, seeds, validation=[example("And what is this?", one)])
        assert len(got.seeds) == 1

    def test_numbers_that_differ_are(self, example) -> None:
        with pytest.raises(UserError, match="answers '5' and  answers '-5'"):
            prepared(NUMBER, [example("What?", "5"), example("What?", "-5")])

    def test_of_choices_the_text_counts_not_the_letter(self, example) -> None:
        same = [example("Which?", "A", choices=["one", "two"]), example("Which?", "B", choices=["Two", "One."])]
        assert len(prepared(CHOICE, same, validation=[example("Why?", "A", choices=["x", "y"])]).seeds) == 1
        other = [example("Which?", "A", choices=["one", "two"]), example("Which?", "A", choices=["two", "one"])]
        with pytest.raises(UserError, match="answers 'A' and  answers 'A'"):
            prepared(CHOICE, other)


class TestRepeatable:
    @given(order=st.randoms(use_true_random=False))
    def test_the_order_of_the_rows_changes_nothing(self, colours, rows, example, order: random.Random) -> None:
        seeds = [*rows({"red": 9, "green": 5, "blue": 2}), example("The RED thing number 0!", "red")]
        test, pool = [example("the red thing number 1", "red")], rows({"blue": 4})
        expected = prepared(colours, seeds, test=test, pool=pool, seed_count=6)
        shuffled = order.sample(seeds, len(seeds))
        got = prepared(colours, shuffled, test=test, pool=order.sample(pool, len(pool)), seed_count=6)
        assert got == expected

    def test_run_twice_gives_the_same_bytes(self, tmp_path: Path, colours, capfd) -> None:
        source = tmp_path / "seeds.jsonl"
        lines = [{"question": f"thing {i} is {label}", "answer": label} for i in range(8) for label in colours.labels]
        source.write_text("\n".join(json.dumps(line) for line in [*lines, lines[0]]), encoding="utf-8")
        settings = settings_text(
            {
                "task": colours.model_dump(),
                "data": {"seeds": str(source)},
                "prepare": {"seed_count": 9},
                "random_seed": 3,
            }
        )
        made = []
        for turn in ("one", "two"):
            outputs = outputs_of("prepare", tmp_path / turn)
            stage.python_func(settings=settings, **outputs)
            made.append({name: content(artifact) for name, artifact in outputs.items()})
            for name, (kind, rows) in {"training_set": ("examples", 9), "splits": ("splits", 14)}.items():
                made_by = record_of(outputs[name])
                assert made_by is not None
                assert made_by["inputs"]["seeds"] == {
                    "source": "seeds.jsonl",
                    "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
                }
                assert outputs[name].metadata == {
                    "kind": kind,
                    "schema_version": VERSION,
                    "rows": rows,
                    "sha256": content_hash(outputs[name].path)[:DIGITS],
                }
        assert made[0] == made[1]
        splits = read_splits(outputs["splits"].path)
        assert {name: len(rows) for name, rows in splits.items()} == {"seeds": 9, "validation": 5, "test": 0}
        assert read_rows(outputs["training_set"].path, "examples", Example) == splits["seeds"]
        assert len(read_rows(outputs["pool_set"].path, "examples", Example)) == 10
        assert read_rows(outputs["replay_set"].path, "examples", Example) == []
        journal = read_journal(outputs["journal"])
        assert not any(getattr(journal, kind) for kind in FILES)
        printed = capfd.readouterr().out
        assert "prepare: dropped 1 duplicate rows of seeds" in printed
        assert "prepare: split 5 of 24 seed rows off as validation" in printed
        assert "prepare: pool 10 rows" in printed

    def test_a_refused_run_leaves_nothing(self, tmp_path: Path, colours, capfd) -> None:
        source = tmp_path / "seeds.jsonl"
        source.write_text('{"question": "the sea", "answer": "blue"}\n{"question": "the sea", "answer": "red"}\n')
        settings = settings_text({"task": colours.model_dump(), "data": {"seeds": str(source)}})
        with pytest.raises(SystemExit) as caught:
            stage.python_func(settings=settings, **outputs_of("prepare", tmp_path / "out"))
        assert caught.value.code == 2
        assert not (tmp_path / "out").exists()
        error = capfd.readouterr().err
        assert "seeds.jsonl:1 answers 'blue' and seeds.jsonl:2 answers 'red'" in error
        assert "Traceback" not in error

    def test_refused_rows_are_in_the_journal(self, tmp_path: Path, colours) -> None:
        sources = {}
        for name, questions in (("seeds", ["the sea", "the sky", "a leaf"]), ("test", ["The sky!"])):
            lines = [json.dumps({"question": question, "answer": "blue"}) for question in questions]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
            sources[name] = str(tmp_path / f"{name}.jsonl")
        outputs = outputs_of("prepare", tmp_path / "out")
        stage.python_func(settings=settings_text({"task": colours.model_dump(), "data": sources}), **outputs)
        (reject,) = read_journal(outputs["journal"]).rejects
        assert (reject.stage, reject.reason, reject.question) == ("prepare", "in_test", "the sky")


def test_seed_count_and_seed_fraction_contradict_each_other() -> None:
    with pytest.raises(UserError, match=r"prepare: seed_count 5 and seed_fraction 0\.5 contradict each other; set one"):
        PrepareSettings.load({"seed_fraction": 0.5, "seed_count": 5}, "prepare")


def test_the_draw_may_have_a_random_seed_of_its_own() -> None:
    """So that the data and what happens in training can vary apart."""
    assert PrepareSettings().draws_by(7) == 7
    assert PrepareSettings(random_seed=0).draws_by(7) == 0
