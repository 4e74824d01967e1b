"""The `placement` section of a config: where the stages of a pipeline run, and what they get beside their inputs.

    placement:
      profile: gke
      env: {HTTPS_PROXY: "http://proxy.example.org:3128"}
      stages:
        train: {accelerator: nvidia-h100-80gb, gpus: 2, spot: true}

All of this is compiled in; a run in another pool is another version of the pipeline, which `submit --set placement...`
compiles and uploads by itself. Kubeflow could take selectors and tolerations as parameters (`add_node_selector_json`).
It looks for them among the inputs of the sub-graph around a task, so every nested iteration would hand them down, and
executors that are now one for all iterations would differ by depth; a selector given so replaces all others, that of
spot nodes too.
"""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from llm2llm.components.shared.base.errors import did_you_mean
from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config.placement_parts import (
    Accelerator,
    CaBundle,
    ConfigMapVariable,
    ModelCache,
    SecretVariable,
    Spot,
    Toleration,
    TrainJobs,
)
from llm2llm.pipelines.config.placement_values import (
    CA_VARIABLES,
    cache_variables,
    check_environment,
    check_image,
    check_quantity,
    seconds,
    total_seconds,
)


class StagePlacement(Settings):
    """What one stage asks of the cluster."""

    cpu: str = "1"
    """CPUs that it is promised."""
    cpu_limit: str = ""
    """The most CPUs that it may use; empty: no limit, so that idle cores are not wasted."""
    memory: str = "4Gi"
    """Memory: both what it is promised and the most that it may use."""
    scratch: str = ""
    """Size of the volume at /tmp, for temporary files, checkpoints and downloaded models. Empty: 10Gi, and what the
    student's size asks for in stages that load it (100Gi where its name does not say how large it is)."""
    downloads: str = ""
    """Size of the volume that KFP's launcher downloads inputs to, and that outputs lie in until they are uploaded. A
    stage that fills it is evicted. Empty: as for `scratch`."""
    shm: str = ""
    """Shared memory at /dev/shm, which PyTorch's processes speak through; counts against `memory`. Empty: none of its
    own."""
    accelerator: str = ""
    """The kind of GPU node, one of the profile's `accelerators`; empty: none."""
    gpus: int = Field(0, ge=0)
    """How many GPUs."""
    spot: bool = False
    """Whether it runs on spot nodes. Whether an interrupted stage is tried again depends on the cluster; `llm2llm
    preflight --cluster` says."""
    node_selector: dict[str, str] = {}
    """Further labels that its node must have."""
    tolerations: list[Toleration] = []
    """Further taints that its node may have."""
    timeout: str = "1h"
    """After this long a try is ended."""
    retries: int = Field(2, ge=0, le=20)
    """How often it is tried again at most, where the cluster tries it again. KFP up to 2.16, as shipped, does so after
    a failure (exit code, out of memory, eviction) and not after a pod vanished; 2.17 the other way round.
    manifests/administrator makes both count."""
    backoff: str = "60s"
    """The wait before the first retry; each further one is twice as long."""
    image: str = ""
    """An image of its own, in place of that of `images`."""
    queue: str = ""
    """The Kueue LocalQueue that admits it; empty: none."""
    priority: str = ""
    """The Kueue WorkloadPriorityClass; needs `queue`."""
    labels: dict[str, str] = {}
    """Further labels of its pod."""
    annotations: dict[str, str] = {}
    """Further annotations of its pod."""
    env: dict[str, str] = {}
    """Environment variables of this stage, laid over `placement.env`. Never a secret: those are `placement.secrets`."""

    @field_validator("memory", "scratch", "downloads", "shm")
    @classmethod
    def _is_quantity(cls, value: str, info: Any) -> str:
        return check_quantity(value, may_be_empty=info.field_name != "memory")

    @field_validator("cpu", "cpu_limit")
    @classmethod
    def _is_cpu(cls, value: str, info: Any) -> str:
        if not (info.field_name == "cpu_limit" and not value) and not re.fullmatch(r"\d+m|\d+(\.\d+)?", value):
            raise ValueError("CPUs are a number such as 4 or 0.5, or millicores such as 500m")
        return value

    @field_validator("timeout", "backoff")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if bool(self.accelerator) != bool(self.gpus):
            raise ValueError(
                f"accelerator {self.accelerator!r} and gpus {self.gpus} belong together: set both, or neither"
            )
        total_seconds(self.retries, seconds(self.timeout), seconds(self.backoff))
        if self.priority and not self.queue:
            raise ValueError(f"priority {self.priority!r} is Kueue's and needs queue; set queue, or remove priority")
        if self.image:
            check_image(self.image)
        check_environment(self.env)
        return self


class PlacementSettings(Settings):
    """The `placement` section of a config, and what a profile's file holds. Fixed when the pipeline is compiled."""

    profile: str = ""
    """The kind of cluster: gke, eks, aks, onprem or kind; empty: only what is set here is said about stages."""
    accelerators: dict[str, Accelerator] = {}
    """The GPU nodes that there are, by a name of your choice."""
    spot: Spot | None = None
    """What marks spot nodes; None: there are none."""
    defaults: dict[str, Any] = {}
    """What every stage asks, but for what `stages` says."""
    stages: dict[str, StagePlacement] = {}
    """What each stage asks."""
    secrets: list[SecretVariable] = []
    """Environment variables from Secrets, such as the teacher's key."""
    config_maps: list[ConfigMapVariable] = []
    """Environment variables from ConfigMaps, such as the cluster's proxy."""
    env: dict[str, str] = {}
    """Environment variables of every stage, such as HTTPS_PROXY or AWS_ENDPOINT_URL. They are compiled in, where
    everybody reads them: never a secret."""
    ca_bundle: CaBundle | None = None
    """Certificates of a private authority; None: those of the image."""
    model_cache: ModelCache | None = None
    """Where weights are kept between stages; None: each stage downloads them."""
    model_stages: list[str] = []
    """The stages that load models, and so mount `model_cache`; empty: as the config's other sections say."""
    image_pull_secrets: list[str] = []
    """Secrets with which images are pulled."""
    image_pull_policy: Literal["", "IfNotPresent", "Always", "Never"] = ""
    """Whether images are pulled again; empty: as the cluster does."""
    user: int = Field(65532, ge=1)
    """The uid and gid of every container; that of the images. Without a profile it counts where it is set, and in
    stages that `stages` names."""
    service_account: str = ""
    """The Kubernetes service account that runs run as, unless `llm2llm submit` is given another; the profiles name that
    of manifests/. Empty: Kubeflow's own default, which may do nearly everything in its namespace."""
    deadline: str = ""
    """After this long, such as 48h, a run is ended, whatever it does; waits for nodes count. Empty: never. Needs
    Kubeflow Pipelines 2.17 or newer; older ones refuse the pipeline, or end nothing."""
    keep_finished: str = ""
    """How long a finished run's Workflow stays in the cluster, with its pods, such as 24h. Artifacts, scores and the
    run in Kubeflow's own list stay. Empty: as the cluster does (one hour with the manifests of 2.17). Needs Kubeflow
    Pipelines 2.17 or newer."""
    train_jobs: TrainJobs = TrainJobs()
    """How several nodes train together; only for `train.nodes` above 1."""

    @field_validator("deadline", "keep_finished")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        if value and seconds(value) > 2**31 - 1:
            raise ValueError("at most 596523h, as Kubernetes counts seconds in 32 bits")
        return value

    @model_validator(mode="after")
    def _fit(self) -> Self:
        named = [(f"secrets.{one.env}", one.stages) for one in self.secrets if one.stages != "hub"]
        named += [(f"config_maps.{one.env}", one.stages) for one in self.config_maps]
        for where, names in (*named, ("model_stages", self.model_stages), ("stages", list(self.stages))):
            for name in names:
                if name not in STAGES:
                    raise ValueError(
                        f"{where}: no stage {name!r}{did_you_mean(name, STAGES)}; stages are {', '.join(STAGES)}"
                    )
        self._check_variables()
        self._check_nodes()
        if not self.profile:
            self._check_effect()
        return self

    def _check_variables(self) -> None:
        """Refuses a variable that two keys would set."""
        check_environment(self.env)
        ours = set(CA_VARIABLES if self.ca_bundle else ())
        ours |= cache_variables(self.model_cache.path, self.model_cache.fill).keys() if self.model_cache else set()
        secrets, config_maps = {one.env for one in self.secrets}, {one.env for one in self.config_maps}
        given = {"env": set(self.env), "secrets": secrets, "config_maps": config_maps}
        given |= {f"stages.{name}.env": set(wanted.env) for name, wanted in self.stages.items()}
        for where, names in given.items():
            elsewhere = {"ca_bundle or model_cache": ours}
            if where != "secrets":
                elsewhere["secrets"] = secrets
            if where not in ("secrets", "config_maps"):
                elsewhere["config_maps"] = config_maps
            for other, theirs in elsewhere.items():
                if twice := sorted(names & theirs):
                    raise ValueError(f"{where}: {twice[0]} is set by {other} as well; remove one of the two")

    def _check_nodes(self) -> None:
        for name, wanted in self.stages.items():
            if not wanted.accelerator:
                continue
            if wanted.accelerator not in self.accelerators:
                raise ValueError(
                    f"stages.{name}.accelerator: no accelerator {wanted.accelerator!r}"
                    f"{did_you_mean(wanted.accelerator, self.accelerators)}; there are "
                    f"{', '.join(sorted(self.accelerators)) or 'none: this profile has no GPU nodes'}"
                )
            has = self.accelerators[wanted.accelerator].per_node
            if wanted.gpus > has:
                raise ValueError(
                    f"stages.{name}.gpus: {wanted.gpus}, and no node with {wanted.accelerator} has more than {has}; "
                    "lower gpus, or raise accelerators.*.per_node if yours have more"
                )
        if self.spot is None and (wrong := [name for name, wanted in self.stages.items() if wanted.spot]):
            raise ValueError(f"stages.{wrong[0]}.spot: the profile {self.profile!r} names no spot nodes; set spot")

    def _check_effect(self) -> None:
        """Refuses what would be dropped without a word where there is no profile."""
        used = {wanted.accelerator for wanted in self.stages.values()}
        idle = {
            "accelerators": bool(self.accelerators.keys() - used),
            "spot": self.spot is not None and not any(wanted.spot for wanted in self.stages.values()),
            "train_jobs": self.train_jobs != TrainJobs() and "train" not in self.stages,
        }
        if dropped := [name for name, is_idle in idle.items() if is_idle]:
            raise ValueError(
                f"{dropped[0]}: no stage uses it, and there is no profile whose stages would: set profile, or name the "
                "stage in stages"
            )
