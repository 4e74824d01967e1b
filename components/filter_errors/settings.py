"""Settings of `filter_errors`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.filter_errors.selections import SELECTIONS, Selection
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings import RandomSeed, Settings, StageSettings, in_words, one_of
from llm2llm.components.shared.tasks import AnyTask


class FilterErrorsSettings(Settings):
    """The `filter_errors` section of a config."""

    selection: Annotated[str, one_of(SELECTIONS)] = Field(
        "auto",
        description=f"Which seeds new rows are written from: {in_words(SELECTIONS)}. Fixed when the pipeline is "
        "compiled.",
    )
    random_as: Annotated[str, one_of(SELECTIONS)] = "auto"
    """`random` only: the selection that it is the control of. It draws as many rows as that one would choose, from the
    same answers; so it needs what that one needs, the students of the folds too. Fixed when the pipeline is compiled.
    """
    folds: int = Field(3, ge=2, le=20)
    """`out_of_fold` and `auto`: how many folds, and so how many more students are trained in an iteration. Fixed when
    the pipeline is compiled."""
    auto_above: float = Field(0.98, gt=0, lt=1)
    """`auto` only: the share of its seeds that a student must solve for the folds to be used."""
    hard_by: Literal["loss", "el2n", "margin", "learning_percentage"] = "loss"
    """`hard` only: the loss of the right completion, per token; EL2N or margin, for tasks with labels or choices; or
    how late in training a row is learnt."""
    fraction: float = Field(0.3, gt=0, le=1)
    """`hard` and `learnable`: the share of the seeds to choose."""
    format_only: Literal["set_apart", "write"] = "write"
    """Seeds of which no answer can be read. `write` takes them for wrong ones, as the paper does: a student that is far
    from its task writes nothing that can be read, and the loop would end there. `set_apart` counts them in the
    decision's reason and writes nothing from them, for a student that lacks the format and not the knowledge."""
    generated_rows: bool = False
    """Whether errors are looked for on the generated rows of the training set, too, which the student is then asked as
    it is asked the seeds; a row that is written from such a one names it (`by_way_of`) beside its seed. A comparison:
    in the paper's ablation the seeds alone did better, as errors on generated rows drift away from the task. Needs
    `selection` `wrong`, `all`, or `random` as one of these. Fixed when the pipeline is compiled."""
    max_errors: int = Field(0, ge=0)
    """At most this many seeds in an iteration; 0: no limit."""
    cap_by: Literal["diversity", "hardness"] = "diversity"
    """Which stay when there are more than `max_errors`: those least like one another, or the hardest. Unsolved ones go
    before flaky ones either way."""
    retire_after: int = Field(3, ge=0)
    """Seeds are written from no more after so many iterations in which nothing that the teacher wrote for them was
    kept; 0: never."""
    suspects: Literal["set_apart", "ignore"] = "set_apart"
    """Seeds whose label is more likely wrong than the student: `set_apart` lists them for a person and writes nothing
    from them, `ignore` does not look for them. With folds and `evaluate.hardness` confident learning finds them, else
    what the student answers."""
    suspect_after: int = Field(3, ge=1)
    """In so many iterations in a row a seed must get the same wrong answer before its label is suspected."""
    patience: int = Field(0, ge=0)
    """Stop when validation is not better than so many iterations ago, beyond noise; 0: never for this reason. What
    better means is `task.metric`."""
    patience_level: float = Field(0.05, gt=0, le=1)
    """An improvement counts when the p-value of McNemar's exact test (of a permutation test for another metric than the
    accuracy) is below this."""

    @property
    def chosen_selection(self) -> Selection:
        """What `selection` names."""
        return SELECTIONS[self.selection]

    @property
    def looked_at(self) -> Selection:
        """The selection that says which answers are looked at: `selection` itself, or of a control the one that it is
        compared with."""
        chosen = self.chosen_selection
        return SELECTIONS[getattr(self, chosen.control_of)] if chosen.control_of else chosen

    @property
    def uses_folds(self) -> bool:
        """Whether the selection may look at the answers of the folds' students."""
        return self.looked_at.needs_folds or self.waits_for_known_seeds

    @model_validator(mode="after")
    def _compared_with_another(self) -> Self:
        if self.looked_at.control_of:
            raise ValueError(
                f"random_as: {self.random_as!r} is itself a control; name the selection that it is compared with"
            )
        return self

    @model_validator(mode="after")
    def _takes_generated(self) -> Self:
        if self.generated_rows and not self.looked_at.takes_generated:
            key, found = (
                ("random_as", self.random_as) if self.chosen_selection.control_of else ("selection", self.selection)
            )
            raise ValueError(
                f"generated_rows: true goes by what the student answers to the rows that it was trained on, and {key} "
                f"{found!r} by more than that; set {key}: wrong, or remove generated_rows"
            )
        return self

    @property
    def waits_for_known_seeds(self) -> bool:
        """Whether folds are used in those iterations alone in which the student solves more than `auto_above` of its
        seeds."""
        return self.looked_at.stands_for is not None

    @property
    def fold_count(self) -> int:
        """How many students are trained without a fold in an iteration."""
        return self.folds if self.uses_folds else 0


def needs(settings: FilterErrorsSettings) -> dict[str, tuple[Any, ...]]:
    """What a selection needs of other sections: the values that each key, as `section.key`, may have.

    >>> needs(FilterErrorsSettings(selection="hard", hard_by="margin"))
    {'evaluate.hardness': (True,), 'task.form': ('classification', 'multiple_choice')}
    """
    return settings.looked_at.needs(settings)


def check_folds(settings: FilterErrorsSettings, there: bool, needed: bool) -> None:
    """Holds a selection against the folds' predictions that a stage was given.

    Args:
        settings: Say which selection it is.
        there: Whether there are predictions of folds.
        needed: Whether another iteration may follow; after the last one nothing would be written from them.

    Raises:
        UserError: They do not fit each other.
    """
    always = settings.looked_at.needs_folds
    if (there and not settings.uses_folds) or (always and needed and not there):
        raise UserError(
            f"filter_errors.selection: {settings.selection!r} does not fit: 'out_of_fold' needs the predictions of "
            "all folds, 'auto' may have them and the others may not; in a pipeline the selection is fixed when it "
            "is compiled"
        )


class FilterErrorsStage(StageSettings):
    """The settings of stage `filter_errors`."""

    task: AnyTask | None = None
    """Its labels are skills, and classes in the search for wrong labels."""
    filter_errors: FilterErrorsSettings = FilterErrorsSettings()
    max_iterations: int = Field(1, ge=1)
    """The last iteration that may run."""
    random_seed: RandomSeed = 0
    """Decides the draws of the selections `skills` and `random`."""
