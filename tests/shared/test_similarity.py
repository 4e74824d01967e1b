"""ROUGE-L equals the `rouge_score` package's, and is defined where that finds no words."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from llm2llm.components.similarity import rouge_l, words

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)

ascii_texts = st.text(alphabet="ab c1.,!'-_\n", max_size=60)
word_texts = st.lists(
    st.sampled_from(["the", "a", "of", "cat", "dog", "sat", "12", "3.5", "it's", "x-ray", "THE"]), max_size=25
).map(" ".join)
unicode_texts = st.text(max_size=40)
mixed_texts = st.lists(
    st.sampled_from(["naïve", "café", "Straße", "K", "İstanbul", "Ключ", "鍵", "key 7", "٣", "ﬁne", "😀", "a\u0301b"]),
    max_size=12,
).map(" ".join)
any_texts = st.one_of(ascii_texts, word_texts, unicode_texts, mixed_texts)


def reference(query: str, text: str) -> float:
    return SCORER.score(query, text)["rougeL"].fmeasure


def has_words(text: str) -> bool:
    """Whether `rouge_score` finds a word in it."""
    return any(character in string.ascii_lowercase + string.digits for character in text.lower())


@settings(max_examples=300)
@given(
    queries=st.lists(any_texts.filter(has_words), max_size=4), texts=st.lists(any_texts.filter(has_words), max_size=4)
)
def test_equals_rouge_score(queries: list[str], texts: list[str]) -> None:
    got = rouge_l(queries, texts)
    assert got.shape == (len(queries), len(texts))
    expected = [[reference(query, text) for text in texts] for query in queries]
    np.testing.assert_allclose(got, np.reshape(expected, got.shape), rtol=0, atol=1e-12)


@given(one=any_texts, other=any_texts)
def test_is_symmetric_one_for_itself_and_in_bounds(one: str, other: str) -> None:
    score = rouge_l([one], [other])[0, 0]
    assert 0 <= score <= 1
    assert score == rouge_l([other], [one])[0, 0]
    assert rouge_l([one], [one])[0, 0] == (1.0 if words(one) else 0.0)


@given(texts=st.lists(any_texts, min_size=2, max_size=6))
def test_what_else_is_compared_changes_nothing(texts: list[str]) -> None:
    together = rouge_l(texts, texts)
    for i, query in enumerate(texts):
        for j, text in enumerate(texts):
            assert together[i, j] == rouge_l([query], [text])[0, 0]


class TestWhereRougeScoreFindsNoWords:
    """Its values are 0 there, for a copy too; ours are those of the Unicode words."""

    @pytest.mark.parametrize("text", ["Где мой заказ?", "我的包裹在哪里", "注文 は どこ です か", "أين طلبي", "०१२ ३४"])
    def test_a_copy_is_found(self, text: str) -> None:
        assert reference(text, text) == 0.0
        assert rouge_l([text], [text])[0, 0] == 1.0

    def test_unicode_words_are_compared(self) -> None:
        assert words("Где МОЙ заказ?") == ["где", "мой", "заказ"]
        assert rouge_l(["Где мой заказ?"], ["Где твой заказ"])[0, 0] == pytest.approx(2 / 3)

    def test_a_text_with_words_is_unlike_one_without(self) -> None:
        assert rouge_l(["Где заказ?"], ["Где order 5?"])[0, 0] == 0.0

    def test_no_words_at_all_are_like_nothing(self) -> None:
        assert rouge_l(["", "?!", "😀"], ["", "?!", "😀"]).tolist() == [[0.0] * 3] * 3


def test_more_distinct_words_than_fit_two_bytes() -> None:
    many = [f"w{number}" for number in range(70_000)]
    text, reverse = " ".join(many), " ".join(many[:2000][::-1])
    swapped = " ".join([*many[:-2], many[-1], "other"])
    got = rouge_l([text], [text, swapped, reverse, "w0 w69999", "nothing of it"])[0]
    assert got.tolist() == [1.0, 69_999 / 70_000, 2 / 72_000, 4 / 70_002, 0.0]


def test_words_that_only_the_texts_have_match_nothing() -> None:
    assert rouge_l(["alpha"], ["beta gamma", "gamma beta alpha"])[0].tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("queries", "texts"), [([], []), (["a"], []), ([], ["a", "b"])])
def test_nothing_to_compare(queries: list[str], texts: list[str]) -> None:
    assert rouge_l(queries, texts).shape == (len(queries), len(texts))


def test_a_long_text() -> None:
    text = "lorem ipsum " * 80_000
    assert rouge_l([text], [text, "ipsum lorem"])[0].tolist() == [1.0, pytest.approx(4 / 160_002)]


def test_a_threshold_is_met_exactly() -> None:
    """19 of 20 words is 0.95: `rouge_score`'s own rounding may fall just below."""
    text = [f"w{n}" for n in range(20)]
    assert rouge_l([" ".join(text)], [" ".join([*text[:19], "x"])])[0, 0] == 0.95
