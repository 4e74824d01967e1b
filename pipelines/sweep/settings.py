"""What a sweep file says."""

from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.settings import Settings
from llm2llm.pipelines.config.loading import read_mapping, read_override

NAME = r"^[a-z0-9]([a-z0-9_-]{0,60}[a-z0-9])?$"
DATA_SEED, TRAINING_SEED = "prepare.random_seed", "random_seed"
"""The keys of a config that the two kinds of seeds set."""


class Seeds(Settings):
    """The `seeds` section: every pair of a data seed and a training seed is a run."""

    data: tuple[int, ...] = (0,)
    """Values of `prepare.random_seed`: which rows are seeds, validation and pool. For a config that draws no rows one
    value is all that there is."""
    training: tuple[int, ...] = (0, 1, 2)
    """Values of `random_seed`: weights, order of rows, folds, and which errors are drawn."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, values in self:
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)}: one seed at least, none below 0, each once")
        return self


class Limits(Settings):
    """The `limits` section: how much of this machine, or of a cluster, a sweep takes at once."""

    cores: int = Field(0, ge=0)
    """Cores for all points together; 0: all that this process may use."""
    memory_gib: float = Field(0.0, ge=0)
    """GiB of memory for all points together; 0: what the machine has available when the sweep starts."""
    points: int = Field(0, ge=0)
    """Points at once; 0: as many as fit. In a cluster, where cores and memory are its own affair, 0 is all of them."""


class PointSettings(Settings):
    """The `point` section: what one run takes on this machine."""

    cores: int = Field(1, ge=1)
    """Its threads: OMP_NUM_THREADS is set to it."""
    memory_gib: float = Field(2.0, gt=0)
    """Its memory at its peak, in GiB. A finished point of the sweep that took more corrects it upwards."""


class SweepSettings(Settings):
    """A sweep file."""

    name: str = Field(pattern=NAME)
    """Lower-case letters, digits, dashes and underscores: what the sweep's runs in a cluster begin with."""
    configs: tuple[str, ...] = Field(min_length=1)
    """Shipped configs' names, or YAML files, relative ones as seen from the sweep file."""
    set: dict[str, Any] = Field(default={})
    """Settings laid over every config, `section.key: value` as with `--set`."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Each arm by name, with the settings laid over a config for it; none: `{}`."""
    baseline: str = ""
    """The arm that the others are compared with, paired by seeds; empty: the first."""
    seeds: Seeds = Seeds()
    limits: Limits = Limits()
    point: PointSettings = PointSettings()
    runner: Literal["process", "subprocess", "docker"] = "process"
    """As `llm2llm run --runner`."""
    keep: Literal["report", "all"] = "report"
    """What a finished point leaves on this machine: its report, summary, manifest, config and log, or its models and
    rows too."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        import re

        for arm, overrides in self.arms.items():
            if not re.fullmatch(NAME, arm):
                raise ValueError(f"arms.{arm}: a name is lower-case letters, digits, dashes and underscores")
            for key in {*overrides, *self.set} & {DATA_SEED, TRAINING_SEED, "name"}:
                raise ValueError(f"{key}: set by the sweep; give random seeds in `seeds`, and remove it from `{arm}`")
        if self.baseline and self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is no arm; there are {', '.join(self.arms)}")
        if twice := [one for one, count in Counter(self.configs).items() if count > 1]:
            raise ValueError(f"configs: {twice[0]!r} stands twice")
        return self

    @property
    def compared_with(self) -> str:
        """The name of the baseline arm."""
        return self.baseline or next(iter(self.arms))


def shipped_sweeps() -> dict[str, Path]:
    """The sweep files that come with llm2llm, by name."""
    folder = Path(str(resources.files("llm2llm.pipelines"))) / "sweeps"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_sweep(source: str, overrides: Iterable[str] = ()) -> tuple[SweepSettings, Path]:
    """Reads a sweep file.

    Args:
        source: A YAML file, or the name of a shipped sweep.
        overrides: `section.key=value` each, laid over what the file's `set` lays over its configs; arms still win.

    Returns:
        The settings, and the folder that relative configs are seen from.

    Raises:
        UserError: No such file, not YAML, or a wrong key or value, by name.
    """
    path, shipped = Path(source), shipped_sweeps()
    if source in shipped and not path.is_file():
        path = shipped[source]
    elif not path.exists():
        raise UserError(
            f"{source}: no such file, and no shipped sweep ({', '.join(shipped)}){did_you_mean(source, shipped)}"
        )
    values = read_mapping(path, source, "a sweep")
    laid = dict(read_override(override) for override in overrides)
    if laid and isinstance(values.get("set", {}), dict):
        values["set"] = {**values.get("set", {}), **laid}
    sweep = SweepSettings.load(values, path.name)
    for key in laid:
        if all(key in arm for arm in sweep.arms.values()):
            raise UserError(f"--set {key}: every arm of {source} sets it itself, so this changes nothing")
    return sweep, path.resolve().parent
