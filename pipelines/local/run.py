"""A run on this machine: the compiled pipeline under KFP's local runner, or the loop in plain Python (`process`).

The output folder holds, beside what a person reads (`report.html`, `report.md`, `summary.json`, `student/`, `run.log`):

    manifest.json    what went into the run and came out of each stage, with hashes
    pipeline.yaml    the compiled pipeline, the one that a cluster would run; not with the runner `process`
    run.json         the config that the folder belongs to
    artifacts/       what the stages wrote; `inputs` in it holds the user's own files as they were
    ledger/          what the teacher was asked and answered, unless the config names another place; `fresh` keeps it
    checkpoints/     of a training that is running, unless the config names another place
    cache/           which stages are done, so that an interrupted run goes on where it was
    events.jsonl     when each stage started and ended
"""

import builtins
import fcntl
import json
import locale
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from uuid import uuid4

from llm2llm.components.promote.lm_eval_tasks import check_lm_eval
from llm2llm.components.report.settings import ReportSettings
from llm2llm.components.shared.base.atomic import atomic_file, atomic_folder, write_text
from llm2llm.components.shared.base.errors import UserError, cannot_write
from llm2llm.components.shared.base.hashing import hash_of, source_hash
from llm2llm.components.shared.base.process import EXIT_TERMINATED, PARENT_VARIABLE, RUN_VARIABLE
from llm2llm.components.shared.data.artifacts import without_record
from llm2llm.components.shared.ingest.sources import BUILTIN, is_file_source, shown_source, source_file, split_of
from llm2llm.components.shared.llm.settings import IN_POD
from llm2llm.components.shared.models.vllm import vllm_is_here
from llm2llm.components.shared.registry.notify_settings import NotifySettings
from llm2llm.components.shared.training.settings import SCRATCH
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.inspect.run_files import OURS
from llm2llm.pipelines.kubeflow.compile import compile_config
from llm2llm.pipelines.local.ending import Ending, check_address, ending_told
from llm2llm.pipelines.local.movable import moved
from llm2llm.pipelines.local.progress import LogLines, Watch

Runner = Literal["subprocess", "docker", "process"]


INTERRUPTED = "\ninterrupted; run the same command again to go on\n"

IMAGE_USER = 65532
"""The uid and gid that the images run as."""


class RunFailed(Exception):
    """A stage failed for a reason that is not the user's input; the message says where to look."""


def run_local(
    config: Config,
    output: Path,
    runner: Runner = "subprocess",
    fresh: bool = False,
    shared: Path | None = None,
    taken_over: bool = False,
) -> dict[str, Any]:
    """Runs the pipeline of a config into an output folder and returns the summary that `summary.json` holds.

    Started again with the same folder and config, a run goes on after the last stage that finished. A run that ends
    early because nothing is new returns `{"nothing_new": why}` and leaves no report.

    Args:
        config: With absolute paths; see `load_config(resolve=True)`.
        output: Made if it is not there. A run's folder may have been moved since.
        runner: `subprocess` in this Python, `docker` in the config's images, or `process` in this very process.
        fresh: Whether to discard what an earlier run left in the folder.
        shared: With `process`: a folder of runs that begin alike, on the same file system, so that one does for all
            what comes before the first generated row; see `alike`.
        taken_over: Whether the folder holds a copy of another run, whose inputs are those in it.

    Raises:
        UserError: The folder cannot be used: it holds another run, or files that no run made, or what the config names
            as its input lies in it. Or a stage refused its input.
        RunFailed: A stage failed otherwise.
        KeyboardInterrupt: Interrupted or terminated; nothing that was finished is lost.
    """
    if runner != "docker" and config.evaluate.backend == "vllm" and not vllm_is_here():
        raise UserError(
            "evaluate.backend 'vllm': there is no vLLM in this Python; let LLM2LLM_VLLM_PYTHON name one that has it, "
            "use --runner docker, or set backend: transformers"
        )
    if runner != "process" and config.tune.tried and config.filter_errors.fold_count:
        raise UserError(
            f"--runner {runner}: KFP's local runner hands no tuned settings on to the folds of out_of_fold; use "
            "--runner process, or a selection without folds (filter_errors.selection: wrong)"
        )
    for model, folder in _model_folders(config).items():
        if not folder.is_dir():
            raise UserError(f"{'student' if model == config.student else 'model'} {model}: no such folder")
    check_address(config.notify)
    if runner != "docker":
        check_lm_eval(config.promote)
    if config.report.mlflow_experiment:
        from llm2llm.components.report.mlflow_run import check_server

        check_server(config.report.mlflow_experiment)
    output = output.expanduser().absolute()
    if not taken_over:
        _refuse_inside(config, output)
    _refuse_foreign(output)
    with held(output):
        if fresh:
            _discard(output)
        config = _with_places(_snapshot_inputs(config, output), output)
        notify, logged = config.notify, config.report
        # There is one place here, and this process tells of the ending, and logs the run with the student it leaves.
        alone = config.report.model_copy(update={"mlflow_experiment": ""})
        config = config.model_copy(
            update={"placement": PlacementSettings(), "notify": NotifySettings(), "report": alone}
        )
        os.environ[RUN_VARIABLE] = run_id = _claim(config, output, runner)
        ending = Ending(notify, config.name, run_id, output)
        with _stopped_by_signals(ending), ending_told(ending):
            if runner != "process":
                compile_config(config, output / "pipeline.yaml", for_cluster=False)
            if before := len(finished_stages(output)):
                print(f"going on: {before} stages were finished before and are not run again", flush=True)
            with open(output / "events.jsonl", "a", encoding="utf-8") as events:
                events.write("\n" if events.tell() else "")  # ends the half line that a killed run may have left
                watch = Watch(events=events, shown=sys.stdout)
                if runner == "process":
                    _run_in_process(config, output, watch, shared)
                else:
                    _run_pipeline(config, output, runner, watch)
            summary = _collect(output)
            _log_to_mlflow(logged, run_id, config, summary, output)
            ending.done(summary)
        return summary


def _log_to_mlflow(
    settings: ReportSettings, run: str, config: Config, summary: Mapping[str, Any], output: Path
) -> None:
    if not settings.mlflow_experiment or "nothing_new" in summary:
        return
    from llm2llm.components.report.inputs import metric_figures
    from llm2llm.components.report.mlflow_run import log_run

    files = {name: output / name for name in ("report.html", "report.md", "summary.json", "manifest.json")}
    model = output / "student" if settings.mlflow_model else None
    values = config.model_dump(mode="json", exclude={"placement"})
    figures = metric_figures(dict(summary))
    print(log_run(settings.mlflow_experiment, run, values, summary, figures, files, model), file=sys.stderr, flush=True)


def _run_pipeline(config: Config, output: Path, runner: Runner, watch: Watch) -> None:
    warnings.filterwarnings("ignore", module=r"kfp\..*")
    from kfp import local
    from kfp.components import load_component_from_file

    from llm2llm.pipelines.local.kfp_cache import use_movable_cache

    warnings.filterwarnings("ignore", message=".*custom or non-Python base image.*")
    warnings.filterwarnings("ignore", message=".*no effect in the current local runner.*")
    local.init(
        runner=local.SubprocessRunner(use_venv=False) if runner == "subprocess" else _docker_runner(config, output),
        pipeline_root=str(output / "artifacts"),
        enable_caching=True,
        cache_root=str(output / "cache"),
    )
    pipeline = load_component_from_file(str(output / "pipeline.yaml"))
    # The stages end by themselves when this process is gone; see `components.stage`.
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    use_movable_cache(output)
    # KFP reads what a stage prints as text of this locale; what that cannot hold is escaped.
    os.environ["PYTHONIOENCODING"] = f"{locale.getpreferredencoding(False)}:backslashreplace"
    print_before = builtins.print
    with open(output / "run.log", "a", encoding="utf-8") as log:
        try:
            with redirect_stdout(LogLines(log, watch)):
                pipeline()
        except RuntimeError as problem:
            raise _failure(watch, output, problem) from None
        finally:
            builtins.print = print_before  # KFP's threads may leave their indenting print behind


def _run_in_process(config: Config, output: Path, watch: Watch, shared: Path | None) -> None:
    from llm2llm.pipelines.local.in_process import run_in_process

    os.environ.pop(PARENT_VARIABLE, None)  # of a run before; here the stages have no parent
    with open(output / "run.log", "a", encoding="utf-8") as log:
        try:
            with redirect_stdout(LogLines(log, watch)), redirect_stderr(log):
                run_in_process(config, output / "artifacts", shared, _code_hash())
        except (Exception, SystemExit) as problem:
            if isinstance(problem, SystemExit) and problem.code == EXIT_TERMINATED:
                watch.shown.write(INTERRUPTED)
                raise
            if watch.failure is None:  # it was no stage
                raise
            traceback.print_exception(problem, file=log)
            raise _failure(watch, output, problem) from None


def _docker_runner(config: Config, output: Path) -> Any:
    """KFP's runner for containers, held as a pod's security context would hold them.

    Of this process's environment they see the teachers' keys, what opens object storage, and the run's id; of the
    network nothing, unless the config names a model, data or a teacher that is not on this machine.

    Raises:
        UserError: The package docker is not installed, or no engine answers.
    """
    from kfp import local

    try:
        import docker

        docker.from_env().close()  # asks the engine for its version
    except ImportError:
        raise UserError("--runner docker needs the package docker: pip install 'llm2llm[docker]'") from None
    except docker.errors.DockerException as problem:
        raise UserError(
            f"--runner docker: no Docker engine answers; is it up, is DOCKER_HOST right? ({problem})"
        ) from None
    passed = {*_key_variables(config), RUN_VARIABLE}
    storage = ("AWS_", "LLM2LLM_S3_")
    environment = {key: value for key, value in os.environ.items() if key in passed or key.startswith(storage)}
    written, read = _written_to(config, output), _model_folders(config).values()
    user, group = os.getuid(), os.getgid()
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True)
        if user == 0:  # even then nothing runs as root: the folders become those of the images' user
            os.chown(folder, IMAGE_USER, IMAGE_USER)
    if user == 0:
        user = group = IMAGE_USER
    return local.DockerRunner(
        user=f"{user}:{group}",  # who may write to the output folder, which KFP mounts
        network_mode="bridge" if _needs_network(config) else "none",
        read_only=True,
        tmpfs={"/tmp": "rw,exec,mode=1777"},  # noqa: S108  # the path inside the container
        environment={"HOME": "/tmp", "HF_HOME": "/tmp/huggingface", **environment},  # noqa: S108
        mounts=[
            *(docker.types.Mount(str(folder), str(folder), type="bind") for folder in written[1:]),
            *(docker.types.Mount(str(folder), str(folder), type="bind", read_only=True) for folder in read),
        ],
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )


def _key_variables(config: Config) -> set[str]:
    """The environment variables with the keys of whoever writes, verifies and judges."""
    augment = config.teacher_augment
    asked = [augment, *augment.teachers, augment.verification.by, config.evaluate.judge]
    return {one.api_key_env for one in asked if one is not None}


def _written_to(config: Config, output: Path) -> list[Path]:
    """The folders of this machine that the stages write to, the artifacts first."""
    judge = config.evaluate.judge
    places = [config.teacher_augment.ledger, judge.ledger if judge else "", config.train.checkpoint_uri,
              config.promote.registry]  # fmt: skip
    return list(dict.fromkeys([output / "artifacts", *(Path(place) for place in places if place.startswith("/"))]))


def _model_folders(config: Config) -> dict[str, Path]:
    """The models of a config that are folders of this machine, as it names them: student, teachers, judge."""
    judge = config.evaluate.judge
    loaded = [model for _, model in config.in_pod]
    if judge is not None and judge.teacher in IN_POD:
        loaded.append(judge)
    models = [config.student, *(model.model for model in loaded)]
    return {model: Path(model).expanduser() for model in models if model.startswith(("/", "~"))}


def _needs_network(config: Config) -> bool:
    """Whether anything that the config names lies elsewhere."""
    sources = [source for source in config.data.model_dump().values() if source]
    elsewhere = [source for source in sources if not is_file_source(source)]
    return bool(
        elsewhere
        or (config.student != SCRATCH and not config.student.startswith(("/", "~")))
        or config.teacher_augment.asks_models
        or config.teacher_augment.verify != "none"
        or config.evaluate.judge is not None
        or any("://" in place for place in (config.train.checkpoint_uri, config.promote.registry))
    )


def _failure(watch: Watch, output: Path, problem: BaseException) -> Exception:
    log = output / "run.log"
    if watch.failure is None:
        running = ", ".join(" ".join(str(part) for part in key if part is not None) for key in watch.running)
        return RunFailed(f"{running or 'a stage'} ended without a word (out of memory?); its output is in {log}")
    if "user_error" in watch.failure:
        return UserError(str(watch.failure["user_error"]))
    where = watch.failure["stage"]
    if watch.failure.get("iteration") is not None:
        where += f" in iteration {watch.failure['iteration']}"
    return RunFailed(f"{where} failed: {watch.failure['error']}; its whole output is in {log}")


@contextmanager
def _stopped_by_signals(ending: Ending) -> Iterator[None]:
    """Ends at once on SIGTERM, as on Ctrl-C: finished stages are safe, and a running one ends with this process."""

    def stop(number: int, frame: FrameType | None) -> None:
        # Not through sys.stdout: the signal may have come in the middle of a write to it, which cannot be re-entered.
        os.write(1, INTERRUPTED.encode())
        ending.tell("terminated", f"by signal {number}", in_haste=True)
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Holds the output folder, so that two runs do not write into one.

    Raises:
        UserError: Held by another process, or not writable.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = os.open(output / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except FileExistsError:
        raise UserError(f"--output {output}: is a file; choose a folder") from None
    except OSError as problem:
        raise cannot_write(output, problem) from None
    # The file stays: were it removed, a run that had opened it before and one that made it anew would both hold a lock.
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--output {output}: another run is writing there; wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(lock)


_KEPT = ("ledger", ".lock")
"""What a run leaves that `--fresh` keeps."""
_IN_PASSING = ("lost+found", ".gitkeep", ".gitignore", ".DS_Store")
"""What lies in a folder that nobody has put anything into."""


def _refuse_foreign(output: Path) -> None:
    """Refuses a folder with files that no run made: they would lie among a run's, and `--fresh` could take them away.

    Raises:
        UserError: Names one of them.
    """
    if not output.is_dir() or (output / "run.json").is_file():
        return
    found = sorted(path.name for path in output.iterdir() if path.name not in _IN_PASSING)
    begun = ".lock" in found  # a start that ended before it had claimed the folder
    known = (*OURS, *_KEPT) if begun else ()
    other = [name for name in found if name not in known and not (begun and name.startswith("."))]
    if other:
        raise UserError(
            f"--output {output}: not a run's folder, and files are in it, such as {other[0]}; choose a new or empty "
            "folder, or that of a run"
        )


def _refuse_inside(config: Config, output: Path) -> None:
    """Refuses models and data of the config that a run would replace, or `--fresh` remove.

    Raises:
        UserError: Names the key and the path.
    """
    place = output.resolve()
    for model, folder in _model_folders(config).items():
        if place in (folder.resolve(), *folder.resolve().parents):
            what = "student" if model == config.student else "model"
            raise UserError(
                f"{what} {model}: lies in the output folder {output}, where the run puts its own; move it, or choose "
                "another --output"
            )
    sources = {f"data.{key}": str(source) for key, source in config.data}
    for key, source in sources.items():
        if not source or "://" in source or source.startswith(BUILTIN) or not is_file_source(source):
            continue
        path = Path(split_of(source)[0]).expanduser().resolve()
        if any(place / name in (path, *path.parents) for name in OURS):
            raise UserError(
                f"{key} {source}: lies among what a run leaves in the output folder {output}; copy it elsewhere, or "
                "choose another --output"
            )


def _discard(output: Path) -> None:
    """Removes what a run made, and nothing that a link leads to."""
    for name in OURS:
        path = output / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _snapshot_inputs(config: Config, output: Path) -> Config:
    """The config with the user's own files, here and in object storage, copied under `artifacts/inputs`.

    A changed file is then another input, and containers, which see the output folder only, can read it.
    """

    def copied(key: str, source: str) -> str:
        if not source or source.startswith(BUILTIN) or not is_file_source(source):
            return source
        file, split = split_of(source)
        with source_file(file) as path:
            if not path.exists():
                raise UserError(f"{key}: {shown_source(source)}: no such file")
            try:
                target = output / "artifacts" / "inputs" / hash_of(path)[:12] / path.name
                if not target.exists():
                    with atomic_folder(target.parent) as partial:
                        if path.is_dir():
                            shutil.copytree(path, partial / path.name)
                        else:
                            shutil.copyfile(path, partial / path.name)
            except OSError as problem:
                raise UserError(f"{key}: cannot read {source}: {problem.strerror or problem}") from None
        return f"{target}#{split}" if split else str(target)

    data = config.data.model_copy(update={key: copied(f"data.{key}", value) for key, value in config.data})
    augment = config.teacher_augment
    changed: dict[str, Any] = {}
    if isinstance(augment.grammar, str):
        changed["grammar"] = copied("teacher_augment.grammar", augment.grammar)
    if augment.eda_synonyms:
        changed["eda_synonyms"] = copied("teacher_augment.eda_synonyms", augment.eda_synonyms)
    return config.model_copy(update={"data": data, "teacher_augment": augment.model_copy(update=changed)})


def _with_places(config: Config, output: Path) -> Config:
    """The config with a ledger and a place for checkpoints, without which a stage that is run again would pay its
    teacher, and train, again."""
    changed: dict[str, Any] = {}
    augment, train, judge = config.teacher_augment, config.train, config.evaluate.judge
    ledger = str(output / "ledger")
    if not augment.ledger and (augment.asks_models or augment.verify != "none"):
        changed["teacher_augment"] = augment.model_copy(update={"ledger": ledger})
    if not train.checkpoint_uri:
        changed["train"] = train.model_copy(update={"checkpoint_uri": str(output / "checkpoints")})
    if judge is not None and not judge.ledger:
        changed["evaluate"] = config.evaluate.model_copy(update={"judge": judge.model_copy(update={"ledger": ledger})})
    return config.model_copy(update=changed)


def _claim(config: Config, output: Path, runner: Runner) -> str:
    """Writes down what the folder's run is, and returns its id; refuses a folder that holds another run.

    Raises:
        UserError: Names what differs.
    """
    identity = {
        "llm2llm": version("llm2llm"),
        "code": _code_hash(),
        "runner": runner,
        "config": config.model_dump(mode="json"),
        "output": str(output),
    }
    path = output / "run.json"
    run_id = ""
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(
                f"{path}: not written by llm2llm; choose another --output, or --fresh to discard it"
            ) from None
        run_id = before.pop("run_id", "") if isinstance(before, dict) else ""
        if isinstance(before, dict) and isinstance(before.get("output"), str):
            before = moved(before, before["output"], str(output))
        if before != identity:
            differences = ", ".join(_differences(before, identity)[:5])
            raise UserError(
                f"--output {output} holds the run of another config ({differences}); choose another folder, or --fresh "
                "to discard that run"
            )
    run_id = run_id or uuid4().hex
    write_text(path, json.dumps({"run_id": run_id, **identity}, indent=2, ensure_ascii=False) + "\n")
    return run_id


def of_other_code(output: Path) -> bool:
    """Whether a folder holds a run, finished or not, that other code than this has made."""
    try:
        before = json.loads((output / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(before, dict) and before.get("code") != _code_hash()


def _code_hash() -> str:
    """A hash of this package's own source: stages that other code finished are not taken over."""
    import llm2llm.components
    import llm2llm.pipelines

    return source_hash(*(Path(next(iter(package.__path__))) for package in (llm2llm.components, llm2llm.pipelines)))


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in sorted(before.keys() | now.keys()):
            where = f"{path}.{key}".removeprefix(".").removeprefix("config.")
            found += _differences(before.get(key), now.get(key), where)
        return found
    return [] if before == now else [f"{path}: {_short(before)} then, {_short(now)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _collect(output: Path) -> dict[str, Any]:
    """Puts what a person reads at the top of the output folder: report, summary with times, the best student."""
    finished = finished_stages(output)
    notes = finished.get(("detect_changes", None, None))
    if notes is not None and not any(stage == "report" for stage, _, _ in finished):
        _, _, why = Path(notes["outputs"]["notes"]).read_text(encoding="utf-8").partition("\n\n")  # after its heading
        return {"nothing_new": why.strip()}
    last = max(iteration for stage, iteration, _ in finished if stage == "report" and iteration is not None)
    report = finished["report", last, None]["outputs"]
    summary = without_record(json.loads(Path(report["summary"]).read_text(encoding="utf-8")))
    seconds: dict[str, float] = {}
    for (stage, iteration, _), event in finished.items():
        if iteration is None or iteration <= last:
            seconds[stage] = round(seconds.get(stage, 0.0) + event["seconds"], 3)
    summary["seconds_by_stage"] = dict(sorted(seconds.items()))
    for name, shown_as in (("html", "report.html"), ("markdown", "report.md"), ("manifest", "manifest.json")):
        with atomic_file(output / shown_as) as partial:
            shutil.copyfile(report[name], partial)
    best = finished["train", summary["best_iteration"], None]["outputs"]["model"]
    with atomic_folder(output / "student") as partial:
        shutil.copytree(best, partial, dirs_exist_ok=True)
    write_text(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def finished_stages(output: Path) -> dict[tuple[str, int | None, int | None], dict[str, Any]]:
    """The last `finished` event of each stage, by stage, iteration and fold or shard; none before the first run."""
    path = output / "events.jsonl"
    events = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        with suppress(json.JSONDecodeError):  # a run that was killed may have left half a line
            events.append(json.loads(line))
    # A shard's number where a fold's would be: no stage has both.
    return {
        (e["stage"], e["iteration"], e.get("shard", e["fold"])): {**e, "outputs": _here(e["outputs"], output)}
        for e in events
        if e["event"] == "finished"
    }


def _here(outputs: Mapping[str, str], output: Path) -> dict[str, str]:
    """Where a stage's outputs are now: the folder may have been moved since."""
    return {name: str(output / "artifacts" / path.rpartition("/artifacts/")[2]) for name, path in outputs.items()}
