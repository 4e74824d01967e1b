"""Every object against the schema of its kind: Kubernetes' own for three versions, and those of custom resources."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

from tests.manifests.render import Resource, missing

VERSIONS = ("1.33", "1.35", "1.37")
"""The oldest, a middle and the newest Kubernetes that the manifests are held against."""
PUBLISHED = {"external-secrets.io", "karpenter.sh", "karpenter.k8s.aws", "keda.sh", "monitoring.coreos.com"}
"""The API groups whose models are an npm package (models/package.json)."""

_HERE = Path(__file__).parent
_MODELS = _HERE.parents[1] / "build" / "models"


@functools.cache
def own_schemas() -> dict[str, jsonschema.Draft202012Validator]:
    """Validators by `group/version/Kind`, from schemas/*.yaml."""
    found = {}
    for path in sorted((_HERE / "schemas").glob("*.yaml")):
        for kind, schema in yaml.safe_load(path.read_text()).items():
            jsonschema.Draft202012Validator.check_schema(schema)
            found[kind] = jsonschema.Draft202012Validator(schema)
    return found


def problems(resources: Sequence[Resource]) -> list[str]:
    """What is wrong, a sentence for each; a kind that nothing knows is wrong too."""
    found: list[str] = []
    published = []
    for resource in resources:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        group = resource["apiVersion"].rpartition("/")[0]
        if group in PUBLISHED:
            published.append(resource)
        elif validator := own_schemas().get(f"{resource['apiVersion']}/{resource['kind']}"):
            found += [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(resource)]
        else:
            found += [f"{name}: {sentence}" for sentence in _kubernetes(json.dumps(resource, sort_keys=True))]
    return found + (_models(published) if published else [])


@functools.cache
def _kubernetes(resource: str) -> tuple[str, ...]:
    """Problems of a built-in kind, in each of the versions; overlays share most objects, so each is checked once."""
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(json.loads(resource), version, strict=True)
        except kubernetes_validate.ValidationError as problem:
            found.append(f"Kubernetes {version}: {'.'.join(map(str, problem.path))}: {problem.message}")
        except kubernetes_validate.SchemaNotFoundError as problem:
            found.append(f"Kubernetes {version}: {problem.message}")
    return tuple(found)


def _models(resources: Sequence[Resource]) -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        missing("node and npm are not installed, with which custom resources are held against their published models")
    _MODELS.mkdir(parents=True, exist_ok=True)
    lock = (_HERE / "models" / "package-lock.json").read_text()
    installed = _MODELS / "installed.json"  # written last: its presence means that the install completed
    if not installed.exists() or installed.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / "models" / name, _MODELS / name)
        quiet = {**os.environ, "npm_config_loglevel": "error", "npm_config_audit": "false", "npm_config_fund": "false"}
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts"], cwd=_MODELS, env=quiet, capture_output=True, text=True, check=False
        )
        if done.returncode:
            missing(f"npm cannot install the published models: {done.stderr.strip()}")
        installed.write_text(lock)
    shutil.copy(_HERE / "models" / "validate.mjs", _MODELS / "validate.mjs")
    done = subprocess.run(
        [node, "validate.mjs"], cwd=_MODELS, input=json.dumps(resources), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sentences: list[str] = json.loads(done.stdout)
    return sentences
