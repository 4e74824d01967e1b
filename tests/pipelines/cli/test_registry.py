"""`llm2llm registry`: what a person sees and does."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.registry import versions
from llm2llm.components.shared.registry.production import current, generations
from llm2llm.pipelines.cli.registry import registry as group
from tests.support.registry_makers import CONFIG, finish, keep


def called(*arguments: str, answer: str = "") -> Result:
    """The command's result; a UserError is raised, as `llm2llm` prints it."""
    result = CliRunner().invoke(group, list(arguments), input=answer, standalone_mode=False)
    if isinstance(result.exception, UserError | click.ClickException):
        raise result.exception
    assert result.exception is None, result.exception
    return result


@pytest.fixture
def three(tmp_path: Path) -> tuple[str, list[str]]:
    """A registry with three promoted versions and a candidate."""
    uri, found = str(tmp_path / "registry"), []
    for number, least in enumerate((40, 60, 80)):
        found.append(keep(uri, f"run-{number}", tmp_path / "model", lambda i, least=least: i < least))
        finish(uri, f"run-{number}")
    keep(uri, "run-9", tmp_path / "model", lambda i: i < 82)
    finish(uri, "run-9")
    return uri, found


def test_list_names_every_version_and_candidate(three: tuple[str, list[str]]) -> None:
    uri, found = three
    text = called("list", "--registry", uri).output
    lines = text.splitlines()
    assert lines[0] == f"{uri}: in production: {found[2]}"
    assert [line for line in lines if line.startswith("*")] == [line for line in lines if found[2] in line][1:]
    assert "80.0% (71.1% to 86.7%)" in text
    assert text.index(found[2]) < text.index(found[1]) < text.index(found[0])
    assert "promoted by run run-1, 20" in text
    assert "run-9" in text
    values = json.loads(called("list", "--registry", uri + "/", "--json").output)
    assert values["production"] == found[2]
    assert [one["version"] for one in values["versions"]] == found[::-1]
    assert [one["run"] for one in values["candidates"]] == ["run-9"]


def test_what_clean_took_away_is_listed_as_removed_and_not_as_damaged(three: tuple[str, list[str]]) -> None:
    uri, found = three
    storage.delete_folder(versions.version_uri(uri, found[0]))
    storage.delete(storage.join(versions.version_uri(uri, found[1]), "model.safetensors"))
    storage.delete_folder(versions.version_uri(uri, found[2]))
    lines = {line.split()[0]: line for line in called("list", "--registry", uri).output.replace("*", "").splitlines()
             if line.strip()}  # fmt: skip
    assert lines[found[0]].endswith("removed since")
    assert "DAMAGED: " in lines[found[1]]
    assert "DAMAGED: " in lines[found[2]], "what is in production must be there"


def test_what_a_registry_holds_cannot_command_the_terminal(tmp_path: Path) -> None:
    uri = str(tmp_path / "registry")
    version = keep(uri, "run-1", tmp_path / "model", lambda i: i < 60, config=CONFIG | {"student": "a\x1b[2Jb"})
    finish(uri, "run-1")
    text = called("show", version, "--registry", uri).output
    assert "\x1b" not in text
    assert "a\ufffd[2Jb" in text


def test_show_tells_scores_and_verdict(three: tuple[str, list[str]]) -> None:
    uri, found = three
    text = called("show", "--registry", uri).output
    assert text.startswith(f"{found[2]}: in production\n")
    assert "generation  3: promoted by run run-2" in text
    assert "better beyond chance: +20.0 points on 100 validation rows" in text
    assert called("show", found[0], "--registry", uri).output.startswith(f"{found[0]}: was in production")
    values = json.loads(called("show", found[1], "--registry", uri, "--json").output)
    assert values["verdict"]["candidate"]["version"] == found[1]
    assert values["record"]["accuracy"]["validation"]["accuracy"] == 0.6
    assert "README.md" in values["files"]


def test_show_checks_every_byte_when_asked(three: tuple[str, list[str]]) -> None:
    uri, found = three
    assert "every one as its hash says" in called("show", "--check", "--registry", uri).output
    weights = storage.join(versions.version_uri(uri, found[2]), "model.safetensors")
    data = storage.read_bytes(weights)
    storage.write_bytes(weights, b"x" * len(data))
    called("show", "--registry", uri)
    with pytest.raises(UserError, match=r"model\.safetensors was changed"):
        called("show", "--check", "--registry", uri)


def damage(uri: str, version: str) -> str:
    """Changes one byte of a version's weights, and not their size."""
    weights = storage.join(versions.version_uri(uri, version), "model.safetensors")
    data = storage.read_bytes(weights)
    storage.write_bytes(weights, data[:-1] + bytes([data[-1] ^ 1]))
    return weights


def test_verify_names_the_file_whose_hash_is_another(three: tuple[str, list[str]]) -> None:
    uri, found = three
    whole = called("verify", "--registry", uri)
    assert whole.return_value == 0
    assert [line.split(":")[0] for line in whole.output.splitlines()] == [
        f"* {found[2]}",
        f"  {found[1]}",
        f"  {found[0]}",
    ]
    weights = damage(uri, found[1])
    bad = called("verify", "--registry", uri)
    assert bad.return_value == 1
    assert f"{found[1]}: DAMAGED: version {found[1]} is damaged: {weights} was changed" in bad.output.replace("\n", "")
    assert bad.output.count("DAMAGED") == 1
    assert called("verify", found[0], "--registry", uri).return_value == 0
    values = json.loads(called("verify", found[1], "--registry", uri, "--json").output)
    assert [(one["version"], bool(one["damage"])) for one in values] == [(found[1], True)]
    with pytest.raises(UserError, match=r"no version 'colours-0' in"):
        called("verify", "colours-0", "--registry", uri)


def test_verify_finds_a_manifest_that_was_changed_with_its_file(three: tuple[str, list[str]]) -> None:
    uri, found = three
    folder = versions.version_uri(uri, found[0])
    storage.upload_folder(folder, f"{folder}-new")
    Path(f"{folder}-new/model.safetensors").write_bytes(b"others")
    Path(f"{folder}-new/MANIFEST.json").unlink()
    storage.upload_folder(f"{folder}-new", folder)
    with pytest.raises(UserError, match=f"version {found[0]} is damaged: .*MANIFEST.json is that of colours-"):
        called("show", found[0], "--check", "--registry", uri)


def test_a_file_that_was_put_beside_a_versions_own_is_found(three: tuple[str, list[str]]) -> None:
    """A loader takes an adapter_config.json that it finds, whatever the manifest says."""
    uri, found = three
    storage.write_bytes(storage.join(versions.version_uri(uri, found[1]), ".DS_Store"), b"a file manager's")
    assert called("verify", "--registry", uri).return_value == 0
    strange = storage.join(versions.version_uri(uri, found[1]), "adapter_config.json")
    storage.write_bytes(strange, b"{}")
    bad = called("verify", "--registry", uri)
    assert (bad.return_value, bad.output.count("DAMAGED")) == (1, 1)
    assert f"{strange} has been put there since it was stored; remove it" in bad.output.replace("\n", "")
    with pytest.raises(UserError, match="has been put there since"):
        called("rollback", "--registry", uri, "--yes")
    assert len(generations(uri)) == 3


def test_nothing_damaged_is_put_into_production(three: tuple[str, list[str]]) -> None:
    uri, found = three
    weights = damage(uri, found[1])
    with pytest.raises(
        UserError, match=rf"version {found[1]} is damaged: {weights} was changed.*; restore it from a copy"
    ):
        called("rollback", "--registry", uri, "--yes")
    candidate = storage.join(versions.candidate_uri(uri, "run-9"), "model.safetensors")
    storage.write_bytes(candidate, b"x" * len(storage.read_bytes(candidate)))
    with pytest.raises(UserError, match=r"model\.safetensors was changed"):
        called("promote", "run-9", "--registry", uri, "--yes")
    assert len(generations(uri)) == 3


def test_rollback_goes_back_step_by_step_and_deletes_nothing(three: tuple[str, list[str]]) -> None:
    uri, found = three
    result = called("rollback", "--registry", uri, answer="y\n")
    assert f"Put {found[1]} in its place?" in result.output
    assert f"{found[1]} is in production (generation 4), in place of {found[2]}" in result.output
    assert called("rollback", "--registry", uri, "--yes").return_value == 0
    now = current(uri)
    assert now is not None
    assert (now.version, now.kind, now.number) == (found[0], "rollback", 5)
    with pytest.raises(UserError, match="is the first version in production: there is nothing to go back to"):
        called("rollback", "--registry", uri, "--yes")
    called("rollback", found[2], "--registry", uri, "--yes")
    assert [one.version for one in generations(uri)] == [*found, found[1], found[0], found[2]]
    assert versions.versions(uri) == sorted(found)
    text = called("list", "--registry", uri).output
    assert "rolled back to" in text
    assert "; rolled back" in text


def test_rollback_asks_and_takes_no_for_an_answer(three: tuple[str, list[str]]) -> None:
    uri, _ = three
    result = called("rollback", "--registry", uri, answer="n\n")
    assert (result.return_value, "nothing was changed" in result.output) == (1, True)
    with pytest.raises(UserError, match="nobody answered, and nothing was changed; add --yes"):
        called("rollback", "--registry", uri)
    assert len(generations(uri)) == 3


def test_rollback_refuses_what_cannot_be_loaded(three: tuple[str, list[str]]) -> None:
    uri, found = three
    storage.write_bytes(storage.join(versions.version_uri(uri, found[1]), "config.json"), b"{")
    with pytest.raises(UserError, match=r"damaged: .*config\.json: has 1 bytes"):
        called("rollback", "--registry", uri, "--yes")
    assert f"DAMAGED: {versions.version_uri(uri, found[1])}/config.json" in called("list", "--registry", uri).output
    with pytest.raises(UserError, match=f"did you mean '{found[0]}'"):
        called("rollback", found[0][:-1], "--registry", uri, "--yes")
    with pytest.raises(UserError, match="is in production already"):
        called("rollback", found[2], "--registry", uri, "--yes")
    assert len(generations(uri)) == 3


def test_a_person_can_take_the_candidate_of_a_run(three: tuple[str, list[str]], tmp_path: Path) -> None:
    uri, found = three
    result = called("promote", "run-9", "--registry", uri, "--yes", "--json")
    made = json.loads(result.output)
    assert (made["kind"], made["run"], made["previous"], made["number"]) == ("by_hand", "run-9", found[2], 4)
    assert versions.find_version(uri, made["version"])
    with pytest.raises(UserError, match=r"run 'run-99' has no candidate in .*; did you mean 'run-9'"):
        called("promote", "run-99", "--registry", uri, "--yes")
    with pytest.raises(UserError, match="is in production already"):
        called("promote", "run-9", "--registry", uri, "--yes")


def test_a_candidate_that_the_run_replaces_while_a_person_is_asked_is_not_taken(
    three: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = three

    def meanwhile(*args: Any, **kwargs: Any) -> bool:
        keep(uri, "run-9", tmp_path / "model", lambda i: i < 50, iteration=1, content=b"another")
        return True

    monkeypatch.setattr(click, "confirm", meanwhile)
    with pytest.raises(UserError, match=r"the candidate of run run-9 is no longer colours-\w+: look again"):
        called("promote", "run-9", "--registry", uri)
    assert len(generations(uri)) == 3


def test_who_was_faster_is_named(three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    uri, found = three
    real = click.confirm

    def meanwhile(*args: Any, **kwargs: Any) -> bool:
        monkeypatch.setattr(click, "confirm", real)
        called("rollback", "--registry", uri, "--yes")
        return True

    monkeypatch.setattr(click, "confirm", meanwhile)
    with pytest.raises(UserError, match=f"another put {found[1]} into production at this moment .generation 4"):
        called("rollback", found[0], "--registry", uri)
    assert len(generations(uri)) == 4


@pytest.mark.parametrize("command", ["list", "show", "rollback"])
def test_a_folder_without_a_registry_is_said_to_be_none(command: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no registry"):
        called(command, "--registry", str(tmp_path))


def test_the_registry_can_come_from_the_environment(
    three: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM2LLM_REGISTRY", three[0])
    assert three[1][2] in called("list").output
    monkeypatch.delenv("LLM2LLM_REGISTRY")
    with pytest.raises(click.UsageError):
        called("list")
