"""Which leaks the firewall catches: test questions, changed in ways that a teacher would, slipped among training rows.

    python -m tests.bench.leaks

For GSM8K and SNIPS: 500 test questions in each of several disguises among 5,000 rows of the training split, checked
with the default settings against the whole test split. Prints one table for each data set. Rows of the training split
that have a test question's very text are left out (SNIPS has some); whatever else is caught of them counts as wrongly
caught, though most of it is nearly a test question.
"""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path

from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.leakage.firewall import find_leaks
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.tasks import TASKS
from tests.bench.data import add_data, real_rows

SETS = ["gsm8k", "snips"]
PLANTED = 500
AMONG = 5_000
NAMES = ["Amara", "Bjorn", "Chidi", "Dolores", "Emeka", "Fatima", "Goran", "Hiroko", "Ines", "Jamal", "Katya", "Luisa"]

Draw = random.Random
Disguise = Callable[[str, Draw, list[str]], str]


def respaced(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """Other white space, other case at the start, a space before the last mark."""
    text = "".join(draw.choice([" ", "  ", "\n", "\t", "\u00a0"]) if c == " " else c for c in text)
    text = re.sub(r"(?<=\w)([.?!])$", r" \1", text)
    return f" {text[:1].swapcase()}{text[1:]}\n"


def other_names(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """Another name for every word that has a capital inside a sentence."""
    names = sorted(set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]+\b", text)))
    for name, other in zip(names, draw.sample(NAMES * 5, len(names)), strict=True):
        text = re.sub(rf"\b{name}\b", other, text)
    return text


def other_numbers(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """Another number for every number in digits."""
    return re.sub(r"\d+", lambda _: str(draw.randint(2, 400)), text)


def neighbours_swapped(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """One word in ten changes places with the next."""
    words = text.split(" ")
    for place in draw.sample(range(len(words) - 1), min(len(words) - 1, max(1, len(words) // 10))):
        words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def words_replaced(share: float) -> Disguise:
    """Another word for a share of the words."""

    def disguise(text: str, draw: Draw, vocabulary: list[str]) -> str:
        words = text.split(" ")
        for place in draw.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = draw.choice(vocabulary)
        return " ".join(words)

    return disguise


def names_numbers_and_words(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """All of these at once."""
    text = other_numbers(other_names(text, draw, vocabulary), draw, vocabulary)
    return words_replaced(0.1)(text, draw, vocabulary)


def inside_another(text: str, draw: Draw, vocabulary: list[str]) -> str:
    """As it is, between as many other words."""
    around = draw.choices(vocabulary, k=len(text.split()) + 10)
    return " ".join([*around[: len(around) // 2], text, *around[len(around) // 2 :]])


DISGUISES: dict[str, Disguise] = {
    "verbatim": lambda text, draw, vocabulary: text,
    "re-spaced": respaced,
    "other names": other_names,
    "other numbers": other_numbers,
    "one word in ten swapped with the next": neighbours_swapped,
    "one word in ten replaced": words_replaced(0.1),
    "one word in five replaced": words_replaced(0.2),
    "other names and numbers, one word in ten replaced": names_numbers_and_words,
    "inside a text twice as long": inside_another,
}


def measure(data: Path | None, name: str, random_seed: int = 0) -> tuple[dict[str, tuple[int, float]], int, int]:
    """(disguise: (planted, share caught), wrongly caught, clean rows) of one data set.

    A question that a disguise leaves as it is (it has no name, no number) is not counted under that disguise.
    """
    test, training = ([_row(row.question) for row in real_rows(name, split, data)] for split in ("test", "train"))
    draw = random.Random(random_seed)
    keys = {question_key(row) for row in test}
    clean = draw.sample([row for row in training if question_key(row) not in keys], AMONG)
    vocabulary = sorted({word for row in training for word in row.question.split()})
    planted = {
        kind: [
            _row(disguised)
            for row in draw.sample(test, PLANTED)
            if (disguised := disguise(row.question, draw, vocabulary)) != row.question or kind == "verbatim"
        ]
        for kind, disguise in DISGUISES.items()
    }
    everything = [*clean, *(row for rows in planted.values() for row in rows)]
    caught = [leak is not None for leak in find_leaks(everything, test, [], TASKS[name].form, LeakSettings())]
    shares: dict[str, tuple[int, float]] = {}
    start = len(clean)
    for kind, rows in planted.items():
        shares[kind] = len(rows), sum(caught[start : start + len(rows)]) / max(1, len(rows))
        start += len(rows)
    return shares, sum(caught[: len(clean)]), len(clean)


def _row(question: str) -> Example:
    return Example(id=content_id(question, [], None, "1"), question=question, answer="1")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--random-seed", type=int, default=0)
    given = parser.parse_args()
    for name in SETS:
        shares, wrong, clean = measure(given.data, name, given.random_seed)
        print(f"\n| {name}: test questions, | planted | caught |\n| --- | ---: | ---: |")
        for kind, (count, share) in shares.items():
            print(f"| {kind} | {count} | {share:.1%} |")
        print(f"| *training rows, wrongly caught* | {clean:,} | {wrong / clean:.2%} |")


if __name__ == "__main__":
    main()
