"""The loop in this process: each stage is called as a function, one after the other.

What a stage leaves is kept with the hashes of what it was handed, so a run that is started again takes over what it has
finished, as long as the same goes in and nothing is damaged:

    artifacts/train-1/model/            an output, under its name
    artifacts/train-1/done.json         written last: what went in, the outputs' metadata, what the stage returned,
                                        and the seconds it took

Runs that begin alike may share a folder, so that one does the work for all (`alike`).
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.lineage.records import SHA256
from llm2llm.components.shared.stage import say_finished
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.compiled import compiled_settings
from llm2llm.pipelines.config.form import to_parameters
from llm2llm.pipelines.kubeflow.components import component
from llm2llm.pipelines.local.alike import can_be_shared, held_place, take_over
from llm2llm.pipelines.local.movable import OUTPUT, moved
from llm2llm.pipelines.loop import run_loop


@dataclass(frozen=True)
class Done:
    """A stage that has ended well."""

    outputs: Mapping[str, LocalArtifact]
    returned: Any = None

    def __getitem__(self, name: str) -> LocalArtifact:
        return self.outputs[name]


class ProcessRunner:
    """Calls each stage, unless it has ended well before with the same inputs."""

    def __init__(self, config: Config, artifacts: Path, shared: Path | None = None, code: str = "") -> None:
        self._config = config
        self._artifacts = artifacts
        self._shared = shared
        self._code = code
        self._settings: Mapping[str, str] = {}

    def __call__(self, stage: str, **inputs: Any) -> Done:
        given = {name: value for name, value in inputs.items() if value is not None}
        if stage == "configure":
            # As the compiled pipeline hands them to its first task.
            compiled = settings_text(compiled_settings(self._config))
            given |= {"name": self._config.name, "compiled": compiled, **to_parameters(self._config)}
        elif STAGES[stage].sections:
            given["settings"] = self._settings[stage]
        done = self._done(stage, given)
        if stage == "configure":
            names = [name for name, one in STAGES.items() if one.sections]
            self._settings = dict(zip(names, done.returned, strict=True))
        elif STAGES[stage].hands_on:
            self._settings = {**self._settings, **dict(zip(STAGES[stage].hands_on, done.returned, strict=True))}
        return done

    def _done(self, stage: str, inputs: Mapping[str, Any]) -> Done:
        numbers = [str(inputs[name]) for name in ("iteration", "fold", "shard") if name in inputs]
        folder = self._artifacts / "-".join([stage, *numbers])
        outputs = STAGES[stage].outputs
        going_in = json.loads(json.dumps({name: _known_by(value) for name, value in sorted(inputs.items())}))
        if before := _before(folder, outputs, going_in):
            return before
        if self._shared is None or not can_be_shared(stage, inputs):
            return _made(folder, stage, inputs, going_in)
        alike = moved(going_in, str(self._artifacts.parent), OUTPUT)
        with held_place(self._shared, self._code, stage, alike) as place:
            if place.is_dir():
                take_over(place, folder)
                if found := _before(folder, outputs, going_in):
                    _say_taken_over(folder, stage, inputs, found)
                    return found
            made = _made(folder, stage, inputs, going_in)
            take_over(folder, place)
            return made

    def for_each(self, count: int, name: str, body: Callable[[Any], Any]) -> list[Any]:
        return [body(number) for number in range(count)]

    @contextmanager
    def only_if(self, condition: Any, name: str, holds: bool = True) -> Iterator[bool]:
        yield bool(condition) is holds


def run_in_process(config: Config, artifacts: Path, shared: Path | None = None, code: str = "") -> None:
    """Runs the loop of a config, and leaves what its stages write in `artifacts`.

    Args:
        config: As `run_local` has made it ready.
        artifacts: In the run's output folder.
        shared: A folder of runs that begin alike, on the same file system; see `alike`.
        code: A hash of this code, for `shared`.

    Raises:
        SystemExit: A stage refused its input (2) or was terminated (143); it has said so in an event.
        Exception: Whatever else a stage raises, likewise.
    """
    run_loop(config, ProcessRunner(config, artifacts, shared, code))


def _made(folder: Path, stage: str, inputs: Mapping[str, Any], going_in: Mapping[str, Any]) -> Done:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {name: LocalArtifact(str(folder / name)) for name in STAGES[stage].outputs}
    started = time.monotonic()
    returned = component(stage).python_func(**inputs, **written)
    kept = {
        "inputs": going_in,
        "outputs": {name: artifact.metadata for name, artifact in written.items()},
        "sha256": {name: content_hash(artifact.path) for name, artifact in written.items()},
        "returned": returned,
        "seconds": round(time.monotonic() - started, 3),
    }
    write_text(folder / "done.json", json.dumps(moved(kept, str(folder.parent.parent), OUTPUT), indent=1) + "\n")
    _free_memory()
    return Done(written, returned)


def _before(folder: Path, outputs: tuple[str, ...], going_in: Mapping[str, Any]) -> Done | None:
    """What the stage has left, when it was handed the same and every output is as it was."""
    file = folder / "done.json"
    if not file.is_file():
        return None
    try:
        kept = moved(json.loads(file.read_text(encoding="utf-8")), OUTPUT, str(folder.parent.parent))
    except ValueError:
        print(f"{file} is damaged: its stage runs again", flush=True)
        return None
    if kept["inputs"] != going_in:
        return None
    found = {name: LocalArtifact(str(folder / name), kept["outputs"][name]) for name in outputs}
    for name, artifact in found.items():
        path = Path(artifact.path)
        if not path.exists() or content_hash(path) != kept["sha256"][name]:
            print(f"{path} is damaged, or was changed, since it was written: its stage runs again", flush=True)
            return None
    return Done(found, kept["returned"])


def _say_taken_over(folder: Path, stage: str, inputs: Mapping[str, Any], done: Done) -> None:
    """So that the run's own record is as if it had done the work: it names the outputs, and what they cost."""
    kept = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    where = {"stage": stage, "iteration": inputs.get("iteration"), "fold": inputs.get("fold")}
    if "shard" in inputs:
        where["shard"] = inputs["shard"]
    print(f"{stage}: taken over from a run that begins alike", flush=True)
    say_finished(where, kept["seconds"], done.outputs, kept["sha256"])


def _known_by(value: Any) -> Any:
    """What an input is compared by: an artifact's hash; a plain value itself."""
    if isinstance(value, LocalArtifact):
        return value.metadata.get(SHA256) or content_hash(value.path)
    return [_known_by(one) for one in value] if isinstance(value, list) else value


def _free_memory() -> None:
    """What the stage before held, in cycles too, would be missed by the next: on a GPU a whole model."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
