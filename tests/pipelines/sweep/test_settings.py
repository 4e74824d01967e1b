"""Sweep files: typed, refused by name, and expanded into points."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.sweep.points import expand
from llm2llm.pipelines.sweep.settings import load_sweep, shipped_sweeps
from tests.support.sweeps import sweep_of


def written(folder: Path, **values: Any) -> Path:
    given = {"name": "mine", "configs": ["quickstart"], "arms": {"plain": {}}, **values}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"arm": {}}, "mine.yaml: arm: unknown key; did you mean 'arms'?"),
        ({"seeds": {"traning": [1]}}, "mine.yaml: seeds.traning: unknown key; did you mean 'training'?"),
        ({"arms": {}}, "mine.yaml: arms: "),
        ({"arms": {"A b": {}}}, "arms.A b: a name is lower-case"),
        ({"baseline": "other"}, "baseline 'other' is no arm; there are plain"),
        ({"seeds": {"training": [1, 1]}}, "training [1, 1]: one seed at least, none below 0, each once"),
        ({"arms": {"plain": {"random_seed": 3}}}, "random_seed: set by the sweep"),
        ({"set": {"prepare.random_seed": 3}}, "prepare.random_seed: set by the sweep"),
        ({"configs": ["snips", "snips"]}, "configs: 'snips' stands twice"),
        ({"limits": {"cores": -1}}, "mine.yaml: limits.cores: "),
    ],
)
def test_a_wrong_sweep_file_is_refused_by_key_and_value(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_sweep(str(written(tmp_path, **values)))
    assert said in str(refused.value)


def test_a_sweep_that_is_not_there_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file, and no shipped sweep \(.*\); did you mean 'selection'"):
        load_sweep("selectio")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(UserError, match="a sweep is a mapping of keys to values"):
        load_sweep(str(tmp_path / "list.yaml"))


def test_every_pair_of_seeds_is_a_point_of_every_arm_and_config(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        configs=["quickstart", "own.yaml"],
        arms={"a": {}, "b": {"train.epochs": 2, "filter_errors": {"selection": "all"}}},
        seeds={"data": [3, 5], "training": [0, 7]},
        set={"prepare.seed_count": 48},
    )
    own = yaml.safe_load((Path(__file__).parents[3] / "pipelines" / "configs" / "quickstart.yaml").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**own, "name": "own"}))
    points = expand(*load_sweep(str(path)))
    assert len(points) == len({point.key for point in points}) == 2 * 2 * 2 * 2
    order = ["a", "b", "a"]
    assert [point.arm for point in points[:3]] == order, "the arms of one pair of seeds run one after the other"
    loaded = next(p for p in points if (p.config, p.arm, p.data_seed, p.training_seed) == ("own", "b", 5, 7))
    config = loaded.loaded(resolve=True)
    assert (config.prepare.random_seed, config.random_seed, config.prepare.seed_count) == (5, 7, 48)
    assert (config.train.epochs, config.filter_errors.selection) == (2, "all")


def test_a_changed_setting_is_another_point() -> None:
    (before,) = expand(sweep_of(["plain"], seeds={"training": [0]}), Path())
    (after,) = expand(sweep_of(["plain"], seeds={"training": [0]}, set={"train.epochs": 11}), Path())
    (again,) = expand(sweep_of(["plain"], seeds={"training": [0]}, limits={"points": 3}), Path())
    as_it_is = {"train.warmup": 0.03}
    (said,) = expand(sweep_of(["plain"], seeds={"training": [0]}, set=as_it_is), Path())
    assert before.key != after.key
    assert before.key == again.key, "limits are no part of it"
    assert before.key == said.key, "nor is what is at its default, as a later version's new settings will be"


def test_numbers_and_texts_arrive_as_they_were_written() -> None:
    values = {"train.learning_rate": 1e-05, "task.description": "no: 'really', [so]", "max_iterations": 2}
    (point,) = expand(sweep_of(["plain"], seeds={"training": [0]}, set=values), Path())
    config = point.loaded(resolve=True)
    assert config.train.learning_rate == 1e-05
    assert config.task.description == "no: 'really', [so]"
    assert config.max_iterations == 2


def test_what_is_set_on_the_command_line_lies_under_the_arms_and_over_the_file(tmp_path: Path) -> None:
    arms = {"plain": {}, "long": {"train.epochs": 9}}
    path = written(tmp_path, arms=arms, set={"train.epochs": 2, "max_iterations": 1}, seeds={"training": [0]})
    given = ("train.epochs=3", "task.columns={question: text, answer: intent}")
    sweep, folder = load_sweep(str(path), given)
    loaded = {point.arm: point.loaded(resolve=True) for point in expand(sweep, folder)}
    plain, long = loaded["plain"], loaded["long"]
    assert (plain.train.epochs, long.train.epochs, plain.max_iterations) == (3, 9, 1)
    assert plain.task.columns.question == "text"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "--set train.epochs: expected section.key=value"),
        ("train.epochs=[", "the value is not YAML"),
        ("random_seed=3", "random_seed: set by the sweep"),
        ("filter_errors.selection=hard", "every arm of .* sets it itself, so this changes nothing"),
    ],
)
def test_a_wrong_value_on_the_command_line_is_refused(override: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, arms={"a": {"filter_errors.selection": "all"}, "b": {"filter_errors.selection": "wrong"}})
    with pytest.raises(UserError, match=said):
        load_sweep(str(path), [override])


def test_data_seeds_need_rows_that_are_drawn() -> None:
    """Otherwise every data seed would be the same run, and the interval have no width."""
    with pytest.raises(UserError, match=r"seeds.data \[0, 1\]: quickstart draws no rows"):
        expand(sweep_of(["plain"], seeds={"data": [0, 1]}), Path())


def test_a_wrong_override_names_its_arm() -> None:
    with pytest.raises(UserError, match=r"arm 'odd' of quickstart: .*train.epoch: unknown key; did you mean 'epochs'"):
        expand(sweep_of([], arms={"odd": {"train.epoch": 1}}), Path())


def test_two_configs_of_one_name_are_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "pipelines" / "configs" / "quickstart.yaml").read_text()
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"'one.yaml' and 'two.yaml' have the same name, 'quickstart'"):
        expand(*load_sweep(str(written(tmp_path, configs=["one.yaml", "two.yaml"]))))


@pytest.mark.parametrize("name", shipped_sweeps())
def test_shipped_sweeps_are_whole(name: str) -> None:
    sweep, folder = load_sweep(name)
    points = expand(sweep, folder)
    assert len(points) == len(sweep.configs) * len(sweep.arms) * len(sweep.seeds.data) * len(sweep.seeds.training)
    assert "/" not in "".join(sweep.configs), "shipped configs only: no path of anybody's machine"
