"""A promoted student for others: on the Hugging Face Hub, in a Kubeflow Model Registry, served by KServe. All off by
default.

Each is done again without harm: a stage that is tried again after a broken push ends it.
"""

import os
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hub import TOKEN_VARIABLE, check_hub, push_files
from llm2llm.components.shared.base.kubernetes_api import connect, own_namespace
from llm2llm.components.shared.base.process import POD_VARIABLE
from llm2llm.components.shared.registry.card import with_promotion
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.registry.records import CARD, Record
from llm2llm.components.shared.registry.serving import follow_promotion
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import read_document, version_uri

AUTHOR = "llm2llm"


def check_publishers(settings: PromoteSettings) -> None:
    """Refuses what could not be published, before anything is decided.

    Raises:
        UserError: A package is missing, a token, or a cluster.
    """
    if settings.hub_repo:
        check_hub("promote.hub_repo")
    if settings.model_registry_url and find_spec("model_registry") is None:
        raise UserError(
            "promote.model_registry_url: this needs the package model-registry: pip install 'model-registry>=0.3', or "
            "remove it"
        )
    if settings.serve.apply and connect() is None:
        raise UserError(
            "promote.serve.apply: there is no cluster here: run in one, or set KUBECONFIG; without apply the manifest "
            "is only written"
        )


def publish(registry: str, generation: Generation, settings: PromoteSettings) -> None:
    """Publishes the version that a generation brought to production wherever the settings say.

    Raises:
        UserError: It could not be. The promotion stands; the stage, tried again, publishes again.
    """
    if settings.hub_repo:
        _push_to_hub(registry, generation, settings)
    if settings.model_registry_url:
        _enter_model_registry(registry, generation, settings)
    follow_promotion(registry, generation, settings.serve)


def _push_to_hub(registry: str, generation: Generation, settings: PromoteSettings) -> None:
    from llm2llm.components.shared.storage import download_folder

    repo, version = settings.hub_repo, generation.version
    with TemporaryDirectory(prefix="llm2llm-hub-") as folder:
        at = Path(folder) / version
        download_folder(version_uri(registry, version), at)
        card = at / CARD
        card.write_text(with_promotion(card.read_text(encoding="utf-8"), version, generation), encoding="utf-8")
        files = sorted(path for path in at.rglob("*") if path.is_file())
        try:
            push_files(
                repo,
                {path.relative_to(at).as_posix(): path for path in files},
                f"{version}, promoted by run {generation.run}",
                "model",
                settings.hub_private,
                tag=version,
            )
        except UserError as problem:
            raise UserError(
                f"{version} is in production, but was {problem}; check promote.hub_repo and {TOKEN_VARIABLE}, and run "
                "the stage again"
            ) from None
    print(f"promote: pushed {version} to {repo} on the Hub", flush=True)


def _source(record: Record, generation: Generation) -> dict[str, str]:
    """Where the model comes from, as Kubeflow's Model Registry tells it; nothing outside Kubeflow.

    Source: kubeflow/model-registry, clients/python: a pipeline's run is of kind `kfp` and class `pipelinerun`.
    """
    if POD_VARIABLE not in os.environ or not generation.run:
        return {}
    source = {"kind": "kfp", "class": "pipelinerun", "id": generation.run, "name": record.name}
    with suppress(OSError):
        source["group"] = own_namespace()
    return {f"model_source_{name}": value for name, value in source.items()}


def _enter_model_registry(registry: str, generation: Generation, settings: PromoteSettings) -> None:
    # By its name, as type checkers find no such package where nobody uses it.
    client: Any = import_module("model_registry")
    uri, version = version_uri(registry, generation.version), generation.version
    record = read_document(uri, Record)
    metadata: dict[str, Any] = {
        "run": generation.run or "",
        "iteration": record.iteration,
        "base_model": record.student,
        "config_digest": record.config_digest,
        "llm2llm": record.code,
        **{f"{split}_accuracy": score.accuracy for split, score in sorted(record.accuracy.items())},
    }
    try:
        server = client.ModelRegistry(settings.model_registry_url, author=AUTHOR)
        known = server.get_registered_model(record.name) is not None
        found = server.get_model_version(record.name, version) if known else None
        form = _source(record, generation)
        form |= {"model_format_name": "peft" if record.adapter else "safetensors", "model_format_version": "1"}
        if found is None:
            server.register_model(
                record.name,
                uri,
                version=version,
                version_description=str((generation.verdict or {}).get("reason", "")),
                metadata=metadata,
                **form,
            )
        elif server.get_model_artifact(record.name, version) is None:
            # An earlier try broke off between the two. `register_model` refuses a version that is there, and the client
            # has no public call for its artifact alone.
            artifact = import_module("model_registry.types").ModelArtifact(name=record.name, uri=uri, **form)
            server.async_runner(server._api.upsert_model_version_artifact(artifact, found.id))
    except Exception as problem:
        # The client is made of generated code over aiohttp: what it raises has no common ancestor.
        raise UserError(
            f"{version} is in production, but was not entered in the model registry at {settings.model_registry_url} "
            f"({type(problem).__name__}): check promote.model_registry_url and the service account's token, and run "
            "the stage again"
        ) from None
    print(f"promote: entered {version} in the model registry at {settings.model_registry_url}", flush=True)
