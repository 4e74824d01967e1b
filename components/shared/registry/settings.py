"""What can be set about the registry and promotion; `promote` and `detect_changes` share it."""

import re
from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.tasks import AnyTask

Slice = Literal["label", "skills"]


class Guard(Settings):
    """Rows of another task, which a student is asked to see what it has forgotten: a file with its task, or a task of
    lm-eval."""

    file: str = ""
    """A file of rows or a data set, as `data.test`. A hundred rows and more tell a loss of 10 points from chance."""
    task: AnyTask | None = None
    """The task of the rows in `file`: a shipped one's name, or a task of your own."""
    lm_eval: str = Field("", pattern=r"^$|^[\w./~ -]+$")
    """In place of `file` and `task`: a task or group of EleutherAI's lm-eval, such as `arc_easy` or `mmlu`, or the YAML
    file of a task of your own. The stage needs the package lm-eval, and the network or a filled HF_HOME."""
    metric: str = Field("", pattern=r"^\w*$")
    """`lm_eval` only: the measure that says whether a document's answer is right, such as `acc_norm`. Empty: `acc`, or
    else `exact_match`."""
    limit: int = Field(0, ge=0)
    """`lm_eval` only: how many documents of each task are asked, from the first; 0: all."""
    max_loss: float = Field(0.05, ge=0, le=1)
    """The share of these rows that the student may answer worse than the model that it was fine-tuned from: 0.05 is 5
    points."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.lm_eval:
            if self.file or self.task is not None:
                raise ValueError("lm_eval stands in place of file and task; remove it, or them")
            return self
        if not self.file:
            raise ValueError("file: missing; name rows (file, task), or a task of lm-eval (lm_eval)")
        if self.task is None:
            raise ValueError("task: missing; say what task the rows of file are of")
        for key in ("metric", "limit"):
            if getattr(self, key):
                raise ValueError(f"{key}: only for lm_eval; remove it")
        return self

    @property
    def name(self) -> str:
        """What reports call it."""
        return PurePath(self.lm_eval).name if self.task is None else self.task.name


class CardSettings(Settings):
    """What a person says of the student; the rest of its model card is measured."""

    license: str = Field("", pattern=r"^$|^[a-z0-9][a-z0-9.+-]*$")
    """The licence of the delivered weights, as the Hugging Face Hub writes it, such as apache-2.0, llama3.2 or other.
    The licence of the model that was fine-tuned, and the teacher's terms, decide what it may be. Empty: the card names
    none."""
    language: list[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]] = Field(default=[])
    """Languages of the rows, by their codes (ISO 639): [en] or [de, fr]."""
    intended_use: str = Field("", max_length=10_000)
    """Who is meant to use it, and for what."""
    out_of_scope: str = Field("", max_length=10_000)
    """What it is not meant for."""


class ServeSettings(Settings):
    """How KServe serves the version in production; see components/promote/README.md."""

    kind: Literal["none", "inference_service", "llm_inference_service"] = "none"
    """`inference_service`: an InferenceService with KServe's Hugging Face runtime, which uses vLLM where it can; an
    adapter is loaded beside its base model by `--lora-modules`. `llm_inference_service`: an LLMInferenceService (KServe
    0.19 or newer for adapters). `none`: no manifest is made."""
    apply: bool = False
    """Whether a promotion applies the manifest to the cluster, and a rollback too. Otherwise it is only written, to
    `serving/` in the registry."""
    storage_uri: str = ""
    """Where the cluster reads a version from, with {version} and, if needed, {name}:
    `pvc://CLAIM/registry/versions/{version}`, `model-registry://{name}/{version}`, or `s3://...`. Empty: where the
    registry is, which must then be s3://."""
    name: str = Field("", pattern=r"^$|^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")
    """The service's name; empty: made from the config's name."""
    namespace: str = Field("", pattern=r"^$|^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Empty: the one that the stage runs in."""
    runtime: str = Field("", pattern=r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """`inference_service` only: the serving runtime; empty: the one that KServe chooses for Hugging Face models."""
    service_account: str = Field("", pattern=r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Whose secret opens the storage; empty: KServe's own way."""
    base_model: str = Field("", pattern=r"^$|^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    """The Hugging Face name of an adapter's base model; empty: the student that was fine-tuned."""
    args: list[str] = Field(default=[])
    """Further arguments of the server, such as [--max-model-len=2048]."""
    gpus: int = Field(1, ge=0, le=64)
    """GPUs of each replica; 0: none."""
    cpu: str = Field("", pattern=r"^$|^[1-9][0-9]*m?$")
    """CPUs of each replica, such as 4 or 500m; empty: the runtime's own."""
    memory: str = Field("", pattern=r"^$|^[1-9][0-9]*[MG]i$")
    """Memory of each replica, such as 16Gi; empty: the runtime's own."""
    replicas: int = Field(1, ge=0, le=1000)
    """The least number of replicas."""
    canary: int = Field(100, ge=1, le=100)
    """`inference_service` only: the percentage of the requests that a newly promoted version is given, beside the one
    before; `llm2llm registry serve --share` raises it. Needs KServe's Knative mode. A rollback takes all at once."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "none":
            if self.apply:
                raise ValueError("apply: there is no manifest to apply; set kind, or remove apply")
            return self
        if self.storage_uri:
            schemes = SCHEMES[self.kind]
            if not self.storage_uri.startswith(schemes):
                raise ValueError(
                    f"storage_uri: {self.storage_uri!r}, and {self.kind} reads {', '.join(schemes)} only; correct it"
                )
            if "{version}" not in self.storage_uri:
                raise ValueError("storage_uri: every version would be the same one; put {version} where it belongs")
            if re.search(r"[{}]", re.sub(r"{(version|name)}", "", self.storage_uri)):
                raise ValueError("storage_uri: {version} and {name} are all that is filled in; remove other braces")
        if self.kind == "llm_inference_service":
            if self.canary < 100:
                raise ValueError("canary: an LLMInferenceService has no canary share; use inference_service, or 100")
            if self.runtime:
                raise ValueError("runtime: an LLMInferenceService has none; remove it")
        return self


SCHEMES: dict[str, tuple[str, ...]] = {
    "inference_service": ("s3://", "pvc://", "model-registry://"),
    "llm_inference_service": ("s3://", "pvc://"),
}
"""Where each kind reads a version from."""


class PromoteSettings(Settings):
    """The `promote` section of a config."""

    registry: str = ""
    """Folder or s3:// prefix of the registry; empty: no student is promoted."""
    mode: Literal["report_only", "promote"] = "report_only"
    """`report_only` says whether the best student would enter production, and leaves the registry's pointer as it is;
    `llm2llm registry promote` can still move it by hand. `promote` moves it."""
    test: Literal["bootstrap", "mcnemar"] = "bootstrap"
    """How a student must be better than the one in production, on the same validation rows. `bootstrap`: the paired
    bootstrap interval of the difference lies above 0; on fewer than 50 rows, where it is too narrow, the p-value must
    be below `level` as well. `mcnemar`: McNemar's exact test gives a p-value below `level`; for another `task.metric`
    than the accuracy a permutation test takes its place."""
    level: float = Field(0.05, gt=0, lt=1)
    """The test's two-sided level: 0.05 takes a 95% interval, or a p-value below 0.05. The best of several students of a
    run must also be better by a permutation test at this level that allows for the choice."""
    min_gain: float = Field(0.0, ge=0, lt=1)
    """The least gain on validation, by `task.metric`, as a share: 0.01 is one point."""
    max_slice_drop: float = Field(0.05, ge=0, le=1)
    """No slice of the validation rows may fall by more than this share of its rows, beyond chance: of many small slices
    some always fall, whatever the student."""
    slice_level: float = Field(0.05, gt=0, le=1)
    """How seldom a student that is worse on no slice is refused for one: a slice has fallen beyond chance when the
    one-sided p-value of McNemar's exact test, adjusted by Holm's method for all slices, is at most this. 1: any fall of
    more than `max_slice_drop` refuses."""
    min_slice_rows: int = Field(20, ge=1)
    """Slices with fewer rows are reported and block nothing: one answer moves them too far."""
    slices: list[Slice] = Field(default=["label", "skills"])
    """What a slice is: the rows with one right answer (`label`; classification and multiple choice), the rows with one
    skill (`skills`; where rows have skills). Empty: no slices."""
    guards: list[Guard] = Field(default=[])
    """Forgetting: sets of rows of other tasks, such as `[{file: general.jsonl, task: {name: general, form: text}}]`,
    or tasks of lm-eval, such as `[{lm_eval: arc_easy}]`. Before a promotion the student and the model that it was
    fine-tuned from are asked them, and a student that has lost more than `max_loss` of a set, beyond chance (as
    `slice_level` has it), is refused. Empty: nothing is asked."""
    only_if_new: bool = False
    """Whether a run ends early when seeds, config and the pool or replay rows that it uses are those that the version
    in production was made from. Fixed when the pipeline is compiled."""
    hub_repo: str = Field("", pattern=r"^$|^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """`owner/name`: a promoted student is also pushed to this repository of the Hugging Face Hub, with a token from
    HF_TOKEN. Empty: it is not."""
    hub_private: bool = True
    """Whether the repository is made private where it has to be made."""
    model_registry_url: str = ""
    """Address of a Kubeflow Model Registry, such as http://model-registry-service.kubeflow:8080: a promoted student is
    also entered there, with the token that the service account mounts. Empty: it is not."""
    card: CardSettings = CardSettings()
    """What the model card says besides what was measured: `license`, `language`, `intended_use`, `out_of_scope`."""
    serve: ServeSettings = ServeSettings()
    """Serving by KServe: `kind`, `apply`, `storage_uri`, `canary` and others. The manifest is written to `serving/` in
    the registry."""

    @model_validator(mode="after")
    def _needs_a_registry(self) -> Self:
        for key in ("only_if_new", "hub_repo", "model_registry_url", "guards"):
            if getattr(self, key) and not self.registry:
                raise ValueError(f"{key} needs promote.registry: set the folder or s3:// prefix, or remove {key}")
        if self.serve.kind != "none":
            if not self.registry:
                raise ValueError("serve.kind needs promote.registry: set the folder or s3:// prefix, or remove serve")
            if not self.serve.storage_uri and not self.registry.startswith(("s3://", "minio://")):
                raise ValueError(
                    f"serve.storage_uri: the registry {self.registry!r} is a folder, which a cluster cannot read; give "
                    "pvc://CLAIM/folder/{version} or another place that holds the versions"
                )
        if self.model_registry_url and not self.model_registry_url.startswith(("http://", "https://")):
            raise ValueError("model_registry_url: an address starts with http:// or https://")
        if len(set(self.slices)) < len(self.slices):
            raise ValueError(f"slices: each once, got {self.slices}")
        return self
