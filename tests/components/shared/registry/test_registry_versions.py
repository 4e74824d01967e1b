"""Versions: whole, immutable, the same for the same student; a pointer that never loses a move."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.digests import of_config, of_grading, of_ids
from llm2llm.components.shared.registry.overview import list_registry
from llm2llm.components.shared.registry.production import Generation, current, generations, move, rolled_back, way_back
from llm2llm.components.shared.registry.records import Answers, Record, TrainedOn, from_document, to_document
from llm2llm.components.shared.storage.folders import MANIFEST
from tests.support.registry_makers import CONFIG, SEEDS, VALIDATION, files, keep, model_folder


def test_a_candidate_becomes_a_version_with_the_same_files(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run-1", tmp_path / "model", lambda i: i < 50)
    assert version.startswith("colours-")
    assert versions.versions(registry) == []
    versions.enter(registry, "run-1", version)
    assert versions.versions(registry) == [version]
    uri = versions.find_version(registry, version)
    storage.download_folder(uri, tmp_path / "back")
    ours = set(versions.OURS)
    assert {name: data for name, data in files(tmp_path / "back").items() if name not in ours} == {
        name: data for name, data in files(tmp_path / "model").items() if name != "README.md"
    }
    assert files(tmp_path / "back").keys() >= ours
    assert versions.read_document(uri, Answers).correct == {row.id: i < 50 for i, row in enumerate(VALIDATION)}
    assert versions.read_document(uri, TrainedOn).seeds == sorted(row.id for row in SEEDS)
    # Entered again, by the same run or another that has the same student, it stays as it is.
    before = storage.read_bytes(storage.join(uri, MANIFEST))
    keep(registry, "run-2", tmp_path / "model", lambda i: i < 50, content=b"run-1")
    versions.enter(registry, "run-2", version)
    assert storage.read_bytes(storage.join(uri, MANIFEST)) == before
    assert versions.candidates(registry) == ["run-1", "run-2"]


def test_weights_that_go_in_parts_arrive_as_they_are(registry: str, tmp_path: Path) -> None:
    weights = os.urandom(1 << 20) * 20 + b"end"
    version = keep(registry, "run", tmp_path / "model", lambda i: True, content=weights)
    versions.enter(registry, "run", version)
    assert storage.read_bytes(storage.join(versions.version_uri(registry, version), "model.safetensors")) == weights


def test_other_weights_answers_or_rows_are_another_version(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    names = {
        keep(registry, "run", tmp_path / "a", lambda i: i < 50),
        keep(registry, "run", tmp_path / "a", lambda i: i < 51, content=b"run"),
        keep(registry, "run", tmp_path / "a", lambda i: i < 50, content=b"other"),
        keep(registry, "run", tmp_path / "a", lambda i: i < 50, training=SEEDS[1:]),
    }
    assert len(names) == 4
    assert versions.candidates(registry) == ["run"], "each takes the place of the one before"


def test_what_a_killed_copy_left_is_completed_or_out_of_the_way(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run", tmp_path / "model", lambda i: True)
    if storage.is_remote(registry):
        half = versions.version_uri(registry, version)
    else:
        half = str(Path(registry) / "versions" / f".{version}.partial-1")
    storage.write_bytes(storage.join(half, "config.json"), b"half")
    assert versions.versions(registry) == []
    versions.enter(registry, "run", version)
    assert versions.versions(registry) == [version]
    storage.download_folder(versions.find_version(registry, version), tmp_path / "back")
    assert (tmp_path / "back" / "config.json").read_bytes() == (tmp_path / "model" / "config.json").read_bytes()


def test_what_a_cut_off_removal_left_is_completed(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run", tmp_path / "model", lambda i: True)
    versions.enter(registry, "run", version)
    uri = versions.version_uri(registry, version)
    for name in (MANIFEST, "chat/template.jinja", "config.json"):
        storage.delete(storage.join(uri, name))
    versions.enter(registry, "run", version)
    storage.download_folder(versions.find_version(registry, version), tmp_path / "back")
    assert (tmp_path / "back" / "config.json").is_file()


def test_a_candidate_that_was_replaced_is_not_taken_for_the_one_that_was_seen(registry: str, tmp_path: Path) -> None:
    seen = keep(registry, "run", tmp_path / "model", lambda i: i < 50)
    keep(registry, "run", tmp_path / "model", lambda i: i < 60, content=b"better", iteration=1)
    with pytest.raises(UserError, match=f"the candidate of run run is no longer {seen}"):
        versions.enter(registry, "run", seen)
    assert versions.versions(registry) == []


def test_a_candidate_that_is_replaced_while_it_is_copied_makes_no_version(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = keep(registry, "run", tmp_path / "model", lambda i: i < 50, content=b"first!")
    checked = versions.damage

    def replaced(uri: str) -> str:
        found = checked(uri)
        if "/candidates/" in uri:
            keep(registry, "run", tmp_path / "model", lambda i: i < 50, content=b"second")
        return found

    monkeypatch.setattr(versions, "damage", replaced)
    with pytest.raises(UserError, match=f"the candidate of run run is no longer {seen}"):
        versions.enter(registry, "run", seen)
    assert versions.versions(registry) == []


def test_what_a_killed_upload_left_is_no_candidate(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    keep(registry, "run", tmp_path / "model", lambda i: True)
    shutil.copytree(tmp_path / "registry/candidates/run", tmp_path / "registry/candidates/.run.partial-7")
    assert versions.candidates(registry) == ["run"]
    assert [one["run"] for one in list_registry(registry)["candidates"]] == ["run"]


@pytest.mark.parametrize(
    ("manifest", "what"),
    [(b'{"version": 1, "fi', "is no manifest"), (b'{"version": 2, "files": {}}', "has version 2, this llm2llm reads")],
)
def test_a_version_whose_manifest_cannot_be_read_is_listed_as_damaged(
    tmp_path: Path, manifest: bytes, what: str
) -> None:
    registry = str(tmp_path / "registry")
    version = keep(registry, "run", tmp_path / "model", lambda i: True)
    versions.enter(registry, "run", version)
    storage.write_bytes(storage.join(versions.version_uri(registry, version), MANIFEST), manifest)
    (found,) = list_registry(registry)["versions"]
    assert what in found["damage"]
    with pytest.raises(UserError, match=f"version {version} is damaged: .*{what}"):
        versions.find_version(registry, version)


def test_a_damaged_version_is_named_with_its_file(registry: str, tmp_path: Path) -> None:
    version = keep(registry, "run", tmp_path / "model", lambda i: True)
    versions.enter(registry, "run", version)
    weights = storage.join(versions.version_uri(registry, version), "model.safetensors")
    storage.write_bytes(weights, b"r")
    with pytest.raises(UserError, match=r"damaged: .*model\.safetensors: has 1 bytes instead of 3"):
        versions.find_version(registry, version)
    storage.delete(weights)
    with pytest.raises(UserError, match=r"damaged: .*model\.safetensors: is missing"):
        versions.find_version(registry, version)
    with pytest.raises(UserError, match=f"no version 'colours-1' in .*; there are {version}"):
        versions.find_version(registry, "colours-1")
    wrong = version[:-1] + ("0" if version[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"did you mean '{version}'"):
        versions.find_version(registry, wrong)
    with pytest.raises(UserError, match="no version"):
        versions.find_version(registry, "../production")


@pytest.mark.parametrize(("gone", "what"), [("config.json", "no student"), ("model.safetensors", "no weights")])
def test_only_students_in_safetensors_enter(tmp_path: Path, gone: str, what: str) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / gone).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match=what):
        versions.store_candidate(str(tmp_path / "registry"), "run", folder, {})
    assert not (tmp_path / "registry").exists()


def test_pickled_weights_stay_outside(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    registry = str(tmp_path / "registry")
    keep(registry, "run", folder, lambda i: True)
    assert "training_args.bin" not in storage.read_manifest(versions.candidate_uri(registry, "run"))


def test_a_run_cannot_write_elsewhere(tmp_path: Path) -> None:
    for run in ("../production", "a/b", "", ".hidden", "a\n"):
        with pytest.raises(UserError, match="the id of a run"):
            versions.candidate_uri(str(tmp_path), run)


def test_documents_come_back_and_newer_fields_are_passed_over(tmp_path: Path) -> None:
    keep(str(tmp_path), "run", tmp_path / "model", lambda i: i < 7)
    uri = versions.candidate_uri(str(tmp_path), "run")
    for kind in (Record, Answers, TrainedOn):
        found = versions.read_document(uri, kind)
        newer = to_document(found).replace(b'{\n "', b'{\n "a_field_of_tomorrow": [1],\n "', 1)
        assert from_document(kind, newer, "there") == found
    with pytest.raises(UserError, match="there: damaged: field 'correct'"):
        from_document(Answers, b'{"schema_version": 1, "graded_with": "x", "correct": [1]}', "there")
    with pytest.raises(UserError, match="there: has schema version 2"):
        from_document(Answers, b'{"schema_version": 2}', "there")
    with pytest.raises(UserError, match="there: damaged: not JSON"):
        from_document(Answers, b"{", "there")


def test_a_config_is_the_same_wherever_its_rows_and_runs_lie() -> None:
    here = CONFIG | {
        "train": {"epochs": 3, "words": "/home/a/out/inputs/1f/words.txt"},
        "teacher_augment": {},
        "evaluate": {"judge": {"model": "m"}},
    }
    there = CONFIG | {
        "name": "other", "images": {"cpu": "x"}, "promote": {"registry": "y"}, "placement": {},
        "data": {"seeds": "/elsewhere"},
        "train": {"epochs": 3, "words": "/mnt/b/1f/words.txt", "checkpoint_uri": "/out/2/checkpoints"},
        "teacher_augment": {"ledger": "/out/2/ledger"},
        "evaluate": {"judge": {"model": "m", "ledger": "/out/2/ledger"}},
    }  # fmt: skip
    assert of_config(here) == of_config(there)
    assert of_config(CONFIG) != of_config(CONFIG | {"train": {"epochs": 4}})
    assert of_config(CONFIG) != of_config(CONFIG | {"data": {"pool": "pool.jsonl"}})
    assert of_grading(CONFIG) == of_grading(CONFIG | {"evaluate": {"batch_size": 4}, "train": {}})
    assert of_grading(CONFIG) != of_grading(CONFIG | {"evaluate": {"mode": "score"}})
    assert of_ids(["b", "a"]) == of_ids(["a", "b"]) != of_ids(["ab"])


def test_the_pointer_moves_once_for_each_state(registry: str) -> None:
    assert current(registry) is None
    first = move(registry, to="a-1", kind="promote", after=None, run="run", verdict={"reason": "ü"})
    assert first is not None
    assert current(registry) == first
    assert move(registry, to="b-1", kind="promote", after=None) is None, "decided on what is no longer so"
    second = move(registry, to="b-1", kind="promote", after=first)
    assert second is not None
    assert (second.number, second.previous) == (2, "a-1")
    assert generations(registry) == [first, second]
    assert first.verdict == {"reason": "ü"}


def test_a_lost_or_damaged_generation_is_named(tmp_path: Path) -> None:
    registry = str(tmp_path)
    after = None
    for _ in range(3):
        after = move(registry, to="a-1", kind="promote", after=after)
    os.unlink(tmp_path / "production" / "000002")
    with pytest.raises(UserError, match="generation 2 is gone"):
        generations(registry)
    (tmp_path / "production" / "000003").write_bytes((tmp_path / "production" / "000001").read_bytes())
    with pytest.raises(UserError, match="000003: damaged: it says that it is generation 1"):
        current(registry)


def moves(*steps: tuple[str, str]) -> list[Generation]:
    return [
        Generation(number=i + 1, kind=kind, version=version, previous=None, run=None, at="")
        for i, (kind, version) in enumerate(steps)
    ]


def test_rollbacks_go_further_back_and_not_forth_again() -> None:
    history = moves(("promote", "a"), ("promote", "b"), ("promote", "c"), ("rollback", "b"))
    assert way_back(history) == ["a", "b"]
    assert rolled_back(history) == {"c": 4}
    history = [*history, *moves(("rollback", "a"))]
    assert way_back(history) == ["a"]
    assert rolled_back(history).keys() == {"b", "c"}
    back = [*history, *moves(("rollback", "c"))]
    assert way_back(back) == ["a", "c"]
    assert rolled_back(back).keys() == {"b"}
    by_hand = [*history, *moves(("by_hand", "b"))]
    assert rolled_back(by_hand).keys() == {"c"}


@given(st.lists(st.tuples(st.sampled_from(["promote", "rollback", "by_hand"]), st.sampled_from("abcd"))))
def test_the_way_back_ends_in_production(steps: list[tuple[str, str]]) -> None:
    history = moves(*steps)
    way = way_back(history)
    assert way[-1:] == [version for _, version in steps][-1:]
    assert not {*way} & rolled_back(history).keys()
    assert {*way} | rolled_back(history).keys() == {version for _, version in steps}
