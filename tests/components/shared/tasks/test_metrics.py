"""The metrics that may decide: their figures, and what they ask of a form."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import best_of_p, bootstrapped, paired_difference
from llm2llm.components.shared.tasks import FORMS, Task, load_task
from llm2llm.components.shared.tasks.forms import metrics_of
from llm2llm.components.shared.tasks.forms.metrics import ACCURACY, CLASS_METRICS, Metric
from llm2llm.components.shared.tasks.measured import matrix, measured, metric_of
from tests.support.builders import example, prediction

LABELS = ["ham", "spam", "unsure"]
TASK = Task(name="mail", form="classification", labels=LABELS, metric="macro_f1")
ANSWERS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None, "none of these"])), min_size=1, max_size=40
)


def figure(name: str, answers: list[tuple[str, str | None]]) -> float:
    rows = [example(f"row {i}", right) for i, (right, _) in enumerate(answers)]
    said = [prediction(row, one, "validation") for row, (_, one) in zip(rows, answers, strict=True)]
    metric = metrics_of("classification")[name]
    return float(metric.value(matrix(metric, measured(TASK, metric, rows, said)).sum(axis=0)))


def test_by_hand() -> None:
    # ham: 2 of 3 found, 2 of 3 given right, F1 2/3; spam: 1 of 2, 1 of 2, F1 1/2.
    answers = [("ham", "ham"), ("ham", "ham"), ("ham", "spam"), ("spam", "spam"), ("spam", "ham")]
    assert figure("macro_f1", answers) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figure("balanced_accuracy", answers) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figure("accuracy", answers) == pytest.approx(3 / 5)
    # All ham: precision 95/100, recall 1, so F1 190/195; of spam 0.
    one_way = [("ham", "ham")] * 95 + [("spam", "ham")] * 5
    assert figure("macro_f1", one_way) == pytest.approx(190 / 195 / 2)
    assert figure("balanced_accuracy", one_way) == 0.5


SKLEARN = [
    ("nnnnsshhsss-nnhhs-ssnnshh-nnsshhnnnnnnnn", 0.825757575758, 0.77380952381, 0.8),
    ("hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhshhhhhhhhhhhhhhhhhhhhhshhhhhhhnhhhh"
     "sshhhhhhhhhhhhhhhshhhhhhhnhhhhhhhh", 0.676635514019, 0.955357142857, 0.912280701754),
    ("snhhhhhhhhhhhhhhhhhhhhhhhhhhhhshhhhhhhhhhhhnhhhhhhhhhhhhhhhhhhhhhhsshhhhhhhhhhhh"
     "hhhshhsssshhhhhhhhhhhshhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhshhh-sshhhhhhhhhhhhhhhhhh"
     "hhhhhhhhhhhhhhhhhhhhh-hhhhhhhhh-hhhhhhhh", 0.785714285714, 0.79609929078, 0.91),
    ("hhhshhsssnhhhns-h-hnnnhhsshhsshnsssshssssshhs-shhsh-sshhshsnsnnhhh",
     0.4767331434, 0.511111111111, 0.515151515152),
    ("hhhhhhhhhhhnhnhnhhhhh-hn", 0.736842105263, 0.583333333333, 0.583333333333),
]  # fmt: skip
"""Right answer and answer of each row (h: ham, s: spam, n: news, -: none); `f1_score(average="macro", labels=those that
rows have, zero_division=0)`, `balanced_accuracy_score` and `accuracy_score` of scikit-learn 1.9.1."""


@pytest.mark.parametrize(("rows", "macro_f1", "balanced", "accuracy"), SKLEARN)
def test_the_figures_are_those_of_scikit_learn(rows: str, macro_f1: float, balanced: float, accuracy: float) -> None:
    names = {"h": "ham", "s": "spam", "n": "unsure", "-": None}
    answers = [(str(names[right]), names[given]) for right, given in zip(rows[::2], rows[1::2], strict=True)]
    assert figure("macro_f1", answers) == pytest.approx(macro_f1, abs=1e-11)
    assert figure("balanced_accuracy", answers) == pytest.approx(balanced, abs=1e-11)
    assert figure("accuracy", answers) == pytest.approx(accuracy, abs=1e-11)


@given(ANSWERS)
def test_is_what_its_definition_counts_row_by_row(answers: list[tuple[str, str | None]]) -> None:
    f1, recalls = [], []
    for label in sorted({right for right, _ in answers}):
        both = sum(right == given == label for right, given in answers)
        rows, said = sum(right == label for right, _ in answers), sum(given == label for _, given in answers)
        precision, recall = both / said if said else 0.0, both / rows
        f1.append(2 * precision * recall / (precision + recall) if both else 0.0)
        recalls.append(recall)
    assert figure("macro_f1", answers) == pytest.approx(sum(f1) / len(f1))
    assert figure("balanced_accuracy", answers) == pytest.approx(sum(recalls) / len(recalls))


def test_the_bootstrap_of_accuracies_is_that_of_the_paired_difference() -> None:
    before, after = [True] * 30 + [False] * 30 + [True] * 40, [True] * 30 + [True] * 20 + [False] * 10 + [True] * 40
    first, second = (matrix(ACCURACY, [[float(one), 1.0] for one in right]) for right in (before, after))
    found, known = bootstrapped(first, second), paired_difference(before, after)
    assert found.value == pytest.approx(known.value)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.02)
    alone = bootstrapped(second)
    assert alone.low < alone.value == 0.9 < alone.high


def test_swapping_answers_tells_a_rare_label_found_from_one_lost() -> None:
    metric = CLASS_METRICS["macro_f1"]
    right = np.array([0] * 95 + [1] * 5 + [0] * 95 + [1] * 5, dtype=float)
    blind = matrix(metric, np.stack([right, np.zeros(200)], axis=1))
    seeing = matrix(metric, np.stack([right, np.where(right == 1, 1, 0)], axis=1))
    assert best_of_p(blind, [seeing], metric.value) < 0.01
    assert best_of_p(seeing, [blind], metric.value) == 1.0


def test_a_task_names_a_metric_of_its_form() -> None:
    assert metric_of(TASK) is CLASS_METRICS["macro_f1"]
    assert metric_of(TASK.model_copy(update={"metric": "accuracy"})) is None
    with pytest.raises(UserError, match=r"task.*metric: 'macro_f1' is not for form 'numeric'; it has 'accuracy'"):
        load_task({"name": "sums", "form": "numeric", "metric": "macro_f1"})
    with pytest.raises(UserError, match=r"'macrof1' is not for form 'classification'; it has 'accuracy', 'macro_f1', "):
        load_task({"name": "mail", "form": "classification", "labels": LABELS, "metric": "macrof1"})
    assert load_task({"name": "snips", "metric": "macro_f1"}).metric == "macro_f1"


def test_a_form_may_have_a_metric_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score in [0, 1] for each answer: how much of the right text is there."""
    share = Metric(
        about="the share of the words that are there",
        measure=lambda task, answer, parsed, right: [
            len(set(answer.split()) & set((parsed or "").split())) / len(set(answer.split())),
            1.0,
        ],
    )
    monkeypatch.setitem(FORMS, "text", replace(FORMS["text"], metrics={"words": share}))
    assert list(metrics_of("text")) == ["accuracy", "words"]
    task = Task(name="free", form="text")
    rows = [example("one", "a b c d"), example("two", "a b")]
    said = [prediction(rows[0], "a b"), prediction(rows[1], None)]
    found = measured(task, share, rows, said)
    assert bootstrapped(matrix(share, found), value=share.value).value == pytest.approx(0.25)
