"""The points of a sweep: one run each, named by its config, arm, random seeds and a hash of its settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import Config, load_config, shipped_configs
from llm2llm.pipelines.sweep.settings import DATA_SEED, TRAINING_SEED, SweepSettings


@dataclass(frozen=True)
class Point:
    """One run."""

    config: str
    """The config's name."""
    arm: str
    data_seed: int
    training_seed: int
    source: str
    """The config as `load_config` takes it."""
    overrides: tuple[str, ...]
    """Likewise."""
    key: str
    """`CONFIG/ARM/dD-tT-HASH`: a changed setting is another point, and what finished before stays as it is."""

    @property
    def label(self) -> str:
        """For a person."""
        return f"{self.config} {self.arm} data {self.data_seed} training {self.training_seed}"

    def loaded(self, resolve: bool) -> Config:
        """The config with all that the point lays over it."""
        return load_config(self.source, self.overrides, resolve)


def expand(sweep: SweepSettings, folder: Path, for_cluster: bool = False) -> list[Point]:
    """All points of a sweep, seeds varying fastest last, so that the arms of one seed are finished together.

    Args:
        folder: What relative configs are seen from.
        for_cluster: Whether paths in the configs stay as they are; see `load_config`.

    Raises:
        UserError: A config or an override is wrong; names the arm. Or data seeds for a config that draws no rows.
    """
    points: list[Point] = []
    sources: dict[str, str] = {}
    for given in sweep.configs:
        source = given if given in shipped_configs() and not (folder / given).is_file() else str(folder / given)
        for arm, overrides in sweep.arms.items():
            laid = {**sweep.set, **overrides}
            for data_seed in sweep.seeds.data:
                for training_seed in sweep.seeds.training:
                    seeds = {DATA_SEED: data_seed, TRAINING_SEED: training_seed}
                    values = tuple(_override(key, value) for key, value in {**laid, **seeds}.items())
                    try:
                        config = load_config(source, values, resolve=not for_cluster)
                    except UserError as problem:
                        raise UserError(f"arm {arm!r} of {given}: {problem}") from None
                    if sources.setdefault(config.name, given) != given:
                        raise UserError(
                            f"configs {sources[config.name]!r} and {given!r} have the same name, {config.name!r}; "
                            "rename one: it stands in the table"
                        )
                    _check_draws(config, sweep, given)
                    # A later version's new settings, at their defaults, must not make finished points others.
                    told = config.model_dump_json(exclude_defaults=True)
                    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
                    key = f"{config.name}/{arm}/d{data_seed}-t{training_seed}-{digest}"
                    points.append(Point(config.name, arm, data_seed, training_seed, source, values, key))
    return sorted(points, key=lambda point: _order(point, sweep, list(sources)))


def _order(point: Point, sweep: SweepSettings, configs: list[str]) -> tuple[int, ...]:
    return (
        configs.index(point.config),
        sweep.seeds.data.index(point.data_seed),
        sweep.seeds.training.index(point.training_seed),
        list(sweep.arms).index(point.arm),
    )


def _check_draws(config: Config, sweep: SweepSettings, given: str) -> None:
    prepare = config.prepare
    draws = prepare.seed_count or prepare.seed_fraction < 1 or not config.data.validation
    if len(sweep.seeds.data) > 1 and not draws:
        raise UserError(
            f"seeds.data {list(sweep.seeds.data)}: {given} draws no rows, so that all of them are the same run; set "
            "prepare.seed_count or leave out data.validation, or give one data seed"
        )


def _override(key: str, value: Any) -> str:
    """`key=value` with the value as YAML on one line."""
    shown = yaml.safe_dump([value], default_flow_style=True, width=10**9, allow_unicode=True).strip()
    return f"{key}={shown.removeprefix('[').removesuffix(']')}"


def sweep_record(sweep: SweepSettings, points: list[Point]) -> str:
    """What is written beside the results: the sweep as it was read, and its points."""
    record: Mapping[str, Any] = {"sweep": sweep.model_dump(mode="json"), "points": [point.key for point in points]}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
