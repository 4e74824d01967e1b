"""Values in a placement: durations, quantities, images, environment variables."""

import re
from collections.abc import Mapping

from llm2llm.components.shared.base.process import RUN_VARIABLE

TRAIN_JOB = "LLM2LLM_TRAIN_JOB"
"""The environment variable that gives the train stage of several nodes the TrainJob that it is to make, as JSON."""
SCRATCH = "/tmp"  # noqa: S108  # the container's own, as is the next
"""Where the scratch volume is mounted, and HOME."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108
SMALLEST_VOLUME = "10Gi"
"""Size of a volume where neither the config nor the student's size says more."""
UNKNOWN_VOLUME = "100Gi"
"""Size of a volume in a stage that loads a model whose size is not known."""
CA_PATH = "/etc/llm2llm/ca"
"""Where a private authority's certificates are mounted."""
CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""What boto3 and KFP's launcher, OpenSSL and Go, and requests find certificates by."""
BACKOFF_FACTOR = 2
"""Each wait before a retry is so many times as long as the one before."""
RETRY_WINDOW = 365 * 24 * 3600
"""Seconds of `backoff.maxDuration`. Argo ends a retry that is *running* when this long has passed since the first try
began, and KFP's SDK cannot leave it out (its default is one hour, kubeflow/pipelines#14245). So it is far beyond the
end of the last try; the number of retries and their time-outs are the bound."""

GIB = 2**30

_DURATION = re.compile(r"(\d+)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("HOME", RUN_VARIABLE, TRAIN_JOB)
_SECRET_WORDS = {"KEY", "KEYS", "APIKEY", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASS",
                 "CREDENTIAL", "CREDENTIALS", "AUTH"}  # fmt: skip
_NAMES_A_FILE = re.compile(r".*_(FILE|PATH|DIR)|GOOGLE_APPLICATION_CREDENTIALS")
_SECRET_VALUE = re.compile(
    r"\b(sk-|hf_|AKIA|ASIA|ghp_|github_pat_|xox[abp]-)[A-Za-z0-9_-]{8,}|-----BEGIN|eyJ[A-Za-z0-9_-]{20,}\."
    r"|://[^/@\s:]*:[^/@\s]+@"
)


def seconds(duration: str) -> int:
    """The seconds of a duration such as `90s`, `30m`, `12h`.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(duration)
    if not found or not int(found[1]):
        raise ValueError(f"a duration is a whole number above 0 and s, m or h, such as 30m; got {duration!r}")
    return int(found[1]) * _SECONDS[found[2]]


def check_quantity(value: str, may_be_empty: bool) -> str:
    """The value, if it is a Kubernetes quantity of bytes.

    Raises:
        ValueError: It is none.
    """
    if not (may_be_empty and not value) and not re.fullmatch(r"\d+(Ki|Mi|Gi|Ti|K|M|G|T)?", value):
        raise ValueError("a quantity is a whole number and Ki, Mi, Gi or Ti, such as 16Gi")
    return value


def quantity_bytes(value: str) -> int:
    """The bytes of a quantity that `check_quantity` accepts."""
    number = value.rstrip("KMGTi")
    unit = value[len(number) :]
    base = 1024 if unit.endswith("i") else 1000
    return int(number) * int(base ** " KMGT".index(unit[:1] or " "))


def check_image(image: str) -> None:
    """Refuses an image without a version: `latest`, said or implied.

    Raises:
        ValueError: Names the image and the fix.
    """
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        raise ValueError(f"image {image!r}: give a version or a digest; what `latest` is changes under a run")


def check_environment(env: Mapping[str, str]) -> None:
    """Refuses environment variables that are compiled into a pipeline and should or could not be. No value is shown.

    Raises:
        ValueError: A name that is none, that looks like a secret's or that stages are given anyway; a value that looks
            like a credential, or that Argo or the kubelet would rewrite.
    """
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"env: {name!r} is no name of an environment variable")
        if name in _OURS:
            raise ValueError(f"env.{name}: every stage is given this variable; remove it")
        is_secret = bool(_SECRET_WORDS & set(name.upper().split("_"))) and not _NAMES_A_FILE.fullmatch(name.upper())
        if is_secret or _SECRET_VALUE.search(value):
            raise ValueError(
                f"env.{name}: looks like a secret, and everybody who sees the pipeline would read it: put it into a "
                f"Secret, and name that in placement.secrets: {{env: {name}, secret: NAME, key: KEY}}"
            )
        if "{{" in value or "$(" in value or "$$" in value:
            raise ValueError(
                f"env.{name}: holds {{{{, $( or $$, which Argo and the kubelet rewrite: put it into a ConfigMap, "
                f"and name that in placement.config_maps: {{env: {name}, config_map: NAME, key: KEY}}"
            )


def cache_variables(path: str, fill: bool) -> dict[str, str]:
    """The environment variables by which libraries and `fetched` find the model cache.

    A cache that is only read holds the Hub's files alone; what else goes to HF_HOME (tokens, modules, data sets) and
    LLM2LLM_CACHE (students from object storage) is written to the scratch volume.
    """
    if fill:
        return {"HF_HOME": path}
    return {
        "HF_HUB_CACHE": f"{path.rstrip('/')}/hub",
        "HF_HOME": f"{SCRATCH}/huggingface",
        "LLM2LLM_CACHE": f"{SCRATCH}/llm2llm",
    }


def total_seconds(retries: int, timeout: int, backoff: int) -> int:
    """Seconds that all tries of a stage and the waits between them take at most, not counting waits for a node.

    Raises:
        ValueError: Argo would end the last of them while it runs, see `RETRY_WINDOW`.
    """
    total = (retries + 1) * timeout + sum(backoff * int(BACKOFF_FACTOR**number) for number in range(retries))
    if total > RETRY_WINDOW // 2:
        raise ValueError(
            f"retries {retries} with timeout {timeout}s and a backoff from {backoff}s, doubled each time, take "
            f"{total // 86_400} days in all, and no more than {RETRY_WINDOW // 2 // 86_400} are allowed: lower one "
            "of them"
        )
    return total
