"""Checks before any GPU starts: data, buckets, teachers, student.

Each check is one line: `ok`, `warn` (cannot be told from here, or needs a look) or `fail`, with what to do. Nothing
that a check meets ends the others. What the cluster itself must have is `preflight_cluster`'s.
"""

import io
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.storage.uris import is_remote
from llm2llm.components.shared.training.settings import SCRATCH, rate_hint
from llm2llm.pipelines.checks.student_files import on_this_machine, student_notes, vocabulary_note
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement import judged
from llm2llm.pipelines.config.placement_parts import GRADING

OK, WARN, FAIL = "ok", "warn", "fail"
_NO_KEY = "LLM2LLM_PREFLIGHT_WITHOUT_KEY"
"""An environment variable that is never set."""
PATIENCE = 60.0
"""Seconds for which an endpoint that is busy is waited for, in all; what it is waited for is said."""


@dataclass(frozen=True)
class Finding:
    """One line."""

    status: str
    """`ok`, `warn` or `fail`."""
    what: str
    detail: str
    fix: str = ""


def shown(check: Finding) -> str:
    """The line of a check."""
    return f"{check.status:<4}  {check.what:<27}  {check.detail}{f'; {check.fix}' if check.fix else ''}"


def carefully(what: str, look: Callable[..., Iterable[Finding]], *arguments: Any) -> Iterator[Finding]:
    """The checks that `look` makes of its arguments; whatever it raises is one more, and ends no other."""
    try:
        yield from look(*arguments)
    except UserError as problem:
        yield Finding(FAIL, what, " ".join(str(problem).split()))
    except ModuleNotFoundError as problem:
        yield Finding(
            WARN, what, f"not checked: the package {problem.name} is not installed", "pip install 'llm2llm[train]'"
        )
    except Exception as problem:  # a line in place of a traceback: the other checks are to be made all the same
        first = (str(problem).strip() or "no further word").splitlines()[0]
        yield Finding(FAIL, what, f"{type(problem).__name__}: {first[:300]}")


def local_checks(config: Config, folders: Iterable[str] = ()) -> Iterator[Finding]:
    """What can be checked from this machine.

    Args:
        config: With the paths of data as this machine sees them.
        folders: Places that must be writable, beside those that the config names: the pipeline root.
    """
    yield from carefully("data", data_checks, config)
    yield from carefully("promote.guards", guard_checks, config)
    yield from carefully("mlflow", mlflow_checks, config)
    judge = config.evaluate.judge
    written = {
        "ledger": config.teacher_augment.ledger,
        "judge's ledger": judge.ledger if judge else "",
        "checkpoints": config.train.checkpoint_uri,
        "registry": config.promote.registry,
    }
    for what, uri in [*written.items(), *(("pipeline root", folder) for folder in folders)]:
        if uri:
            yield from carefully(what, storage_checks, what, uri, bool(config.placement.profile))
    yield from teacher_checks(config)
    if judge:
        yield from carefully("judge", judge_checks, config, judge)
    yield from carefully("student", student_checks, config)
    if config.train.distill.model:
        yield from carefully("train.distill.model", distillation_checks, config)
    if on_this_machine(config.student):
        yield from carefully("student's files", student_file_checks, config)


def data_checks(config: Config) -> Iterator[Finding]:
    """Every row of every source is read and checked, and `prepare` is done with them, in memory."""
    from llm2llm.components.prepare.prepare import prepare
    from llm2llm.components.shared.ingest.read_inputs import read_inputs
    from llm2llm.components.shared.ingest.sources import BUILTIN, is_file_source, is_here, shown_source

    sources: dict[str, str] = {}
    for name, source in config.data.model_dump().items():
        if not source:
            sources[name] = source
            continue
        local = is_file_source(source) or is_here(source)
        if local and config.placement.profile and not source.startswith(BUILTIN) and "://" not in source:
            if not is_here(source):
                yield Finding(WARN, f"data.{name}", f"{source} is not on this machine: only a pod can tell")
                continue
            yield Finding(
                WARN, f"data.{name}", f"{source} is on this machine, and pods do not see it",
                "put it where they do: a dataset on the hub, or a path of a volume",
            )  # fmt: skip
        if not local and (unseen := _unseen_dataset(f"data.{name}", source)):
            yield unseen
            continue
        sources[name] = source
    failures: dict[str, UserError] = {}
    inputs = read_inputs(sources, config.task, config.prepare, failed=failures.__setitem__)
    for name, source in sources.items():
        if name in failures:
            yield Finding(FAIL, f"data.{name}", str(failures[name]))
        elif source:
            one = inputs[name]
            said = "; ".join([f"{len(one.examples):,} rows of {shown_source(source)}, as {one.format}", *one.notes])
            yield Finding(OK, f"data.{name}", said)
    if len(inputs) == len(config.data.model_dump()):
        rows = {name: one.examples for name, one in inputs.items()}
        prepared = prepare(rows["seeds"], rows["validation"], rows["test"], rows["pool"], config.task, config.prepare,
                           config.prepare.draws_by(config.random_seed), rows["replay"])  # fmt: skip
        counts = {name: len(getattr(prepared, name)) for name in ("seeds", "validation", "test", "pool")}
        if config.data.replay:
            counts["replay"] = len(prepared.replay)
        sets = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        yield Finding(OK, "prepare", "; ".join([sets, *prepared.notes]))


def guard_checks(config: Config) -> Iterator[Finding]:
    """Every row of every guard set is read; lm-eval must be installed for its tasks."""
    from llm2llm.components.promote.lm_eval_tasks import check_lm_eval
    from llm2llm.components.shared.ingest.read_inputs import read_inputs
    from llm2llm.components.shared.ingest.settings import RowsSettings
    from llm2llm.components.shared.ingest.sources import is_file_source, is_here, shown_source

    for number, guard in enumerate(config.promote.guards):
        what = f"promote.guards[{number}]"
        if guard.task is None:
            if config.placement.profile:
                where = "the image of the stage promote must have lm-eval, and its pods the network or a filled HF_HOME"
                yield Finding(WARN, what, f"not checked: the lm-eval task {guard.lm_eval}", where)
            else:
                check_lm_eval(config.promote)
                yield Finding(OK, what, f"the lm-eval task {guard.lm_eval}")
            continue
        local = is_file_source(guard.file) or is_here(guard.file)
        if not local and (unseen := _unseen_dataset(what, guard.file)):
            yield unseen
            continue
        failures: dict[str, UserError] = {}
        found = read_inputs({"guard": guard.file}, guard.task, RowsSettings(), failed=failures.__setitem__)
        if failures:
            yield Finding(FAIL, what, str(failures["guard"]))
        else:
            rows = f"{len(found['guard'].examples):,} rows of {shown_source(guard.file)}, task {guard.task.name}"
            yield Finding(OK, what, rows)


def mlflow_checks(config: Config) -> Iterator[Finding]:
    """Whether the run can be logged: here by this process's environment, in a cluster by what stage report is given."""
    from llm2llm.components.report.mlflow_address import SERVER
    from llm2llm.components.report.mlflow_run import check_server
    from llm2llm.pipelines.kubeflow.apply_placement import mlflow_unset

    experiment = config.report.mlflow_experiment
    if not experiment:
        return
    if not config.placement.profile:
        check_server(experiment)
    elif unlogged := mlflow_unset(config):
        yield Finding(WARN, "mlflow", unlogged)
        return
    yield Finding(OK, "mlflow", f"experiment {experiment}, with {SERVER} set; the server was not asked")


def _unseen_dataset(what: str, source: str) -> Finding | None:
    """Why a dataset on the hub cannot be looked at; None where it can. `datasets` itself tries for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    name = source.partition("#")[0].partition("@")[0].partition(":")[0]
    try:
        HfApi().dataset_info(name, timeout=20)
    except hub.GatedRepoError:
        return Finding(FAIL, what, f"{name} is gated", "accept its terms on the hub, and set HF_TOKEN")
    except hub.RepositoryNotFoundError:
        return Finding(
            FAIL,
            what,
            f"{name}: no such file, and no such dataset on the hub",
            "correct it, or set HF_TOKEN if it is private",
        )
    except Exception as problem:  # as in _model_files
        return Finding(
            WARN, what, f"{name}: the hub cannot be asked from here ({type(problem).__name__})", "only the run can tell"
        )
    return None


def storage_checks(what: str, uri: str, in_cluster: bool) -> Iterator[Finding]:
    """Writes, reads and deletes a small object; where nothing may be written twice, that this holds."""
    from llm2llm.components.shared.storage import create_bytes, delete, join, read_bytes

    if in_cluster and not is_remote(uri):
        yield Finding(WARN, what, f"{uri} is a folder, and a pod's are gone with it", "use s3://bucket/prefix")
        return
    probe = join(uri, f".llm2llm-preflight-{uuid.uuid4().hex}")
    content = b"written by llm2llm preflight; may be deleted\n"
    made = create_bytes(probe, content)
    try:
        if not made or read_bytes(probe) != content:
            yield Finding(
                FAIL, what, f"{uri}: what is written is not what is read", "use storage with read-after-write"
            )
        elif create_bytes(probe, b"again"):
            yield Finding(FAIL, what, f"{uri}: the server overwrites what was to be created once (If-None-Match)",
                        "use a server that knows conditional writes: AWS, Ceph, MinIO")  # fmt: skip
        else:
            yield Finding(OK, what, f"{uri} is writable")
    finally:
        delete(probe)


def teacher_checks(config: Config) -> Iterator[Finding]:
    """Asks each endpoint one small question by JSON schema; it costs some ten tokens."""
    augment = config.teacher_augment
    if not augment.asks_models:
        offline = augment.offline_teacher is not None
        yield Finding(OK, "teacher", f"{augment.teacher}, offline" if offline else "no language model is asked")
    models: list[tuple[str, str, Any]] = [(f"teachers.{i}", one.teacher, one) for i, one in enumerate(augment.teachers)]
    if augment.asks_models and not augment.teachers:
        models = [("teacher", augment.teacher, augment)]
    if augment.verify != "none" and augment.verification.by is not None:
        models.append(("verification.by", augment.verification.by.teacher, augment.verification.by))
    for what, teacher, settings in models:
        if not BACKENDS[teacher].in_pod:
            yield from carefully(what, _endpoint, config, what, settings)
            if any(settings is one for _, one in augment.logprob_tellers):
                yield from carefully(f"{what}'s log-probabilities", _logprobs, config, what, settings)
        else:
            yield Finding(
                OK, what, f"{teacher}: {settings.model or 'the student'} runs in the stage's own pod; not asked"
            )


def judge_checks(config: Config, judge: Any) -> Iterator[Finding]:
    """Asks the judge's endpoint, as a teacher's is."""
    if not BACKENDS[judge.teacher].in_pod:
        yield from _endpoint(config, "judge", judge)
    else:
        yield Finding(OK, "judge", f"{judge.teacher}: {judge.model} runs in the stage's own pod; not asked")


def _endpoint(config: Config, what: str, settings: Any) -> Iterator[Finding]:
    from llm2llm.components.shared.llm.backends.openai import probe
    from llm2llm.components.shared.llm.budget import SpendTracker
    from llm2llm.components.shared.llm.json_answers import read_object
    from llm2llm.components.shared.llm.requests import LLMRequest

    stages = GRADING if what == "judge" else ("teacher_augment",)
    placement = judged(config.placement, settings.api_key_env) if what == "judge" else config.placement
    secrets = [one.secret for one in placement.secrets if one.env == settings.api_key_env and {*stages} & {*one.stages}]
    from_secret = secrets if not os.environ.get(settings.api_key_env) else []
    # Asked as pods ask: a key that is here and in no Secret is not there.
    without_key = bool(config.placement.profile) and not secrets
    where = f"{settings.model} at {settings.url}"
    if _within_a_cluster(settings.url) and not _connects(settings.url):
        yield Finding(WARN, what, f"{where}: a name within the cluster, which this machine does not reach",
                    "run preflight in a pod, or through a port-forward with --set teacher_augment.url=...")  # fmt: skip
        return

    once = _once(settings, without_key)
    schema = {
        "type": "object", "properties": {"word": {"type": "string", "enum": ["yes"]}}, "required": ["word"],
        "additionalProperties": False,
    }  # fmt: skip
    # A model that reasons first needs room for it; the answer itself is five tokens.
    request = LLMRequest(
        messages=[{"role": "user", "content": 'Say yes, as {"word": "yes"}.'}], schema=schema,
        temperature=settings.temperature, max_tokens=max(256, min(settings.max_tokens, 2048)), top_p=settings.top_p,
        purpose="preflight",
    )  # fmt: skip
    try:
        # The backend says on standard output what it does; the line below says it all.
        with redirect_stdout(io.StringIO()):
            probed = probe(once, request, SpendTracker(run="preflight"))
    except UserError as problem:
        if from_secret:
            yield Finding(WARN, what, f"{where}: its key is in Secret {from_secret[0]}, and without it: {problem}",
                        f"set {settings.api_key_env} here to have it tried")  # fmt: skip
        elif without_key:
            said = str(problem).replace(_NO_KEY, settings.api_key_env)
            yield Finding(FAIL, what, f"{where}: asked as {stages[0]} does, without a key: {said}",
                        f"pods get it by placement.secrets: {{env: {settings.api_key_env}, secret: NAME, key: KEY, "
                        f"stages: [{stages[0]}]}}")  # fmt: skip
        else:
            raise
        return
    response = probed.response
    if response.outcome != "answered":
        yield Finding(FAIL, what, f"{where}: {' '.join((response.detail or 'no answer').split())[:300]}")
        return
    if read_object(response.answer, ["word"]) is None:
        wrote = response.answer or response.detail or response.text
        yield Finding(WARN, what, f"{where} answers, but not in the form that it was asked for: {wrote[:60]!r}",
                    "answers that cannot be used are asked for again, and cost")  # fmt: skip
    elif probed.schema_use in _NO_SCHEMA:
        yield Finding(WARN, what, f"{where} answers, but {_NO_SCHEMA[probed.schema_use]}: it is asked in words")
    else:
        form = "in words" if probed.schema_use == "not sent" else "by JSON schema"
        yield Finding(OK, what, f"{where} answers, and takes structure asked for {form}")
    for note in probed.notes:
        if "JSON schema" not in note:
            yield Finding(WARN, f"{what}'s endpoint", f"{where} {note}")


def _once(settings: Any, without_key: bool) -> ModelSettings:
    """The settings of an endpoint for one question."""
    fields = {name: getattr(settings, name) for name in ModelSettings.model_fields}
    fields |= {"api_key_env": _NO_KEY} if without_key else {}
    # The list of models and the question may each be told to wait once, and the question once more in words.
    return ModelSettings(**{**fields, "tries": 2, "timeout": 30, "concurrency": 1, "longest_wait": PATIENCE / 3.3})


def _logprobs(config: Config, what: str, settings: Any) -> Iterator[Finding]:
    """Asks for one label as the run will, and looks whether its log-probabilities come."""
    from llm2llm.components.shared.llm.backends.openai import probe
    from llm2llm.components.shared.llm.budget import SpendTracker
    from llm2llm.components.shared.llm.requests import LLMRequest
    from llm2llm.components.teacher_augment.label_logprobs import LEAST_TOLD, MOST_LOGPROBS, label_shares

    if _within_a_cluster(settings.url) and not _connects(settings.url):
        return  # said already
    in_secret = any(one.env == settings.api_key_env for one in config.placement.secrets)
    if in_secret and not os.environ.get(settings.api_key_env):
        return  # so is this
    labels = list(config.task.labels) or ["A", "B"]
    request = LLMRequest(
        messages=[{"role": "user", "content": f"Answer with {labels[0]} and nothing else."}], temperature=0.0,
        max_tokens=max(256, min(settings.max_tokens, 2048)), top_logprobs=MOST_LOGPROBS, purpose="preflight",
    )  # fmt: skip
    with redirect_stdout(io.StringIO()):
        probed = probe(_once(settings, without_key=False), request, SpendTracker(run="preflight"))
    where, what, response = f"{settings.model} at {settings.url}", f"{what}'s log-probabilities", probed.response
    if response.outcome != "answered" or response.logprobs is None:
        yield Finding(WARN, what, f"{where}: {response.detail or response.refusal or 'no answer'}"[:300])
        return
    told = sum(label_shares(response, labels).values())
    if told < LEAST_TOLD:
        wrote = response.answer or response.text
        yield Finding(WARN, what, f"{where} tells them, but asked for {labels[0]!r} it wrote {wrote[:60]!r}",
                    "rows whose label its tokens do not tell are dropped")  # fmt: skip
    else:
        yield Finding(OK, what, f"{where} tells them, and its tokens tell the labels apart")


_NO_SCHEMA = {
    "refused": "takes no JSON schema",
    "ignored": "ignores a JSON schema",
    "breaks": "fails when it is sent a JSON schema",
}


def _within_a_cluster(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".svc", ".svc.cluster.local")) or (
        "." not in host and ":" not in host and host != "localhost"
    )


def _connects(url: str) -> bool:
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def student_checks(config: Config) -> Iterator[Finding]:
    """The student's config is there, its weights are safetensors, and it fits the accelerator of each stage."""
    from llm2llm.pipelines.checks import student_memory as memory

    if config.student == SCRATCH:
        shape = memory.scratch_shape(config.train.scratch)
        parameters = shape.parameters
        detail = f"scratch, up to {_count(parameters)} parameters"
        if hint := rate_hint(config.train, config.student):
            yield Finding(WARN, "student", f"{detail}; {hint}")
        else:
            yield Finding(OK, "student", detail)
    else:
        name, values, parameters = config.student, None, 0
        found = _model_files(name)
        if isinstance(found, Finding):
            yield found
            return
        values, has_safetensors, parameters, base = found
        if base:
            yield Finding(OK, "adapter", f"{name} is an adapter on {base}")
            found = _model_files(base)
            if isinstance(found, Finding):
                yield found
                return
            values, has_safetensors, parameters, _ = found
            name = base
        if not has_safetensors:
            yield Finding(
                FAIL,
                "student",
                f"{name} has no safetensors, and pickles are not loaded",
                "convert it, or choose another",
            )
            return
        if values.get("auto_map") and not config.train.trust_remote_code:
            yield Finding(WARN, "student", f"{name} brings code of its own (auto_map), which is not run",
                        "see that transformers knows the model, or set train.trust_remote_code")  # fmt: skip
        try:
            shape = memory.shape_of(values, config.train.head == "classifier")
        except (KeyError, ValueError, TypeError) as problem:
            yield Finding(WARN, "student", f"{name}: its memory cannot be told: config.json has no {problem}")
            return
        parameters = parameters or shape.parameters
        yield Finding(OK, "student", f"{name}, {_count(parameters)} parameters")
        if hint := rate_hint(config.train, config.student):
            yield Finding(WARN, "learning rate", hint)
    yield from _fits(config, shape, parameters)


def _beside_teacher(config: Config, shape: Any, need: Any, rows: int) -> Any:
    """What a training needs with the distillation after it."""
    from llm2llm.pipelines.checks import student_memory as memory

    found = _model_files(config.train.distill.model)
    if isinstance(found, Finding):  # its own check says so
        return need
    values, _, counted, base = found
    if base and not isinstance(of_base := _model_files(base), Finding):
        values, counted = of_base[0], of_base[2]
    try:
        teacher = counted or memory.shape_of(values).parameters
    except KeyError:
        return need
    more = memory.distillation_memory(shape, teacher, rows, config.train.max_length)
    return memory.Memory(need.weights + more.weights, need.optimiser, need.activations + more.activations)


def distillation_checks(config: Config) -> Iterator[Finding]:
    """The teacher of a distillation is there, has safetensors, and has the student's vocabulary."""
    named = config.train.distill.model
    found = _model_files(named)
    if isinstance(found, Finding):
        yield Finding(
            found.status, "train.distill.model", found.detail, found.fix.replace("correct student", "correct it")
        )
        return
    values, safe, _, base = found
    if not safe:
        yield Finding(FAIL, "train.distill.model", f"{named} has no safetensors", "name a model that has")
        return
    if on_this_machine(named) and on_this_machine(config.student):
        yield Finding(OK, "train.distill.model", vocabulary_note(config))
        return
    ours = _model_files(config.student)
    sizes = [] if base or isinstance(ours, Finding) or ours[3] else [_vocabulary(one) for one in (ours[0], values)]
    if sizes and None not in sizes and sizes[0] != sizes[1]:
        yield Finding(FAIL, "train.distill.model", f"{named} has {sizes[1]:,} tokens and {config.student} {sizes[0]:,}",
                    "name a model of the student's own family")  # fmt: skip
    else:
        yield Finding(OK, "train.distill.model", f"{named} is there; its tokenizer is compared when the run trains")


def _vocabulary(config: Mapping[str, Any]) -> int | None:
    found = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    return found if isinstance(found, int) else None


def student_file_checks(config: Config) -> Iterator[Finding]:
    """The student's tokenizer, chat template and weight headers; the length of right answers."""
    for note in student_notes(config):
        yield Finding(OK, "student's files", note)


def _fits(config: Config, shape: Any, parameters: int) -> Iterator[Finding]:
    from llm2llm.components.shared.training.devices import share
    from llm2llm.pipelines.checks import student_memory as memory
    from llm2llm.pipelines.checks.memory_fit import USABLE, as_overrides, fit, proposals

    train, evaluate, placed = config.train, config.evaluate, config.placement.stages
    classifies = train.head == "classifier"
    length = train.max_length + (0 if classifies else evaluate.max_new_tokens or config.task.max_new_tokens)
    gpus = train.gpus or (placed["train"].gpus if "train" in placed else 0) or 1
    devices = gpus * train.nodes
    # With all rows of a batch at once, and with as little as the stage steps down to where they do not fit.
    at_once = share(train, devices).rows
    training = [
        memory.training_memory(shape, parameters, train, at_once, devices),
        memory.training_memory(shape, parameters, train, 1, devices, recompute=True),
    ]
    if train.distill.model:
        training = [
            _beside_teacher(config, shape, need, rows) for need, rows in zip(training, (at_once, 1), strict=True)
        ]
    answering = [
        memory.answering_memory(shape, parameters, rows, length, classifies) for rows in (evaluate.batch_size, 1)
    ]
    answers = "answer" if evaluate.shards > 1 else "evaluate"
    needs = {"train": training, answers: answering}
    if config.filter_errors.uses_folds:
        needs["out_of_fold"] = max(training, answering, key=lambda one: one[0].total)
    if config.tune.tried:
        needs["tune"] = max(training, answering, key=lambda one: one[0].total)
    if config.has_controls:
        needs["controls"] = max(training, answering, key=lambda one: one[0].total)
    if config.promote.registry:
        needs["promote"] = answering
    for stage, (need, least) in needs.items():
        parts = f"weights {need.weights:.1f}, optimiser {need.optimiser:.1f}, activations {need.activations:.1f}"
        wanted = placed.get(stage)
        if wanted is None or not wanted.gpus:
            yield Finding(OK, f"memory of {stage}", f"about {need.total:.1f} GiB ({parts}); no accelerator is placed")
            continue
        known = config.placement.accelerators
        has = known[wanted.accelerator].memory_gib
        detail = f"about {need.total:.1f} of {has} GiB of {wanted.accelerator} ({parts})"
        if need.total <= USABLE * has:
            yield Finding(OK, f"memory of {stage}", detail)
            continue
        trains = need is not answering[0]
        fitting = fit(shape, parameters, train, has, devices) if trains and not train.distill.model else None
        if fitting is not None:
            less = "activation checkpointing" + (f" and {fitting.rows} rows" if fitting.rows < at_once else "")
            detail += f"; with {less} at once, which is tried then, {fitting.need.total:.1f}"
            yield Finding(WARN, f"memory of {stage}", detail)
            continue
        if not trains and least.total <= has:
            detail += f"; fewer rows at once are tried then, and one needs {least.total:.1f}"
        larger = sorted(
            (one.memory_gib, name) for name, one in known.items()
            if (fit(shape, parameters, train, one.memory_gib, devices) if trains
                else need.total <= USABLE * one.memory_gib)
        )  # fmt: skip
        ways = [f"placement.stages.{stage}.accelerator={larger[0][1]}"] if larger else []
        if trains and config.student != SCRATCH and not train.distill.model:
            ways += [as_overrides(changes) for changes, _ in proposals(shape, parameters, train, has, devices)]
        ways.append("a smaller train.max_length" if trains else "a smaller evaluate.batch_size")
        status = WARN if not trains and least.total <= has else FAIL
        yield Finding(status, f"memory of {stage}", detail, f"set {', or '.join(ways)}")
    if config.placement.profile and config.student != SCRATCH:
        yield from _loads(config, parameters, gpus)
    if placed:
        from llm2llm.pipelines.checks.cluster import used_stages
        from llm2llm.pipelines.checks.disk import disk_checks

        yield from disk_checks(config, used_stages(config), parameters)


def _loads(config: Config, parameters: int, gpus: int) -> Iterator[Finding]:
    """Whether the pod's own memory holds the student on its way to the GPU."""
    from llm2llm.pipelines.checks import student_memory as memory
    from llm2llm.pipelines.checks.cluster import quantity

    has = quantity(config.placement.stages["train"].memory) / memory.GIB
    need = memory.loading_memory(parameters, config.train, gpus)
    detail = f"about {need:.0f} of {has:.0f} GiB while the student is loaded"
    if need <= has:
        yield Finding(OK, "pod memory of train", detail)
    else:
        yield Finding(FAIL, "pod memory of train", detail, f"set placement.stages.train.memory={need * 1.2:.0f}Gi")


def _model_files(name: str) -> tuple[Mapping[str, Any], bool, int, str] | Finding:
    """(config.json, whether there are safetensors, exact parameters or 0, the base of an adapter or "")."""
    if is_remote(name):
        return _model_in_storage(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        adapter, plain = folder / "adapter_config.json", folder / "config.json"
        file = adapter if adapter.is_file() else plain
        if not file.is_file():
            return Finding(
                FAIL, "student", f"{name}: the folder holds no model (neither config.json nor adapter_config.json)"
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Finding(FAIL, "student", f"{file} is not JSON", "save the model again")
        return (
            values,
            any(folder.glob("*.safetensors")),
            0,
            str(values.get("base_model_name_or_path") or "") if file == adapter else "",
        )
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return Finding(WARN, "student", f"{name} is not on this machine: only a pod can tell")
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub import errors as hub

    try:
        info = HfApi().model_info(name, timeout=20)
        names = {one.rfilename for one in info.siblings or []}
        file_name = "adapter_config.json" if "adapter_config.json" in names else "config.json"
        if file_name not in names:
            return Finding(FAIL, "student", f"{name} on the hub holds no model (no config.json)", "correct student")
        values = json.loads(Path(hf_hub_download(name, file_name)).read_text(encoding="utf-8"))
    except hub.GatedRepoError:
        return Finding(FAIL, "student", f"{name} is gated", "accept its terms on the hub, and set HF_TOKEN")
    except hub.RepositoryNotFoundError:
        return Finding(
            FAIL,
            "student",
            f"{name}: there is no such model on the hub",
            "correct student, or set HF_TOKEN if it is private",
        )
    except Exception as problem:  # the hub's client raises what its HTTP client does, which differs between versions
        return Finding(
            WARN,
            "student",
            f"{name}: the hub cannot be asked from here ({type(problem).__name__}){did_you_mean(name, [SCRATCH])}",
            "only the run can tell",
        )
    counted = info.safetensors.total if info.safetensors else 0
    base = str(values.get("base_model_name_or_path") or "") if file_name == "adapter_config.json" else ""
    return values, any(one.endswith(".safetensors") for one in names), counted, base


def _model_in_storage(uri: str) -> tuple[Mapping[str, Any], bool, int, str] | Finding:
    """As `_model_files`, for an `s3://` folder."""
    from llm2llm.components.shared.storage import join, list_uris, read_bytes

    names = {one.rpartition("/")[2] for one in list_uris(uri)}
    file = next((one for one in ("adapter_config.json", "config.json") if one in names), "")
    if not file:
        return Finding(FAIL, "student", f"{uri} holds no model (neither config.json nor adapter_config.json)")
    values = json.loads(read_bytes(join(uri, file)))
    base = str(values.get("base_model_name_or_path") or "") if file == "adapter_config.json" else ""
    return values, any(one.endswith(".safetensors") for one in names), 0, base


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
