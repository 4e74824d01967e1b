"""Every stage in one table: the command line, plan, placement, caching, lineage and `why` derive from it.

Data only; it imports nothing, so everything may import it. To add a stage: a folder with `component.py`, a line here,
and a call in `pipelines/loop.py`.
"""

from dataclasses import dataclass
from typing import Literal

ImageOf = Literal["cpu", "train", "student", "teacher"]
"""`cpu` and `train` are images of the config; `student` is what the student answers in (`evaluate.backend`), `teacher`
what the teacher needs (none but `cpu` unless it runs in the stage's own pod)."""


@dataclass(frozen=True)
class Stage:
    """What is known of a stage without importing it."""

    summary: str
    """One line, in the imperative, for the command line's help."""
    sections: tuple[str, ...]
    """Top-level keys of the config that the stage is handed as its settings."""
    outputs: tuple[str, ...]
    """The artifacts that it writes."""
    image: ImageOf = "cpu"
    gpu: bool = False
    """Whether a profile gives it a GPU where nothing else is said."""
    loads_models: bool = False
    """Whether it always loads a model, and so needs the model cache and the hub's token."""
    cached: bool = True
    """Whether Kubeflow may answer it from its cache: what it leaves depends on nothing but its inputs."""
    once: bool = False
    """Whether it runs once, after the last iteration."""
    from_iteration: int | None = 0
    """The first iteration that has it; None: it runs once, before the loop."""
    hands_on: tuple[str, ...] = ()
    """The stages whose settings it returns, in this order, in place of those from `configure`."""
    at_exit: bool = False
    """Whether it is the exit task of a run in a cluster: it runs once, whatever has become of the others."""


STAGES: dict[str, Stage] = {
    "configure": Stage(
        "Check the run's parameters together, and hand each stage its settings.",
        sections=(),
        outputs=("config",),
        cached=False,  # it finds out what the names of the data stand for today
        from_iteration=None,
    ),
    "prepare": Stage(
        "Read, check and split a user's rows.",
        sections=("task", "data", "data_versions", "prepare", "random_seed"),
        outputs=("splits", "training_set", "pool_set", "replay_set", "journal"),
        from_iteration=None,
    ),
    "detect_changes": Stage(
        "Find out whether there is anything that the version in production was not made from.",
        sections=("promote", "notify"),
        outputs=("notes",),
        cached=False,  # it depends on the registry
        from_iteration=None,
    ),
    "tune": Stage(
        "Try settings of the training on the seeds; the loop trains with the best.",
        sections=("task", "student", "train", "evaluate", "tune", "handed_on", "random_seed"),
        outputs=("journal",),
        image="train",
        gpu=True,
        loads_models=True,
        from_iteration=None,
        hands_on=("train", "out_of_fold", "controls"),
    ),
    "teacher_augment": Stage(
        "Have a teacher write new examples from the errors.",
        sections=("task", "teacher_augment", "random_seed"),
        outputs=("candidates", "journal"),
        image="teacher",
        from_iteration=1,
    ),
    "dedupe": Stage(
        "Drop copies, near copies and leaks; the rest joins the training set.",
        sections=("task", "dedupe"),
        outputs=("next_training_set", "journal"),
        from_iteration=1,
    ),
    "train": Stage(
        "Fine-tune the student on the current training set.",
        sections=("task", "student", "train", "random_seed"),
        outputs=("model", "metrics"),
        image="train",
        gpu=True,
        loads_models=True,
    ),
    "predict": Stage(
        "Ask the student one shard's share of the questions.",
        sections=("task", "evaluate"),
        outputs=("predictions",),
        image="student",
        gpu=True,
        loads_models=True,
    ),
    "evaluate": Stage(
        "Ask the student every seed, validation and test question, grade the answers, and score them.",
        sections=("task", "evaluate"),
        outputs=("predictions", "journal", "metrics", "confusion"),
        image="student",
        gpu=True,
        loads_models=True,
    ),
    "out_of_fold": Stage(
        "Train a student without one fold of the seeds and ask it about that fold.",
        sections=("task", "student", "train", "evaluate", "out_of_fold", "random_seed"),
        outputs=("predictions",),
        image="train",
        gpu=True,
        loads_models=True,
    ),
    "filter_errors": Stage(
        "Find the seeds that the student needs help with; decide whether to go on.",
        sections=("task", "filter_errors", "max_iterations", "random_seed"),
        outputs=("journal",),
    ),
    "controls": Stage(
        "Once the loop has ended, measure what the delivered student is held against.",
        sections=("task", "student", "train", "evaluate", "controls", "ceiling", "random_seed"),
        outputs=("journal",),
        image="train",
        gpu=True,
        loads_models=True,
        once=True,
    ),
    "promote": Stage(
        "Put the run's best student into the registry, if it beats the version in production.",
        sections=("task", "promote", "random_seed"),
        outputs=("verdict", "metrics"),
        image="train",
        gpu=True,
        loads_models=True,
        cached=False,  # it depends on the registry
    ),
    "report": Stage(
        "Write what happened, for a person.",
        sections=(),
        outputs=("html", "markdown", "summary", "metrics", "manifest"),
    ),
    "notify": Stage(
        "Tell a webhook how the run ended.",
        sections=(),
        outputs=(),
        cached=False,
        from_iteration=None,
        at_exit=True,
    ),
}
