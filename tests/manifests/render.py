"""Kubernetes objects as kustomize renders them."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = tuple(sorted(path.name for path in (MANIFESTS / "overlays").iterdir() if path.is_dir()))
COMPONENTS = tuple(sorted(path.name for path in (MANIFESTS / "components").iterdir() if path.is_dir()))

Resource = dict[str, Any]


def missing(what: str) -> NoReturn:
    """Skips the test, or fails it where nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@functools.cache
def kustomize_command() -> tuple[str, ...]:
    """What renders: `kustomize` 5 or newer, or `kubectl` 1.27 or newer, which has it built in; () if neither is there.

    Kustomize 4 drops a ConfigMap of config.kubernetes.io/local-config before components can read settings from it.
    Debian's build calls itself `(devel)`; Debian has no kustomize older than 5.
    """
    unpacked = MANIFESTS.parent / "build" / "tools" / "usr" / "bin" / "kustomize"  # by tools.sh
    kustomize = os.environ.get("KUSTOMIZE") or shutil.which("kustomize") or shutil.which(unpacked)
    if kustomize:
        text = subprocess.run([kustomize, "version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v(\d+)\.", text)
        if "(devel)" in text or (found and int(found[1]) >= 5):
            return (kustomize, "build")
    kubectl = shutil.which("kubectl")
    if kubectl:
        text = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"Kustomize Version: v(\d+)\.", text)
        if found and int(found[1]) >= 5:
            return (kubectl, "kustomize")
    return ()


def render(folder: Path) -> list[Resource]:
    """The objects of a kustomization."""
    command = kustomize_command()
    if not command:
        missing("neither kustomize 5 nor kubectl 1.27 is installed; tests/manifests/tools.sh installs one on Debian")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Kustomize is silent when all is well; what it warns of is deprecated.
    assert not done.stderr, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@functools.cache
def _overlay(name: str) -> str:
    return json.dumps(render(MANIFESTS / "overlays" / name))


def overlay(name: str) -> list[Resource]:
    """The objects of an overlay, rendered once; the caller may change them."""
    rendered: list[Resource] = json.loads(_overlay(name))
    return rendered


def with_components(
    folder: Path, components: Sequence[str], settings_of_mine: Mapping[str, str] | None = None
) -> list[Resource]:
    """The objects of base and components, with settings that name every key; `folder` is an empty one to work in."""
    keys: dict[str, str] = {}
    for settings in sorted((MANIFESTS / "overlays").glob("*/settings.yaml")):
        keys |= yaml.safe_load(settings.read_text())["data"]
    keys |= {"profile-owner": "owner@example.org", "proxy-cidr": "10.0.9.9/32", "proxy-port": "8080"}
    keys |= settings_of_mine or {}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "annotations": {"config.kubernetes.io/local-config": "true"}},
        "data": keys,
    }
    # Kustomize takes relative paths only.
    up = Path(os.path.relpath(MANIFESTS.resolve(), folder.resolve()))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(up / "base"), "settings.yaml"],
        "components": [str(up / "components" / name) for name in (*components, "settings")],
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(config_map))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def patched(folder: Path, resources: Sequence[Resource], component: Path) -> list[Resource]:
    """Objects of somebody else's, with a component of ours on them; `folder` is an empty one to work in."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["theirs.yaml"],
        "components": [os.path.relpath(component.resolve(), folder.resolve())],
    }
    (folder / "theirs.yaml").write_text(yaml.safe_dump_all(resources))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)
