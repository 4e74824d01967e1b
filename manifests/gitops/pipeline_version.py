"""A config's compiled pipeline as the Pipeline and PipelineVersion that a GitOps tool applies.

    python manifests/gitops/pipeline_version.py snips build/gitops
    kubectl apply --server-side -k build/gitops

For Kubeflow Pipelines 2.14 and newer in Kubernetes native mode, where pipelines are custom resources in place of rows
of a database. The folder is a kustomization, for the repository that Argo CD or Flux watches. A version's spec cannot
be changed, so its name ends in the hash of what it holds: the same config and code give the same files, and a changed
one a new version beside the old.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.kubeflow.compile import compile_checked
from llm2llm.pipelines.kubeflow.local_data import refuse_local_data

API = "pipelines.kubeflow.org/v2beta1"


def manifests(config: str, overrides: tuple[str, ...] = (), namespace: str = "llm2llm") -> list[dict[str, Any]]:
    """The Pipeline and the PipelineVersion of a config.

    Args:
        config: A file, or the name of a shipped config.
        overrides: `section.key=value` each, as of `llm2llm compile --set`.
        namespace: Where runs of the pipeline run.

    Raises:
        UserError: Whatever `load_config` and `compile_checked` find; data or a student that only this machine has.
    """
    loaded = load_config(config, overrides)
    refuse_local_data(loaded, load_config(config, overrides, resolve=True))
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compile_checked(loaded, compiled)
        spec, *platform = yaml.safe_load_all(compiled.read_text(encoding="utf-8"))
    content = {"pipelineSpec": spec, **({"platformSpec": platform[0]} if platform else {})}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    information = spec["pipelineInfo"]
    named = {"displayName": information.get("displayName", loaded.name), "description": information["description"]}
    return [
        {
            "apiVersion": API,
            "kind": "Pipeline",
            "metadata": {"name": loaded.name, "namespace": namespace},
            "spec": named,
        },
        {
            "apiVersion": API,
            "kind": "PipelineVersion",
            "metadata": {
                "name": f"{loaded.name}-{digest}",
                "namespace": namespace,
                "annotations": {
                    # After its Pipeline; and kept when a newer one takes its place, for the runs that refer to it.
                    "argocd.argoproj.io/sync-wave": "1",
                    "argocd.argoproj.io/sync-options": "Prune=false",
                    "kustomize.toolkit.fluxcd.io/prune": "disabled",
                },
            },
            "spec": {**named, "displayName": f"{loaded.name} {digest}", "pipelineName": loaded.name, **content},
        },
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config's file, or the name of a shipped one")
    parser.add_argument("output", type=Path, help="the folder to write; one that is there is replaced")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the config")
    parser.add_argument("--namespace", default="llm2llm", help="where runs run (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        resources = manifests(given.config, tuple(given.set), given.namespace)
        with atomic_folder(given.output) as folder:
            folder.mkdir(exist_ok=True)
            files = [f"{resource['kind'].lower()}.yaml" for resource in resources]
            for file, resource in zip(files, resources, strict=True):
                text = yaml.safe_dump(resource, default_flow_style=None, width=200, allow_unicode=True)
                (folder / file).write_text(text, encoding="utf-8")
            whole = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": files}
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    except UserError as problem:
        sys.exit(f"error: {problem}")
    print(f"{given.output}: {resources[1]['metadata']['name']}")


if __name__ == "__main__":
    main()
