"""How KServe serves the version in production: its manifest, beside the versions, and what a cluster is told.

    <registry>/serving/<version>.yaml      an InferenceService or LLMInferenceService, as `kubectl apply` takes it

Promotion writes it (`follow_promotion`); whoever moves the pointer by hand has it follow (`follow_by_hand`), with the
settings that the manifest of the version before keeps in an annotation. The registry's generation is an annotation as
well: the cluster never goes back to an older one, so two that move the pointer at once end with the newer.

Sources: kserve/kserve, config/crd (serving.kserve.io/v1beta1 InferenceService, v1alpha1 LLMInferenceService),
python/huggingfaceserver (`--model_id`, `--lora-modules`, `--task`), docs/samples/llmisvc/lora-adapters.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.kubernetes_api import Passing, Refusals, ask, connect
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.registry.records import Record
from llm2llm.components.shared.registry.settings import SCHEMES, ServeSettings
from llm2llm.components.shared.registry.versions import read_document, version_uri
from llm2llm.components.shared.storage import NotThere, join, read_bytes, write_bytes

FOLDER = "serving"
GENERATION, VERSION, SETTINGS = "llm2llm/generation", "llm2llm/version", "llm2llm/serve"
"""Annotations."""
ADAPTER = "student"
"""The model's name in requests, where it is an adapter; full weights go by the service's name."""
MOUNT = "/mnt/models"
"""Where KServe puts what `storageUri` names."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the highest rank of an adapter."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_GROUP = "serving.kserve.io"
_KINDS = {
    "inference_service": ("InferenceService", "v1beta1", "inferenceservices"),
    "llm_inference_service": ("LLMInferenceService", "v1alpha1", "llminferenceservices"),
}
TRIES = 6
ROUNDS = 10
"""How often a manifest is applied anew because somebody changed the object at the same moment."""


def manifest_uri(registry: str, version: str) -> str:
    """Where the manifest of a version is."""
    return join(registry, FOLDER, f"{version}.yaml")


def manifest_of(registry: str, generation: Generation, settings: ServeSettings, share: int = 100) -> dict[str, Any]:
    """The manifest that serves the version of a generation.

    Args:
        registry: Folder or s3:// prefix.
        generation: Which version, and the number that is annotated.
        settings: With a `kind`.
        share: Percentage of the requests; the rest stays with what was rolled out before.

    Raises:
        UserError: The version is damaged, where it is cannot be read from a cluster, or its base model is not known.
    """
    uri = version_uri(registry, generation.version)
    record = read_document(uri, Record)
    kind, api_version, _ = _KINDS[settings.kind]
    if record.head == "classifier" and settings.kind != "inference_service":
        raise UserError(
            f"promote.serve.kind: {generation.version} is a classifier, and a {kind} serves language models; set it to "
            "inference_service"
        )
    name = settings.name or service_name(record.name)
    source = _source(uri, record, generation.version, settings)
    metadata: dict[str, Any] = {
        "name": name,
        **({"namespace": settings.namespace} if settings.namespace else {}),
        "labels": {"app.kubernetes.io/managed-by": "llm2llm"},
        "annotations": {
            GENERATION: str(generation.number),
            VERSION: generation.version,
            SETTINGS: json.dumps(settings.model_dump(mode="json", exclude_defaults=True), sort_keys=True),
        },
    }
    spec = (
        _inference_service(uri, record, source, settings, share)
        if settings.kind == "inference_service"
        else _llm_inference_service(uri, record, name, source, settings)
    )
    return {"apiVersion": f"{_GROUP}/{api_version}", "kind": kind, "metadata": metadata, "spec": spec}


def service_name(name: str) -> str:
    """A config's name as Kubernetes and a host name take it: 40 characters at most."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"m-{plain}")[:40].strip("-")


def _source(uri: str, record: Record, version: str, settings: ServeSettings) -> str:
    source = settings.storage_uri.replace("{version}", version).replace("{name}", record.name) or uri
    source = re.sub(r"^minio://", "s3://", source)
    if not source.startswith(SCHEMES[settings.kind]):
        raise UserError(f"promote.serve.storage_uri: {uri} cannot be read from a cluster; set it to where versions are")
    return source


def _inference_service(uri: str, record: Record, source: str, settings: ServeSettings, share: int) -> dict[str, Any]:
    arguments = [*settings.args]
    if record.head == "classifier":
        arguments = [*_classifying(uri), *arguments]
    if record.adapter:
        arguments = [
            f"--model_id={_base(record, settings)}", "--enable-lora", f"--lora-modules={ADAPTER}={MOUNT}",
            f"--max-lora-rank={_rank(uri)}", *arguments,
        ]  # fmt: skip
    model = {
        "modelFormat": {"name": "huggingface"},
        **({"runtime": settings.runtime} if settings.runtime else {}),
        "storageUri": source,
        **({"args": arguments} if arguments else {}),
        **_resources(settings),
    }
    return {
        "predictor": {
            "minReplicas": settings.replicas,
            "canaryTrafficPercent": share,
            **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
            "model": model,
        }
    }


def _classifying(uri: str) -> list[str]:
    """How KServe's server is told to read texts and answer as the student was trained to: without vLLM, which is for
    models that write; with probabilities in place of a label's number; texts in lower case (the server's default) only
    where the tokenizer has it so, and cut where the training cut them."""
    try:
        tokenizer = json.loads(read_bytes(join(uri, "tokenizer_config.json")))
        longest = int(tokenizer["model_max_length"])
    except (NotThere, ValueError, KeyError, TypeError):
        raise UserError(f"{uri}: tokenizer_config.json says no length: restore the version from a copy") from None
    return [
        "--task=sequence_classification",
        "--backend=huggingface",
        "--return_probabilities",
        f"--max_model_len={longest}",
        *([] if tokenizer.get("do_lower_case") else ["--disable_lower_case"]),
    ]


def _llm_inference_service(uri: str, record: Record, name: str, source: str, settings: ServeSettings) -> dict[str, Any]:
    model: dict[str, Any] = {"uri": source, "name": name}
    if record.adapter:
        lora = {"maxRank": _rank(uri), "adapters": [{"name": ADAPTER, "uri": source}]}
        model = {"uri": f"hf://{_base(record, settings)}", "name": name, "lora": lora}
    container = {"name": "main", **({"args": [*settings.args]} if settings.args else {}), **_resources(settings)}
    account = {"serviceAccountName": settings.service_account} if settings.service_account else {}
    return {
        "model": model,
        "replicas": settings.replicas,
        "router": {"gateway": {}, "route": {}, "scheduler": {}},
        **({"template": {**account, "containers": [container]}} if account or len(container) > 1 else {}),
    }


def _resources(settings: ServeSettings) -> dict[str, Any]:
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    requests = {name: amount for name, amount in amounts.items() if amount}
    limits = requests | ({"nvidia.com/gpu": str(settings.gpus)} if settings.gpus else {})
    return {"resources": {"requests": limits, "limits": limits}} if limits else {}


def _base(record: Record, settings: ServeSettings) -> str:
    base = settings.base_model or record.student
    if base == "scratch" or not _HUB_NAME.fullmatch(base):
        raise UserError(
            f"promote.serve.base_model: the student is an adapter of {base!r}, which a server cannot fetch "
            "from the Hub; set it to the base model's Hugging Face name, or train full weights"
        )
    return base


def _rank(uri: str) -> int:
    """The smallest rank of vLLM's that holds an adapter's."""
    try:
        rank = int(json.loads(read_bytes(join(uri, "adapter_config.json")))["r"])
    except (NotThere, ValueError, KeyError, TypeError):
        raise UserError(f"{uri}: adapter_config.json names no rank: restore the version from a copy") from None
    return next((most for most in RANKS if most >= rank), rank)


def write_manifest(registry: str, manifest: Mapping[str, Any]) -> str:
    """Writes a manifest beside the versions, and returns where.

    Raises:
        UserError: It cannot be written.
    """
    uri = manifest_uri(registry, manifest["metadata"]["annotations"][VERSION])
    write_bytes(uri, yaml.safe_dump(dict(manifest), sort_keys=False, width=1000).encode())
    return uri


def follow_promotion(registry: str, generation: Generation, settings: ServeSettings) -> None:
    """Writes the manifest of a version that a run brought to production, and applies it where that is asked for.

    Raises:
        UserError: It could not be. The promotion stands; the stage, tried again, does the rest.
    """
    if settings.kind != "none":
        _follow(registry, generation, settings, settings.canary if generation.previous else 100, "promote")


def follow_by_hand(registry: str, generation: Generation) -> None:
    """The same after the pointer was moved by hand, with the settings of the version before; nothing where that was not
    served. A rollback takes all requests at once.

    Raises:
        UserError: It could not be. The pointer has moved.
    """
    settings = served_with(registry, generation.previous) if generation.previous else None
    if settings is not None:
        share = 100 if generation.kind == "rollback" else settings.canary
        _follow(registry, generation, settings, share, "registry")


def roll_out(registry: str, generation: Generation, share: int) -> None:
    """Gives the version in production another share of the requests, in percent.

    Raises:
        UserError: It is not served, or not in shares, or the cluster cannot be told.
    """
    settings = served_with(registry, generation.version)
    if settings is None:
        raise UserError(f"{generation.version} is not served; set promote.serve.kind, and promote it")
    if share < 100 and settings.kind != "inference_service":
        raise UserError("--share: an LLMInferenceService has no canary share; leave it out")
    _follow(registry, generation, settings, share, "registry")


def served_with(registry: str, version: str) -> ServeSettings | None:
    """The settings by which a version was served last; None where it never was.

    Raises:
        UserError: Its manifest is damaged.
    """
    uri = manifest_uri(registry, version)
    try:
        manifest = yaml.safe_load(read_bytes(uri))
        return ServeSettings.model_validate_json(manifest["metadata"]["annotations"][SETTINGS])
    except NotThere:
        return None
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        raise UserError(f"{uri}: no manifest that llm2llm wrote; move it away, and promote again") from None


def _follow(registry: str, generation: Generation, settings: ServeSettings, share: int, who: str) -> None:
    try:
        manifest = manifest_of(registry, generation, settings, share)
        uri = write_manifest(registry, manifest)
        named = f"{manifest['kind']} {manifest['metadata']['name']}"
        print(f"{who}: {named} of {generation.version} is written to {uri}", flush=True)
        if settings.apply:
            said = apply_manifest(manifest, settings)
            print(f"{who}: {named} {said}", flush=True)
    except (UserError, Passing) as problem:
        raise UserError(f"{generation.version} is in production, but is not served: {problem}") from None


def apply_manifest(manifest: Mapping[str, Any], settings: ServeSettings) -> str:
    """Makes the object, or has it become what the manifest says; what others put on it besides `spec` stays.

    Returns:
        What came of it, for a person. An object of a newer generation is left alone.

    Raises:
        UserError: No cluster, a role that is missing, no KServe, or a manifest that the cluster refuses.
        Passing: The API is out of reach.
    """
    found = connect()
    if found is None:
        raise UserError(
            "promote.serve.apply: there is no cluster here: run in one, or set KUBECONFIG; or apply the manifest with "
            "kubectl"
        )
    _, custom, namespace = found
    namespace = settings.namespace or namespace
    kind, version, plural = _KINDS[settings.kind]
    refusals = Refusals(
        key="promote.serve.apply",
        who="this account",
        role="apply manifests/components/serving, and run as llm2llm-runs",
        missing=f"the cluster knows no {kind}s ({{said}}); install KServe",
        namespace=namespace,
    )
    place, name = (_GROUP, version, namespace, plural), manifest["metadata"]["name"]
    number = int(manifest["metadata"]["annotations"][GENERATION])
    made = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    for _ in range(ROUNDS):
        there = ask(
            refusals, f"see {plural}", custom.get_namespaced_custom_object, *place, name, missing=None, tries=TRIES
        )
        if there is None:
            create = custom.create_namespaced_custom_object
            if ask(refusals, f"make {plural}", create, *place, made, taken=None, tries=TRIES) is not None:
                return f"is made in {namespace}"
            continue
        newest = _generation_of(there)
        if newest > number:
            return f"is left alone: it serves generation {newest} by now, and this is {number}"
        metadata = dict(there["metadata"])
        for key in ("labels", "annotations"):
            metadata[key] = {**(metadata.get(key) or {}), **manifest["metadata"][key]}
        # With its resourceVersion, so that what somebody else changed meanwhile is a conflict.
        changed = {**there, "metadata": metadata, "spec": manifest["spec"]}
        replace = custom.replace_namespaced_custom_object
        if ask(refusals, f"change {plural}", replace, *place, name, changed, taken=None, tries=TRIES) is not None:
            return f"is changed in {namespace}"
    raise Passing(f"{kind} {name} was changed by others {ROUNDS} times in a row")


def _generation_of(there: Mapping[str, Any]) -> int:
    try:
        return int(there["metadata"]["annotations"][GENERATION])
    except (KeyError, TypeError, ValueError):
        return 0  # somebody else made it
