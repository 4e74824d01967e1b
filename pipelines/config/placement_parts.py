"""Parts of the `placement` section: names of stages, kinds of nodes, secrets, certificates, the model cache."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.stages import STAGES

GRADING = ("tune", "predict", "evaluate", "out_of_fold", "controls", "promote")
"""The stages that grade answers, and ask a judge where the task has one."""
LOADS_MODELS = tuple(name for name, stage in STAGES.items() if stage.loads_models)
"""The stages that always load a model."""
MAY_LOAD_MODELS = (*LOADS_MODELS, "teacher_augment", "dedupe")
"""Those, and the ones that load a model where the config says so."""
READS_DATA = ("configure", "prepare")
"""The stages that look at the user's data, which may be on the Hugging Face Hub."""


class Toleration(Settings):
    """A taint that a pod may run beside, as in a pod's `tolerations`."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Accelerator(Settings):
    """A kind of GPU node."""

    resource: str = "nvidia.com/gpu"
    """The resource that a container asks for."""
    memory_gib: int = Field(ge=1)
    """The memory of one GPU."""
    per_node: int = Field(8, ge=1)
    """The most GPUs that one node of the kind has."""
    node_selector: dict[str, str]
    """The labels that its nodes have."""
    tolerations: list[Toleration] = []
    """The taints that its nodes have."""


class Spot(Settings):
    """What marks nodes that may be taken away."""

    node_selector: dict[str, str]
    tolerations: list[Toleration] = []


class SecretVariable(Settings):
    """An environment variable from a key of a Kubernetes Secret. The name is compiled in, the value never."""

    env: str
    """The environment variable."""
    secret: str
    """The Secret's name, in the namespace of the run."""
    key: str
    """The key in it."""
    optional: bool = False
    """Whether a pod starts without it."""
    stages: list[str] | Literal["hub"] = list(STAGES)
    """The stages that get it. `hub`: those that load models, and `configure` and `prepare` where data are on the
    Hub."""


class ConfigMapVariable(Settings):
    """An environment variable from a key of a Kubernetes ConfigMap, such as the cluster's proxy."""

    env: str
    """The environment variable."""
    config_map: str
    """The ConfigMap's name, in the namespace of the run."""
    key: str
    """The key in it."""
    optional: bool = False
    """Whether a pod starts without it."""
    stages: list[str] = list(STAGES)
    """The stages that get it."""


class CaBundle(Settings):
    """Certificates of a private authority, mounted into every stage. AWS_CA_BUNDLE, SSL_CERT_FILE and
    REQUESTS_CA_BUNDLE point to them. They replace the public authorities: a bundle holds those too where stages reach
    public addresses. KFP's launcher in the stage's container reads them as well."""

    config_map: str = ""
    """The ConfigMap that holds them, in the namespace of the run."""
    secret: str = ""
    """The Secret that holds them, in place of a ConfigMap."""
    key: str = Field("ca.crt", pattern=r"^[A-Za-z0-9._-]+$")
    """The key in it: PEM, one certificate after the other."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.config_map) == bool(self.secret):
            raise ValueError("set either config_map or secret")
        return self


class ModelCache(Settings):
    """A volume that keeps downloaded weights, so that they are pulled once. Only stages that load models mount it.

    KFP cannot mount a claim read-only. What keeps stages from changing it is its files' owner: the job of
    manifests/components/fetch-models writes them as another user than the stages'.
    """

    pvc: str
    """The PersistentVolumeClaim: ReadWriteMany, where stages run on several nodes at once."""
    path: str = "/models"
    """Where it is mounted. The Hub's files are in the folder `hub` there."""
    fill: bool = False
    """Whether stages put what they download there. False: they only read the Hub's models from it, HF_HUB_CACHE points
    there, and a student from object storage is copied to the stage's scratch volume. True: HF_HOME points there."""
    offline: bool = False
    """Whether nothing is looked for beyond it, for a network that is closed: the models are put there beforehand."""


class TrainJobs(Settings):
    """What a training on several nodes (`train.nodes` above 1) needs beside the train stage's own placement."""

    runtime: str = "torch-distributed"
    """The training runtime: the one for PyTorch that Kubeflow Trainer brings, or one of your own."""
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    """Whether it is the whole cluster's, or the namespace's own."""
    service_account: str = "llm2llm-train"
    """What the workers run as: it opens object storage, and has no role in the cluster."""
