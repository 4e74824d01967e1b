"""The kinds of rows that flow between stages. A kind's dataclass is its schema; `parquet` derives the Arrow schema.

examples     seeds, validation, test, pool, training sets
predictions  what a student answered, and its grade
errors       the seed rows that a student needs help with, of all iterations so far
candidates   what a teacher wrote, before dedupe
rejects      every generated row that was dropped, and why, of all iterations so far
calls        every request to a teacher, of all iterations so far
scores       one row for each iteration and split: the history
decisions    one row for each iteration: go on or stop, and the reason
controls     what the delivered student is held against: one row for each control and split, once the loop has ended
trials       settings of the training that were tried before the loop, each with its score
confusions   of tasks with labels or choices, which was given for which: one row for each iteration, split and pair
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

VERSION = 5  # of the schemas below; raise it when a field changes its name, type or meaning, not for one with a default
PARQUET_MAGIC = b"PAR1"  # what a file of rows begins and ends with

Split = Literal["seeds", "validation", "test", "generated"]
"""`generated`: the generated rows of a training set, where a student is asked them (`filter_errors.generated_rows`).
They have predictions, and no score."""
Outcome = Literal["correct", "wrong", "unparseable"]
Difficulty = Literal["unsolved", "flaky", "format_only", "solved"]
Reason = Literal[
    "call_failed", "truncated", "empty", "refused", "unparseable", "missing", "invalid", "no_patterns",
    "over_budget", "exhausted",
    "wrong_arithmetic", "gives_answer_away", "boilerplate", "control_tokens", "unusual_length", "other_script",
    "noise", "no_answer", "same_answer", "wrong_answer", "changed_numbers", "ambiguous", "disagrees", "judged_wrong",
    "not_judged",
    "copy", "near_copy", "template", "semantic_copy", "covered", "in_test", "in_validation",
]  # fmt: skip
"""Why a row is rejected; `report.reasons` says it in words."""
SPLITS: tuple[Split, ...] = ("seeds", "validation", "test")
ASKED: tuple[Split, ...] = (*SPLITS, "generated")
LOOKED_AT: tuple[Split, ...] = ("seeds", "generated")
"""Where errors are looked for: rows that the student was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question with its right answer. Kinds `examples` and `candidates`."""

    id: str
    """`content_id` of the four fields below: the same content has the same id on every machine."""
    question: str
    choices: list[str] = field(default_factory=list)
    """The options of a multiple-choice question, in the order shown; else empty."""
    rationale: str | None = None
    """The worked solution that leads to the answer, where the task has one."""
    answer: str
    tools: list[str] = field(default_factory=list)
    """The tools that the row offers, each a function's definition as JSON; part of the id, as choices are."""
    also_right: list[str] = field(default_factory=list)
    """Form `text`: other right answers, graded as right too; no part of the id."""

    skills: list[str] = field(default_factory=list)
    """What it takes to answer, as a user's column names it, or the skill that a generated row was written for."""
    source: str = ""
    """Where a user's row was read, as `file:row`; `teacher` for a generated one."""
    source_id: str | None = None
    """The id that a user's own column gave the row."""

    parent_id: str | None = None
    """The seed example that this one was generated from; None for a user's row. So are the fields below."""
    by_way_of: str | None = None
    """The generated row that the teacher was shown, itself one of seed `parent_id` (`filter_errors.generated_rows`);
    None: it was shown the seed."""
    iteration: int = 0
    """The iteration whose training set the row first joined; 0 for seeds."""
    strategy: str | None = None
    teacher: str | None = None
    call_key: str | None = None
    """The `calls` row that the text came from."""
    checks: list[str] = field(default_factory=list)
    """The checks that the row passed on its way into the training set."""
    confidence: float | None = None
    """The share of blind solutions that agree with the answer, or how sure the judge is of it, in [0, 1]; None for a
    row that was not verified."""
    votes: list[str] = field(default_factory=list)
    """What the blind solutions answer, where a task has labels or choices, or the labels that a verifier's
    log-probabilities are for: each once, sorted. Empty for a row that was not solved again."""
    vote_shares: list[float] = field(default_factory=list)
    """The share of the readable solutions that has each of `votes`, or its probability."""

    @property
    def generated(self) -> bool:
        """Whether a teacher wrote the row."""
        return self.parent_id is not None

    @property
    def written_from(self) -> str | None:
        """The row that the teacher was shown: the seed, or a generated one."""
        return self.by_way_of or self.parent_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A student's answer to one example."""

    example_id: str
    split: Split
    iteration: int
    fold: int | None = None
    """The held-out fold that the row was in, when a student trained without that fold answered it."""
    completion: str
    parsed: str | None
    """The answer read out of the completion; None when there is none to read."""
    outcome: Outcome
    truncated: bool = False
    """Whether the completion hit the token limit before it ended."""

    samples: int = 1
    """How many answers were drawn; the fields above are of the first, the greedy one when it is the only one."""
    samples_correct: int = 0
    samples_unparseable: int = 0
    """How many of them are right, and how many have no answer that can be read."""
    confidence: float | None = None
    """The probability of the answer that was given, among all labels or choices; None for an answer that was written
    freely."""
    flag_probability: float | None = None
    """The probability of the label that rows are flagged by (`evaluate.threshold`); None where none is wanted."""

    loss: float | None = None
    """Mean negative log-likelihood of the right completion's tokens, in nats; None when it was not asked for. So are
    the fields below."""
    label_probability: float | None = None
    """The probability of the right label among all labels or choices, where the task has such."""
    margin: float | None = None
    """`label_probability` less that of the likeliest wrong label, in [-1, 1]."""
    rival: str | None = None
    """The likeliest wrong label."""
    el2n: float | None = None
    """The Euclidean norm of the label distribution's error (Paul et al. 2021), in [0, sqrt 2]."""
    base_loss: float | None = None
    """`loss` under the model that the fine-tuning started from."""
    early_loss: float | None = None
    """`loss` after the first epoch."""

    judge_score: float | None = None
    """How good the first answer is, in [0, 1], by the judge, or by rule where it is the right answer's own text or
    cannot be read; None where nobody is asked for a score (`task.metric: judge_score`)."""
    judge_calls: int = 0
    """Answers of the judge about what was drawn; 0 where a rule could grade all of it."""
    judge_input_tokens: int | None = None
    judge_output_tokens: int | None = None
    """Of those answers, as the endpoint reports them; None when it does not, or there are none."""
    judge_usd: float | None = None
    """The price of those tokens; None when it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentError:
    """A seed, or with `filter_errors.generated_rows` a generated row, that the student needs help with, beside what it
    answered. Kind `errors`."""

    iteration: int
    example_id: str
    question: str
    choices: list[str] = field(default_factory=list)
    rationale: str | None = None
    answer: str
    completion: str
    parsed: str | None
    outcome: Outcome
    fold: int | None = None

    difficulty: Difficulty = "unsolved"
    """`unsolved`: no answer was right; `flaky`: some were; `format_only`: none could be read; `solved`: all were, and
    the row was chosen for another reason."""
    hardness: float | None = None
    """What the selection ranked the row by, higher for harder; None where it ranks nothing."""
    suspect: bool = False
    """Whether the label is more likely wrong than the student: for a person to look at, and never written from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that does not enter the training set. Kind `rejects`."""

    iteration: int
    stage: Literal["prepare", "teacher_augment", "dedupe"]
    reason: Reason
    detail: str = ""
    """What exactly was wrong, for a person."""
    score: float | None = None
    """Similarity to the neighbour in [0, 1], where there is one."""
    neighbour_id: str | None = None
    neighbour: str | None = None
    """The text of the row that it collided with."""
    id: str
    question: str
    choices: list[str] = field(default_factory=list)
    rationale: str | None = None
    answer: str
    parent_id: str | None = None
    by_way_of: str | None = None
    """As in an `Example`."""
    strategy: str | None = None
    teacher: str | None = None
    call_key: str | None = None

    @property
    def written_from(self) -> str | None:
        """As in an `Example`."""
        return self.by_way_of or self.parent_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a teacher, with all its tries. Kind `calls`.

    Whether this run paid for it or found it in the ledger is not said here: the same run again leaves the same rows.
    """

    key: str
    """The content key, under which the ledger holds the request and the raw answer."""
    iteration: int
    parent_id: str | None
    """The row that it is about: of a teacher that writes, the one that it was shown."""
    purpose: str = "write"
    """`write` new examples, or `skills`, `resolve`, `judge`, `rationale`: what else a strategy or a check asks;
    `ceiling`: the control `teacher`."""
    strategy: str | None = None
    teacher: str
    model: str
    outcome: Literal["answered", "failed"]
    attempts: int
    """How often the request was sent until it was answered."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    """As the endpoint reports them; None when it does not."""
    usd: float | None = None
    """The price of the tokens; None when the model's price is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The grades of one split in one iteration, counted. Kind `scores`."""

    iteration: int
    split: Split
    n: int
    correct: int
    unparseable: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""
    training_rows: int
    """Rows that the student was trained on, without those left out."""
    rows_too_long: int = 0
    """Rows left out of the training, as they have too many tokens."""
    rows_truncated: int = 0
    """Rows whose prompt was cut to fit."""
    rows_replayed: int = 0
    """General rows that were mixed in."""
    steps: int = 0
    """Optimiser steps of the training; 0: not known."""
    validation_losses: list[float] = field(default_factory=list)
    """Validation only, with `train.validation_loss`: the mean loss of its rows at the end of each epoch."""
    correct_ids: list[str] = field(default_factory=list)
    """The ids of the rows whose first answer is right, sorted: iterations are compared row by row."""
    metric: str = "accuracy"
    """What decides (`task.metric`)."""
    value: float | None = None
    """Its figure, in [0, 1]; None where it is the accuracy. So are the fields below."""
    value_low: float | None = None
    value_high: float | None = None
    """Its 95% bootstrap interval."""
    measures: list[float] = field(default_factory=list)
    """Validation only: what the metric keeps of each answer, as many numbers for each, in the order of the rows' ids;
    empty where it is the accuracy."""
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    """For labels and choices, whatever decides."""
    calibration_error: float | None = None
    """The expected calibration error, in [0, 1], of the answers that have a `confidence`; None where none has one."""
    flag_label: str = ""
    """The label that rows are flagged by (`evaluate.threshold`); empty: none. So are the fields below."""
    flag_threshold: float | None = None
    """Chosen on validation: from this probability of the label on a row is flagged."""
    flag_positives: int = 0
    flag_found: int = 0
    """Rows with the label, and how many of them are flagged."""
    flag_negatives: int = 0
    flag_false_alarms: int = 0
    """The other rows, and how many of them are flagged."""
    gain: float | None = None
    """The accuracy less that of iteration 0 on the same rows; None where there is nothing to compare with. So are the
    fields below."""
    gain_low: float | None = None
    gain_high: float | None = None
    """The 95% paired bootstrap interval of the gain."""
    gain_p: float | None = None
    """The two-sided p-value of McNemar's exact test: could the two students be equally good?"""
    judge_calls: int = 0
    judge_input_tokens: int | None = None
    judge_output_tokens: int | None = None
    judge_usd: float | None = None
    """What the judge cost: those of the predictions, summed; None where any of them is not known."""

    @property
    def decides(self) -> float:
        """The figure that decisions go by, in [0, 1]: that of the metric."""
        return self.accuracy if self.value is None else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the loop goes on after an iteration, and why. Kind `decisions`."""

    iteration: int
    selection: str
    errors: int | None
    """How many seed rows to write from; None at the iteration limit where only the students of the folds could say it
    (`out_of_fold`, and `auto` once the student knows its seeds): they would be trained for nothing."""
    suspects: int = 0
    """How many seed rows were set apart because their label is likely wrong."""
    retired: int = 0
    """How many seed rows are no longer written from, because the teacher has failed on them again and again."""
    go_on: bool
    reason: str
    best_iteration: int
    """The iteration with the best validation accuracy so far; the earliest of equals."""
    reference_iteration: int | None = None
    """The iteration whose answers on validation are to be beaten, beyond noise, before patience runs out."""
    judge_calls: int = 0
    judge_input_tokens: int | None = None
    judge_output_tokens: int | None = None
    judge_usd: float | None = None
    """What the judge cost for the folds' predictions, summed as in a `Score`."""


ControlName = Literal["steps", "majority", "untrained", "few_shot", "teacher"]
"""`steps`: the seeds alone, for as many optimiser steps as the delivered student had. `majority`: the most frequent
label of the seeds, always. `untrained`: the student as it was before any training. `few_shot`: the same, with seeds
in its prompt. `teacher`: the teacher, asked the validation questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The grades of one control on one split, counted. Kind `controls`."""

    name: ControlName
    iteration: int
    """The iteration whose student is delivered, with which it is compared."""
    split: Split
    n: int
    correct: int
    unparseable: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""
    steps: int = 0
    """Optimiser steps of its training; 0: it was not trained."""
    correct_ids: list[str] = field(default_factory=list)
    """The ids of the rows that it answers right, sorted: it is compared row by row."""
    asked_ids: list[str] = field(default_factory=list)
    """The ids of the rows that it was asked, sorted, where it was asked a part of the split; empty: all of them."""
    shots: int = 0
    """How many seeds stood in its prompt."""
    judge_calls: int = 0
    judge_input_tokens: int | None = None
    judge_output_tokens: int | None = None
    judge_usd: float | None = None
    """What the judge cost, as in a `Score`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Settings of the training that were tried on the seeds, and the grades of the students. Kind `trials`."""

    number: int
    """From 0, in the order in which they were tried."""
    settings: str
    """The keys of `train` that were tried, with their values, as a JSON object."""
    chosen: bool
    """Whether the loop trains with them; one trial is."""
    split: Split
    """What was asked: `validation`, or with folds the seeds, each by a student that was trained without it."""
    folds: int = 0
    n: int
    correct: int
    unparseable: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""
    correct_ids: list[str] = field(default_factory=list)
    """The ids of the rows that were answered right, sorted: trials are compared row by row."""
    metric: str = "accuracy"
    """What decides (`task.metric`)."""
    value: float | None = None
    """Its figure, in [0, 1]; None where it is the accuracy. So are the fields below."""
    value_low: float | None = None
    value_high: float | None = None
    """Its 95% bootstrap interval."""
    failed: str = ""
    """Why there is no student, as of a learning rate so high that the loss is no number; then no row is right."""
    iteration: int = 0
    """Trials are before the loop: what they cost is counted with iteration 0."""
    judge_calls: int = 0
    judge_input_tokens: int | None = None
    judge_output_tokens: int | None = None
    judge_usd: float | None = None
    """What the judge cost, as in a `Score`."""

    @property
    def decides(self) -> float:
        """The figure that the choice goes by, in [0, 1]: that of the metric."""
        return self.accuracy if self.value is None else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How many rows with one right answer were given which. Kind `confusions`."""

    iteration: int
    split: Split
    right: str
    given: str | None
    """None: no answer could be read."""
    n: int


Row = Example | Prediction | StudentError | Reject | Call | Score | Decision | Control | Trial | Confusion

KINDS: dict[str, type[Row]] = {
    "examples": Example,
    "candidates": Example,
    "predictions": Prediction,
    "errors": StudentError,
    "rejects": Reject,
    "calls": Call,
    "scores": Score,
    "decisions": Decision,
    "controls": Control,
    "trials": Trial,
    "confusions": Confusion,
}


def content_id(question: str, choices: list[str], rationale: str | None, answer: str, tools: Sequence[str] = ()) -> str:
    """The id of an example: 20 hexadecimal digits (80 bits) of the SHA-256 of its content as canonical JSON."""
    content = json.dumps([question, [*choices, *tools], rationale, answer], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:20]
