"""ROUGE-L equals the `rouge_score` package's, sees words in every script, and is found among many texts."""

import random
import string
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from llm2llm.components.shared.similarity import (
    masked,
    minhash,
    near,
    numbers_of,
    rouge_l,
    rouge_l_of_pairs,
    spaced,
    words,
)
from llm2llm.components.shared.similarity.minhash import bands_for
from llm2llm.components.shared.similarity.near import near_pairs
from llm2llm.components.shared.similarity.sketches import sketch
from llm2llm.components.shared.similarity.words import LONGEST

SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
SCORER_OF_OUR_WORDS = rouge_scorer.RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=words))

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


@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize(
    ("texts", "scorer"),
    [(st.one_of(st.text(string.printable, max_size=60), word_texts), SCORER), (any_texts, SCORER_OF_OUR_WORDS)],
    ids=["ASCII, its own words", "any text, our words"],
)
@given(data=st.data())
def test_equals_rouge_score(
    texts: st.SearchStrategy[str], scorer: rouge_scorer.RougeScorer, data: st.DataObject
) -> None:
    queries, others = data.draw(st.lists(texts, max_size=4)), data.draw(st.lists(texts, max_size=4))
    got = rouge_l(queries, others)
    assert got.shape == (len(queries), len(others))
    expected = [[scorer.score(query, text)["rougeL"].fmeasure for text in others] for query in queries]
    np.testing.assert_allclose(got, np.reshape(expected, got.shape), rtol=0, atol=1e-12)
    pairs = [(query, text) for query in queries for text in others]
    of_pairs = rouge_l_of_pairs([words(query) for query, _ in pairs], [words(text) for _, text in pairs])
    np.testing.assert_array_equal(of_pairs, got.reshape(-1))


@settings(deadline=None)
@given(one=any_texts, other=any_texts)
def test_is_symmetric_one_for_itself_and_in_bounds(one: str, other: str) -> None:
    score = rouge_l([one], [other])[0, 0]
    assert 0 <= score <= 1
    assert score == rouge_l([other], [one])[0, 0]
    assert rouge_l([one], [one])[0, 0] == (1.0 if words(one) else 0.0)


@settings(deadline=None)
@given(texts=st.lists(any_texts, min_size=2, max_size=6))
def test_what_else_is_compared_changes_nothing(texts: list[str]) -> None:
    together = rouge_l(texts, texts)
    for i, query in enumerate(texts):
        for j, text in enumerate(texts):
            assert together[i, j] == rouge_l([query], [text])[0, 0]


class TestWords:
    """`rouge_score` sees none in other scripts, and calls two texts alike that share only what is ASCII in them."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Где МОЙ заказ?", ["где", "мой", "заказ"]),
            ("我的 iPhone 12 坏了。", ["我", "的", "iphone", "12", "坏", "了"]),
            ("注文はどこ・です", ["注", "文", "は", "ど", "こ", "で", "す"]),
            ("ส่งของ", list("ส่งของ")),
            ("हिन्दी में", ["हिन्दी", "में"]),
            ("أين طلبي؟ ٣", ["أين", "طلبي", "٣"]),
            ("내 주문 어디", ["내", "주문", "어디"]),
            ("Café-Straße a\u0301b ﬁne", ["café", "strasse", "áb", "fine"]),
            ("Janet’s “ducks” lay 16", ["janet", "s", "ducks", "lay", "16"]),
            ("ｔｈｅ ＳＫＹ", ["the", "sky"]),
            ("di\u00advi\u200bded, می\u200cروم\ufeff", ["divided", "میروم"]),
            ("?! 😀 —", []),
        ],
    )
    def test_of_every_script(self, text: str, expected: list[str]) -> None:
        assert words(text) == expected

    def test_texts_that_share_only_a_product_name_are_unlike(self) -> None:
        one, other = "Мой iPhone 12 не заряжается после обновления", "Хочу вернуть iPhone 12, деньги ещё не пришли"
        assert SCORER.score(one, other)["rougeL"].fmeasure == 1.0
        assert rouge_l([one], [other])[0, 0] < 0.5

    def test_no_words_at_all_are_like_nothing(self) -> None:
        assert rouge_l(["", "?!", "😀"], ["", "?!", "😀"]).tolist() == [[0.0] * 3] * 3

    @pytest.mark.parametrize("text", ["lorem ipsum " * 80_000, "я ты " * 80_000])
    def test_of_a_very_long_text_the_first_are_compared(self, text: str) -> None:
        assert len(words(text)) == LONGEST
        assert rouge_l([text], [text + " and more", "ipsum lorem"])[0, 0] == 1.0

    def test_numbers_are_masked_where_they_are_not_the_question(self) -> None:
        problem = words("Ann has 3 red hats and buys twenty more, how many now?")
        assert masked(problem) == ["ann", "has", "#", *words("red hats and buys"), "#", *words("more how many now")]
        assert numbers_of(problem) == ["3", "twenty"]
        assert masked(words("What is 17 + 4?")) == ["what", "is", "17", "4"]


def test_a_million_distinct_words_and_more() -> None:
    """Words are numbers, not characters: there are only 1,112,064 of those."""
    texts = [" ".join(f"w{n}" for n in range(start, start + 9_000)) for start in range(0, 1_170_000, 9_000)]
    assert np.array_equal(rouge_l(texts[-1:], texts)[0], np.eye(len(texts))[-1])


def test_words_that_only_the_texts_have_match_nothing() -> None:
    assert rouge_l(["alpha"], ["beta gamma", "gamma beta alpha"])[0].tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("queries", "texts"), [([], []), (["a"], []), ([], ["a", "b"])])
def test_nothing_to_compare(queries: list[str], texts: list[str]) -> None:
    assert rouge_l(queries, texts).shape == (len(queries), len(texts))


def test_a_threshold_is_met_exactly() -> None:
    """19 of 20 words is 0.95: `rouge_score`'s own rounding may fall just below."""
    text = [f"w{n}" for n in range(20)]
    assert rouge_l([" ".join(text)], [" ".join([*text[:19], "x"])])[0, 0] == 0.95


def pairs_of(texts: list[str], others: list[str], threshold: float, bands: tuple[int, int] = (0, 0)) -> dict:
    """(query, text): score, as `near_pairs` finds them."""
    sides = [[words(text) for text in side] for side in (texts, others)]
    one = sketch(map(spaced, texts), bands)
    other = one if texts is others else sketch(map(spaced, others), bands)
    found = near_pairs(one, other, sides[0].__getitem__, sides[1].__getitem__, threshold)
    return {
        (i, j): score
        for i, j, score in zip(*(a.tolist() for a in (found.queries, found.texts, found.scores)), strict=True)
    }


def pairs_one_by_one(texts: list[str], others: list[str], threshold: float) -> dict:
    scores = rouge_l(texts, others)
    if texts is others:  # each pair once
        scores = np.tril(scores, -1)
    return {(int(i), int(j)): scores[i, j] for i, j in zip(*np.nonzero(scores >= threshold), strict=True)}


class TestNearPairs:
    @settings(deadline=None)
    @given(
        texts=st.lists(any_texts, max_size=12),
        others=st.lists(any_texts, max_size=12),
        threshold=st.sampled_from([0.1, 0.5, 2 / 3, 0.8, 0.9, 0.95, 1.0]),
    )
    def test_the_bounds_lose_none(self, texts: list[str], others: list[str], threshold: float) -> None:
        assert pairs_of(texts, others, threshold) == pairs_one_by_one(texts, others, threshold)

    @pytest.mark.parametrize("block", [1, 7, 1000])
    def test_nor_do_the_borders_of_blocks(self, monkeypatch, block: int) -> None:
        texts = edited_texts(60)
        expected = pairs_one_by_one(texts, texts, 0.8)
        monkeypatch.setattr(near, "BLOCK", block)
        monkeypatch.setattr(near, "COMPARED", max(2, block // 7))
        monkeypatch.setattr(minhash, "BLOCK", block)
        assert pairs_of(texts, texts, 0.8) == expected
        assert pairs_of(texts, texts, 0.8, bands_for(0.8)) == expected

    @pytest.mark.parametrize("threshold", [0.95, 0.9, 0.8, 0.6])
    def test_minhash_proposes_nearly_all_and_nothing_that_is_not_near(self, threshold: float) -> None:
        texts = edited_texts(1_500)
        expected = pairs_one_by_one(texts, texts, threshold)
        found = pairs_of(texts, texts, threshold, bands_for(threshold))
        assert found.items() <= expected.items()
        assert len(found) >= 0.99 * len(expected) > 0

    @settings(deadline=None)
    @given(threshold=st.floats(0.05, 1.0))
    def test_the_bands_find_a_pair_at_the_threshold_with_the_probability_that_is_asked_for(self, threshold) -> None:
        bands, rows = bands_for(threshold)
        assert bands * rows <= 256
        if rows > 1:
            assert 1 - (1 - (threshold / (2 - threshold)) ** rows) ** bands >= 0.995

    def test_a_repeated_word_counts_as_often_as_it_stands(self) -> None:
        assert pairs_of(["a a a a b"], ["a b b b b", "a a a a b"], 0.9) == {(0, 1): 1.0}

    def test_rows_of_a_megabyte_among_others_take_no_time(self) -> None:
        """Each is capped at 10,000 words: 4,950 pairs of whole ones would take half an hour."""
        long = " ".join(f"w{n:020}" for n in range(50_000))
        texts = [f"{n} {long}" for n in range(100)]
        assert len(texts[0]) > 1_000_000
        assert len(pairs_of(texts, texts[:3], 0.95)) == 300


def edited_texts(count: int) -> list[str]:
    """Texts of 20 words; every third is the one before with some words changed."""
    draw = random.Random(0)
    texts: list[str] = []
    for n in range(count):
        some = texts[-1].split() if n % 3 == 2 else [f"w{draw.randrange(3_000)}" for _ in range(20)]
        for _ in range(draw.randrange(6) if n % 3 == 2 else 0):
            some[draw.randrange(20)] = f"x{draw.randrange(3_000)}"
        texts.append(" ".join(some))
    return texts
