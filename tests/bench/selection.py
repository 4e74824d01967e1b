"""Which seeds to write from: test accuracy against added rows, for several selections, on SNIPS with a small student.

    make bench-selection        or        python -m tests.bench.selection --output build/bench/selection

70 seeds, ten of each intent; the teacher `pool` answers each chosen seed with the most similar unused rows of the same
intent from what is left of the training rows. Every selection adds the same number of rows in each iteration, until it
finds nothing to write from: then its loop ends, and its last accuracy stands for what follows. Two students:

scratch      random weights: it learns its 70 seeds by heart and understands little
knows-five   taught five of the seven intents on other rows before, and then fine-tuned: its errors concentrate

Each is run with several random seeds (seeds, weights, order of rows); intervals are Student's t over these. Results of
every run are kept as JSON in the output folder, so that an interrupted benchmark goes on where it was. It leaves
`selection.md` (tables) and `selection.svg` (plot) there. About half an hour of one core.
"""

import argparse
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student_t

from llm2llm.components.evaluate.evaluate import evaluate
from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.out_of_fold.out_of_fold import out_of_fold
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.data.schemas import Decision, Example, Prediction, Score, StudentError, content_id
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.tasks import TASKS
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import SCRATCH, FineTuneSettings, ScratchSettings
from llm2llm.components.teacher_augment.offline import pool as pool_teacher
from llm2llm.components.teacher_augment.replies import Request

TASK = TASKS["snips"]
SEEDS_PER_INTENT, VALIDATION_ROWS, TEST_ROWS, POOL_ROWS = 10, 70, 350, 4000
ITERATIONS, ROWS_PER_ITERATION, FOLDS = 4, 16, 3
UNKNOWN_INTENTS = {"SearchCreativeWork", "SearchScreeningEvent"}  # the two that the student knows-five has not met
KNOWN_ROWS_PER_INTENT = 60

ARMS: dict[str, FilterErrorsSettings] = {
    # Answers that cannot be read are errors, as in the paper; but for the one named `readable`.
    "wrong": FilterErrorsSettings(selection="wrong", format_only="write", suspect_after=2),
    "wrong-readable": FilterErrorsSettings(selection="wrong", suspect_after=2),
    "out_of_fold": FilterErrorsSettings(selection="out_of_fold", folds=FOLDS, format_only="write", suspect_after=2),
    "hard": FilterErrorsSettings(selection="hard", suspect_after=2),
    "hard-el2n": FilterErrorsSettings(selection="hard", hard_by="el2n", suspect_after=2),
    # Of all seeds, so many of them drawn by chance as there are rows to write, whatever the other arms would choose.
    "random": FilterErrorsSettings(selection="all", suspect_after=2),
}
SCRATCH_SETTINGS = ScratchSettings(vocabulary=768, hidden_size=128, layers=2, heads=4, context=128)
TRAINING = FineTuneSettings(epochs=10, learning_rate=1e-3, batch_size=8, max_length=96, scratch=SCRATCH_SETTINGS)
STARTS = ("scratch", "knows-five")


@dataclass(frozen=True)
class Rows:
    """What one run draws from the data."""

    seeds: list[Example]
    validation: list[Example]
    test: list[Example]
    pool: list[Example]
    known: list[Example]
    """What the student knows-five is taught before."""


def read(file: Path) -> list[Example]:
    """The rows of a JSON lines file with `text` and `intent`; of equal questions the first."""
    rows: dict[str, Example] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        made = Example(
            id=content_id(row["text"], [], None, row["intent"]), question=row["text"].strip(), answer=row["intent"]
        )
        rows.setdefault(question_key(made), made)
    return list(rows.values())


def draw(data: Path, random_seed: int) -> Rows:
    """Seeds, validation, pool and earlier knowledge from the training rows; the test rows are always the same."""
    test = sorted(read(data / "test.jsonl"), key=lambda row: row.id)
    test = random.Random(0).sample(test, TEST_ROWS)
    protected = {question_key(row) for row in test}
    by_intent: dict[str, list[Example]] = defaultdict(list)
    for row in read(data / "train.jsonl"):
        if question_key(row) not in protected:
            by_intent[row.answer].append(row)
    rng = random.Random(random_seed)
    drawn = Rows([], [], test, [], [])
    for intent in TASK.labels:
        rows = rng.sample(by_intent[intent], len(by_intent[intent]))
        for part, count in (
            (drawn.seeds, SEEDS_PER_INTENT),
            (drawn.validation, VALIDATION_ROWS // len(TASK.labels)),
            (drawn.known, 0 if intent in UNKNOWN_INTENTS else KNOWN_ROWS_PER_INTENT),
            (drawn.pool, POOL_ROWS // len(TASK.labels)),
        ):
            part += rows[:count]
            del rows[:count]
    return drawn


def requests(errors: Sequence[StudentError], seeds: Sequence[Example], rng: random.Random) -> list[Request]:
    """`ROWS_PER_ITERATION` rows spread evenly over the errors; who gets the odd ones is drawn."""
    order = rng.sample(sorted(error.example_id for error in errors), len(errors))
    counts = {row: len(range(place, ROWS_PER_ITERATION, len(order))) for place, row in enumerate(order)}
    by_id = {seed.id: seed for seed in seeds}
    return [Request(parent=by_id[row], error=None, count=count) for row, count in sorted(counts.items()) if count]


class Lab:
    """One student and one random seed: what all selections start from, trained once."""

    def __init__(self, data: Path, start: str, random_seed: int, folder: Path) -> None:
        self.rows = draw(data, random_seed)
        self.start, self.random_seed, self.folder = start, random_seed, folder
        self.student = SCRATCH
        if start == "knows-five":
            taught = folder / "taught"
            taught.mkdir()
            fine_tune(self.rows.known, TASK, SCRATCH, TRAINING, random_seed, taught)
            self.student = str(taught)
        self._first: tuple[list[Prediction], list[Score]] | None = None

    def answers(self, training_set: list[Example], history: list[Score]) -> tuple[list[Prediction], list[Score]]:
        """What a student fine-tuned on the rows answers, and its scores; `history` has those before."""
        if not history and self._first:
            return self._first
        iteration = 1 + max((score.iteration for score in history), default=-1)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            fine_tune(training_set, TASK, self.student, TRAINING, self.random_seed, Path(folder))
            splits: Any = {"seeds": self.rows.seeds, "validation": self.rows.validation, "test": self.rows.test}
            settings = AnswerSettings(batch_size=128, hardness=True)
            predictions, scores = evaluate(Path(folder), splits, history, iteration, len(training_set), TASK, settings)
        if not history:
            self._first = predictions, scores
        return predictions, scores

    def run(self, settings: FilterErrorsSettings) -> list[dict[str, Any]]:
        """The loop with one selection: what each iteration came to."""
        assert needs(settings).keys() <= {"evaluate.hardness", "task.form"}
        training_set = list(self.rows.seeds)
        history: list[Score] = []
        errors: list[StudentError] = []
        decisions: list[Decision] = []
        used: set[str] = set()
        points = []
        for iteration in range(ITERATIONS + 1):
            predictions, scored = self.answers(training_set, history)
            history += scored
            scores = {score.split: score for score in scored}
            point: dict[str, Any] = {
                "added": len(training_set) - len(self.rows.seeds),
                "test": scores["test"].accuracy,
                "seeds": scores["seeds"].accuracy,
            }
            points.append(point)
            if iteration == ITERATIONS:
                break
            folds = None
            if settings.selection == "out_of_fold":
                to_answer = AnswerSettings(batch_size=128, hardness=True)
                folds = [
                    prediction
                    for fold in range(FOLDS)
                    for prediction in out_of_fold(
                        training_set, TASK, self.student, TRAINING, to_answer, fold, FOLDS, iteration,
                        self.random_seed,
                    )
                ]  # fmt: skip
            found = filter_errors(
                self.rows.seeds, predictions, history, iteration, ITERATIONS, settings, fold_predictions=folds,
                past_errors=errors, past_decisions=decisions, labels=TASK.labels, random_seed=self.random_seed,
            )  # fmt: skip
            errors += found.errors
            decisions.append(found.decision)
            chosen = [error for error in found.errors if not error.suspect]
            point |= {
                "errors": len(chosen),
                "suspects": found.decision.suspects,
                "intents": dict(sorted(_count(error.answer for error in chosen).items())),
                "reason": found.decision.reason,
            }
            if not chosen:
                break
            wanted = requests(chosen, self.rows.seeds, random.Random(f"{self.random_seed}:{iteration}"))
            for reply in pool_teacher.write(wanted, self.rows.pool, used, True, iteration + 1):
                for draft in reply.drafts:
                    row = Example(
                        id=content_id(draft.question, [], None, draft.answer),
                        question=draft.question,
                        answer=draft.answer,
                        parent_id=reply.request.parent.id,
                        iteration=iteration + 1,
                    )
                    used.add(row.id)
                    training_set.append(row)
        return points


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for value in values:
        counts[value] += 1
    return counts


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half the width of its 95% interval) by Student's t."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    spread = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(student_t.ppf(0.975, len(values) - 1)) * spread


def carried(points: list[dict[str, Any]], name: str) -> list[float]:
    """A value for every iteration: where the loop has ended, the last one stands."""
    return [points[min(iteration, len(points) - 1)][name] for iteration in range(ITERATIONS + 1)]


Results = dict[tuple[str, str], list[list[dict[str, Any]]]]
"""(start, arm): the points of one run for each random seed."""


def tables(results: Results, starts: Sequence[str]) -> str:
    """Markdown: accuracy by iteration, and the paired difference from random seeds."""
    lines = [
        f"Test accuracy (%) on {TEST_ROWS} rows of SNIPS after 0 to {ITERATIONS} iterations of {ROWS_PER_ITERATION} "
        "added rows, mean over random seeds with 95% t interval. Added: rows after the last iteration. The last two "
        "columns: difference from `random` in points, paired by random seed, mean over all iterations after 0 and "
        "after the last.",
        "",
    ]
    for start in starts:
        arms = [arm for arm in ARMS if (start, arm) in results]
        runs = len(results[start, arms[0]])
        lines += [
            f"**{start}**, {runs} random seeds",
            "",
            "| selection | " + " | ".join(f"iteration {i}" for i in range(ITERATIONS + 1)) + " | added | all | last |",
            "| --- |" + " --- |" * (ITERATIONS + 4),
        ]
        control = [carried(points, "test") for points in results.get((start, "random"), [])]
        for arm in arms:
            tests = [carried(points, "test") for points in results[start, arm]]
            cells = [_cell([100 * run[i] for run in tests]) for i in range(ITERATIONS + 1)]
            cells.append(f"{statistics.fmean(points[-1]['added'] for points in results[start, arm]):.0f}")
            if arm == "random" or len(control) != len(tests):
                cells += ["", ""]
            else:
                pairs = list(zip(tests, control, strict=True))
                cells.append(_cell([100 * (statistics.fmean(a[1:]) - statistics.fmean(b[1:])) for a, b in pairs], True))
                cells.append(_cell([100 * (a[-1] - b[-1]) for a, b in pairs], True))
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: Sequence[float], signed: bool = False) -> str:
    mean, half = interval(values)
    shown = f"{mean:{'+' if signed else ''}.1f}"
    return shown if half != half else f"{shown} ± {half:.1f}"


COLOURS = ("#8c2d04", "#ec7014", "#08519c", "#238b45", "#6a51a3", "#525252")
MARKS = (
    "m-5 -5l10 10m0 -10l-10 10",
    "m-5 0h10m-5 -5v10",
    "m-4.5 -4.5h9v9h-9z",
    "m0 -6l6 10h-12z",
    "m0 -6l6 6l-6 6l-6 -6z",
    "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
)


def plot(results: Results, starts: Sequence[str]) -> str:
    """SVG: a panel for each student, a line with intervals for each selection."""
    width, height, left, top, bottom = 470, 424, 56, 40, 330
    points: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for (start, arm), runs in results.items():
        for i in range(ITERATIONS + 1):
            mean, half = interval([carried(run, "test")[i] for run in runs])
            x = statistics.fmean(carried(run, "added")[i] for run in runs)
            points.setdefault((start, arm), []).append((x, mean, half if half == half else 0.0))
    low = min(mean - half for line in points.values() for _, mean, half in line)
    high = max(mean + half for line in points.values() for _, mean, half in line)
    low, high = int(low * 20) / 20, min(1.0, (int(high * 20) + 1) / 20)
    most = ITERATIONS * ROWS_PER_ITERATION
    parts = []
    for panel, start in enumerate(starts):
        shift = panel * width

        def at(x: float, y: float, shift: float = shift) -> tuple[float, float]:
            across = shift + left + 12 + x / most * (width - left - 40)
            return round(across, 1), round(bottom - (y - low) / (high - low) * (bottom - top), 1)

        parts.append(f'<text x="{shift + left}" y="24" class="title">student: {start}</text>')
        for tick in range(round(low * 20), round(high * 20) + 1):
            y = at(0, tick / 20)[1]
            parts.append(f'<path class="grid" d="M{shift + left} {y}H{shift + width - 16}"/>')
            parts.append(f'<text x="{shift + left - 8}" y="{y + 4}" text-anchor="end">{5 * tick}%</text>')
        for i in range(ITERATIONS + 1):
            x = at(i * ROWS_PER_ITERATION, low)[0]
            parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{i * ROWS_PER_ITERATION}</text>')
        parts.append(
            f'<text x="{shift + width / 2}" y="{bottom + 36}" text-anchor="middle">rows added to 70 seeds</text>'
        )
        for place, arm in enumerate(ARMS):
            line = points.get((start, arm), [])
            colour = COLOURS[place]
            # A little apart, so that whiskers do not hide one another.
            nudge = 0.9 * (place - len(ARMS) / 2)
            drawn = [at(x + nudge * (x > 0), mean) for x, mean, _ in line]
            parts.append(
                f'<polyline fill="none" stroke="{colour}" stroke-width="2" '
                f'points="{" ".join(f"{x},{y}" for x, y in drawn)}"/>'
            )
            for (x, y), (_, mean, half) in zip(drawn, line, strict=True):
                parts.append(
                    f'<path stroke="{colour}" d="M{x} {at(0, mean - half)[1]}V{at(0, mean + half)[1]}"/>'
                    f'<path fill="#fff" stroke="{colour}" stroke-width="2" d="M{x} {y}{MARKS[place]}"/>'
                )
    for place, arm in enumerate(ARMS):
        x, y = left + 225 * (place % 4), height - 34 + 22 * (place // 4)
        parts.append(
            f'<path fill="#fff" stroke="{COLOURS[place]}" stroke-width="2" d="M{x} {y}{MARKS[place]}"/>'
            f'<text x="{x + 12}" y="{y + 4}">{arm}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(starts)} {height}" role="img">'
        "<title>Test accuracy against added rows</title>"
        "<style>text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}.grid{stroke:#ddd}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Runs what is not there yet, then writes tables and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench/selection"))
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data" / "snips",
        help="a folder with train.jsonl and test.jsonl, fields text and intent",
    )  # fmt: skip
    parser.add_argument("--starts", default=",".join(STARTS), help="which students")
    parser.add_argument("--arms", default=",".join(ARMS), help="which selections")
    parser.add_argument("--random-seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    starts, arms = given.starts.split(","), given.arms.split(",")
    runs = given.output / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    results: Results = {}
    for start in starts:
        for random_seed in range(given.random_seeds):
            with tempfile.TemporaryDirectory() as folder:
                lab: Lab | None = None
                for arm in arms:
                    file = runs / f"{start}-{arm}-{random_seed}.json"
                    if not file.is_file():
                        began = time.monotonic()
                        with (runs / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                            lab = lab or Lab(given.data, start, random_seed, Path(folder))
                            points = lab.run(ARMS[arm])
                        write_text(file, json.dumps(points, indent=1) + "\n")
                        tests = " ".join(f"{100 * point['test']:.1f}" for point in points)
                        print(f"{start}, {arm}, {random_seed}: {tests} ({time.monotonic() - began:.0f} s)", flush=True)
                    results.setdefault((start, arm), []).append(json.loads(file.read_text()))
    text = tables(results, starts)
    write_text(given.output / "selection.md", text)
    write_text(given.output / "selection.svg", plot(results, starts))
    print(text)


if __name__ == "__main__":
    main()
