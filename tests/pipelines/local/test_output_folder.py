"""The output folder: nobody else's files are taken, what a run made is all that `--fresh` removes, and it may move."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import Dataset
from kfp.local import cache

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local import in_process
from llm2llm.pipelines.local import run as run_module
from llm2llm.pipelines.local.kfp_cache import use_movable_cache
from llm2llm.pipelines.local.movable import OUTPUT, moved
from llm2llm.pipelines.local.run import run_local
from tests.support.small_run import finished


class Reached(Exception):
    """The run would begin here."""


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends where its stages would begin."""

    def run(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr(run_module, "_run_in_process", run)


def start(config: Path, output: Path, fresh: bool = False, overrides: tuple[str, ...] = ()) -> None:
    run_local(load_config(str(config), overrides, resolve=True), output, "process", fresh)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.docx", "student", "artifacts", "ledger", "report.html"])
def test_a_folder_with_files_of_somebody_else_is_refused(
    begins: None, small_config: Path, tmp_path: Path, name: str, fresh: bool
) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / name / "mine.txt").write_text("years of work")
    with pytest.raises(UserError, match=rf"--output .*out: not a run's folder, and files are in it, such as {name}"):
        start(small_config, tmp_path / "out", fresh)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name / "mine.txt").read_text() == "years of work"


def test_an_empty_folder_and_that_of_a_run_are_taken(begins: None, small_config: Path, tmp_path: Path) -> None:
    for name in ("lost+found", ".gitkeep"):
        (tmp_path / "out" / name).mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(Reached):
            start(small_config, tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()  # a start that was killed before it had claimed the folder
    with pytest.raises(Reached):
        start(small_config, tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"such as notes\.txt"):
        start(small_config, tmp_path / "out")


def test_fresh_removes_what_a_run_made_and_follows_no_link(begins: None, small_config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(Reached):
        start(small_config, output)
    (output / "notes.txt").write_text("mine")
    (output / "ledger").mkdir()
    (output / "ledger" / "paid.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_text("mine")
    (output / "student").symlink_to(tmp_path / "elsewhere")
    (output / "artifacts" / "left").write_text("by a run")
    with pytest.raises(Reached):
        start(small_config, output, fresh=True)
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "ledger" / "paid.json").is_file()
    assert (tmp_path / "elsewhere" / "weights").read_text() == "mine"
    assert not (output / "artifacts" / "left").exists()
    assert not (output / "student").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_student_or_data_in_the_output_folder_are_refused_by_name(
    begins: None, small_config: Path, tmp_path: Path, fresh: bool
) -> None:
    output = tmp_path / "out"
    with pytest.raises(Reached):
        start(small_config, output)
    for place in ("student", "mine/model"):
        (output / place).mkdir(parents=True)
        with pytest.raises(UserError, match=rf"student {output / place}: lies in the output folder {output}"):
            start(small_config, output, fresh, (f"student={output / place}",))
        assert (output / place).is_dir()
    (tmp_path / "link").symlink_to(output / "student")
    with pytest.raises(UserError, match=r"student .*link: lies in the output folder"):
        start(small_config, output, fresh, (f"student={tmp_path / 'link'}",))
    seeds = output / "artifacts" / "seeds.jsonl"
    seeds.write_bytes((small_config.parent / "seeds.jsonl").read_bytes())
    with pytest.raises(UserError, match=rf"data\.seeds {seeds}: lies among what a run leaves"):
        start(small_config, output, fresh, (f"data.seeds={seeds}",))
    assert seeds.is_file()


def test_a_run_goes_on_where_its_folder_was_moved_to(
    monkeypatch: pytest.MonkeyPatch, small_config: Path, tmp_path: Path
) -> None:
    """With the loop in this process, cut off after prepare: that one is not run again under the folder's new name."""
    ran: list[str] = []
    component = in_process.component

    def counted(name: str) -> Any:
        ran.append(name)
        if name == "train":
            raise Reached
        return component(name)

    monkeypatch.setattr(in_process, "component", counted)
    old, new = tmp_path / "out", tmp_path / "elsewhere" / "moved"
    with pytest.raises(Reached):
        start(small_config, old)
    assert ran == ["configure", "prepare", "train"]
    new.parent.mkdir()
    old.rename(new)
    ran.clear()
    with pytest.raises(Reached):
        start(small_config, new)
    assert ran == ["train"]
    assert str(old) not in json.dumps(json.loads((new / "run.json").read_text()))
    assert finished(new)["prepare", None]["splits"] == old / "artifacts" / "prepare" / "splits"  # as it was said then
    found = run_module.finished_stages(new)["prepare", None, None]["outputs"]["splits"]
    assert found == str(new / "artifacts" / "prepare" / "splits")


def test_kfps_cache_finds_tasks_in_a_moved_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_cache_singleton", None)
    monkeypatch.setattr(cache, "_cache_singleton_root", None)
    old, new = tmp_path / "out", tmp_path / "moved"

    def key(output: Path) -> str:
        use_movable_cache(output)
        assert cache._cache_singleton is not None
        given = {
            "settings": json.dumps({"ledger": str(output / "ledger")}),
            "rows": Dataset(uri=str(output / "a")),
            "n": 1,
        }
        return cache._cache_singleton.compute_key("train", "image", ["python", "-c", "code"], given, env_vars={})

    old.mkdir()
    (old / "a").write_text("rows")
    first = key(old)
    assert cache._cache_singleton is not None
    outputs = {
        "rows": Dataset(name="r", uri=str(old / "a"), metadata={"rows": 1}),
        "go": True,
        "s": f'{{"x":"{old}/b"}}',
    }
    cache._cache_singleton.put(first, outputs)
    old.rename(new)
    assert key(new) == first
    found = cache._cache_singleton.get(first)
    assert found is not None
    assert (found["rows"].uri, found["rows"].metadata, found["go"]) == (str(new / "a"), {"rows": 1}, True)
    assert found["s"] == f'{{"x":"{new}/b"}}'
    (new / "a").unlink()
    assert cache._cache_singleton.get(first) is None
    assert key(tmp_path / "other") == first


def test_only_places_in_the_folder_are_moved() -> None:
    value = {"a": ["/out", "/out/x", "/outer/x", "see /out/x", '{"l":"/out/x","m":"/outer"}'], "n": 1}
    there = moved(value, "/out", OUTPUT)
    assert moved(there, OUTPUT, "/out") == value
    assert moved(there, OUTPUT, "/new dir") == {
        "a": ["/new dir", "/new dir/x", "/outer/x", "see /out/x", '{"l":"/new dir/x","m":"/outer"}'], "n": 1
    }  # fmt: skip
