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
from llm2llm.components.shared.base.kubernetes_api import connect, own_namespace
from llm2llm.components.shared.base.process import POD_VARIABLE
from llm2llm.components.shared.registry.card import with_promotion
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.registry.records import CARD, Record
from llm2llm.components.shared.registry.serving import follow_promotion
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import read_document, version_uri

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105  # the name of the variable
AUTHOR = "llm2llm"


def check_publishers(settings: PromoteSettings) -> None:
    """Refuses what could not be published, before anything is decided.

    Raises:
        UserError: A package is missing, a token, or a cluster.
    """
    if settings.hub_repo:
        if find_spec("huggingface_hub") is None:
            raise UserError(
                "promote.hub_repo: this needs the package huggingface_hub: pip install 'llm2llm[train]', or remove it"
            )
        if not (token := _token()):
            raise UserError(
                f"promote.hub_repo: {TOKEN_VARIABLE} is not set: mount a token that may write, or remove it"
            )
        if not (token.isascii() and token.isprintable()):  # the client would quote it in its error
            raise UserError(f"promote.hub_repo: {TOKEN_VARIABLE} holds what no token can: copy the token again")
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


def _token() -> str:
    """Without the line break that a secret made from a file ends in."""
    return os.environ.get(TOKEN_VARIABLE, "").strip()


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
    from huggingface_hub import CommitOperationAdd, HfApi

    from llm2llm.components.shared.storage import download_folder

    repo, version = settings.hub_repo, generation.version
    api = HfApi(token=_token())
    with TemporaryDirectory(prefix="llm2llm-hub-") as folder:
        at = Path(folder) / version
        download_folder(version_uri(registry, version), at)
        card = at / CARD
        card.write_text(with_promotion(card.read_text(encoding="utf-8"), version, generation), encoding="utf-8")
        files = sorted(path for path in at.rglob("*") if path.is_file())
        try:
            api.create_repo(repo, private=settings.hub_private, exist_ok=True)
            commit = api.create_commit(
                repo,
                [CommitOperationAdd(path.relative_to(at).as_posix(), str(path)) for path in files],
                commit_message=f"{version}, promoted by run {generation.run}",
            )
            api.create_tag(repo, tag=version, revision=commit.oid, exist_ok=True)
        except Exception as problem:
            # The Hub's client speaks through requests, httpx or httpx2, by its version: what they raise has no common
            # ancestor. The first line only: what follows can quote the request.
            first = str(problem).strip().partition("\n")[0] or type(problem).__name__
            raise UserError(
                f"{version} is in production, but was not pushed to {repo} on the Hub: {first}; check promote.hub_repo "
                f"and {TOKEN_VARIABLE}, and run the stage again"
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
