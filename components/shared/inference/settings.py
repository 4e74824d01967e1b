"""Settings for asking the student; `predict`, `evaluate` and `out_of_fold` share them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.judge.settings import JudgeSettings
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.threshold import ThresholdSettings


class AnswerSettings(Settings):
    """The `evaluate` section of a config: greedy answers, unless more samples of the seeds are asked for."""

    backend: Literal["transformers", "vllm"] = "transformers"
    """Who runs the student: `transformers`, or vLLM's engine, which is faster on a GPU and serves an adapter without
    merging it. Both are given the same prompts and graded alike; floating point differs in the last digits."""
    gpus: int = Field(1, ge=1)
    """How many GPUs of the pod answer. `transformers`: each holds the student and answers a share of the rows, in a
    process of its own; without a GPU, so many processes share the cores. `vllm`: they hold the student together (tensor
    parallel)."""
    mode: Literal["generate", "score"] = "generate"
    """How a question is answered: `generate`: the student writes; `score`, for labels and choices: the answer is the
    label that the student finds likeliest, and comes with a probability."""
    shards: int = Field(1, ge=1, le=64)
    """How many pods share the rows. Fixed when the pipeline is compiled."""
    batch_size: int = Field(32, ge=1)
    """Rows answered at once; halved where they do not fit into memory. With vLLM, which batches as it sees fit: how
    finely rows are dealt to the shards."""
    max_new_tokens: int = Field(0, ge=0)
    """The longest completion in tokens; 0: as long as the task says, or as the longest right answer is. A number below
    that is refused."""
    constrain: bool = True
    """`vllm` and form `json` only: whether the student can write nothing but JSON that fits the schema, but for what a
    grammar cannot hold: sets, patterns, lengths and bounds. transformers has no such decoder: there, and with
    `task.chat.thinking`, the student writes freely, and what is no JSON counts as unparseable."""
    samples: int = Field(1, ge=1, le=1000)
    """Answers to each seed. 1: the greedy one. More: that many are drawn at `temperature`, and each seed has an error
    rate; their score is then that of the first samples. Validation and test are always answered once, greedily."""
    draw_seeds: bool = False
    """Whether the one answer to each seed, with `samples: 1`, is drawn at `temperature` rather than greedy, as in the
    reference implementation of LLM2LLM: then a seed may be an error by bad luck."""
    temperature: float = Field(0.8, gt=0, le=2)
    """Of answers that are drawn: sampling temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Of answers that are drawn: a token is drawn from the likeliest that have this share of the probability together
    (nucleus sampling; Holtzman et al. 2020); 1: from all."""
    sampling_seed: int = 0
    """Of answers that are drawn: decides what is drawn, row by row, whatever the batches."""
    hardness: bool = False
    """Whether to measure each seed's loss and, where the task has labels or choices, the probability of each label
    with margin and EL2N: the student reads every label of a row. The selections `hard` and `learnable` need it, and
    so does the search for wrong labels."""
    judge: JudgeSettings | None = None
    """The model that grades the answers of a task with `match: judge`."""
    threshold: ThresholdSettings | None = None
    """For guardrails, with mode `score` and labels: chooses on validation from which probability on a row is flagged as
    `label`, so that at most `max_false_positive_rate` of the others are, and tells the recall."""
    trust_remote_code: bool = False
    """Whether to run code that a model repository brings along. Off: such a model is refused."""

    @model_validator(mode="after")
    def _modes_fit(self) -> Self:
        if self.mode == "score" and self.draw_seeds:
            raise ValueError(
                "draw_seeds: answers are drawn only with mode 'generate', and this is mode 'score'; remove draw_seeds "
                "or set mode: generate"
            )
        if self.mode == "score" and self.samples > 1:
            raise ValueError(
                f"samples: {self.samples} answers are drawn only with mode 'generate', and this is mode 'score'; "
                "remove samples or set mode: generate"
            )
        return self


def check_mode(task: Task, settings: AnswerSettings) -> None:
    """Refuses to score the labels of a task that has none.

    Raises:
        ValueError: Names the key and the fix.
    """
    if settings.mode == "score" and not FORMS[task.form].has_classes:
        raise ValueError(
            f"mode: 'score' compares labels or choices, and task {task.name!r} is of form {task.form!r}; set mode: "
            "generate"
        )
    writes_first = FORMS[task.form].has_classes and task.rationale and task.rationale_as == "before"
    if writes_first and (settings.mode == "score" or settings.hardness):
        key = "mode: 'score'" if settings.mode == "score" else "hardness: true"
        raise ValueError(
            f"{key} measures labels alone, and the student of task {task.name!r} writes a rationale first; set "
            "task.rationale_as: second_task, or mode: generate and hardness: false"
        )
