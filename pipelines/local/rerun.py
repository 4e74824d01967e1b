"""A run on this machine once more, from a stage on: into a folder of its own, with all that was before taken over."""

import json
import shutil
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config.loading import check_config
from llm2llm.pipelines.local.movable import moved
from llm2llm.pipelines.local.run import finished_stages, held, of_other_code, run_local

TAKEN = ("artifacts", "cache", "ledger", "run.json", "events.jsonl")
"""What is copied; the report and the student are made anew, and a training begins anew."""

Key = tuple[str, int | None, int | None]
"""Stage, iteration, fold or shard."""


def rerun(before: Path, stage: str, iteration: int | None, output: Path) -> dict[str, Any]:
    """Runs a finished or failed run again from a stage on, and returns the summary.

    The run before stays as it is. Teachers' answers are in the ledger, which is copied where it lies in the folder, so
    what was paid for is not paid for again.

    Args:
        before: The output folder of `llm2llm run`.
        stage: The first to run again; every stage after it runs again too.
        iteration: Which iteration's; None: the first that has the stage.
        output: A new folder.

    Raises:
        UserError: `before` is no run of this machine, or did not come as far as the stage; `output` is in use.
        RunFailed: A stage failed.
    """
    _check(before, stage, output)
    before, output = before.expanduser().absolute(), output.expanduser().absolute()
    if output == before or before in output.parents or output in before.parents:
        raise UserError(f"--output {output}: lies in the run's folder, or around it; choose another folder")
    with held(before):
        finished = finished_stages(before)
        kept = read_run(before)
        again = _from(finished, stage, iteration)
        if of_other_code(before):  # before anything is copied: the runner would refuse the copy
            raise UserError(
                f"{before}: another version of llm2llm ran it, and the stages that it finished are not taken over; run "
                "its config anew, or use that version"
            )
        try:
            output.mkdir(parents=True, exist_ok=True)
            for name in TAKEN:
                if (before / name).is_dir():
                    shutil.copytree(before / name, output / name)
                elif (before / name).is_file():
                    shutil.copyfile(before / name, output / name)
        except OSError as problem:
            raise UserError(f"--output {output}: cannot copy the run: {problem.strerror or problem}") from None
    _forget(output, {key: finished[key]["outputs"] for key in again})
    identity = moved(kept, str(kept["output"]), str(output))
    identity["run_id"] = ""  # it is another run
    write_text(output / "run.json", json.dumps(identity, indent=2, ensure_ascii=False) + "\n")
    config = check_config(identity["config"], "run.json")
    return run_local(config, output, identity["runner"], taken_over=True)


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        UserError: It is not one of ours.
    """
    try:
        kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = None
    if not isinstance(kept, dict) or not {"config", "runner", "output"} <= kept.keys():
        raise UserError(f"{folder}: run.json is damaged, so what was run is not known; run the config anew")
    return kept


def _check(before: Path, stage: str, output: Path) -> None:
    if not (before / "run.json").is_file():
        raise UserError(
            f"{before}: not the output folder of a run on this machine (it has no run.json). A run in a cluster "
            "is run again by `llm2llm submit`, which takes finished stages from Kubeflow's cache; a failed one goes on "
            "with Retry in Kubeflow's UI"
        )
    names = [name for name, one in STAGES.items() if not one.at_exit]
    if stage not in names:
        raise UserError(f"--from {stage}: no such stage{did_you_mean(stage, names)}; there are {', '.join(names)}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: not empty; choose a new folder, the run before stays as it is")


def _from(finished: dict[Key, dict[str, Any]], stage: str, iteration: int | None) -> list[Key]:
    """The finished stages from one on, in the order of the loop, which that of `STAGES` is."""
    order = {name: number for number, name in enumerate(STAGES)}
    its = sorted(-1 if key[1] is None else key[1] for key in finished if key[0] == stage)
    if STAGES[stage].from_iteration is None:
        if iteration is not None:
            raise UserError(f"--iteration {iteration}: {stage} runs once, before the loop; leave it out")
        iteration = -1
    first = its[0] if iteration is None and its else iteration
    reached = max((-1 if key[1] is None else key[1] for key in finished), default=-1)
    if first is None or (first not in its and first > reached):
        which = stage if first in (None, -1) else f"{stage} {first}"
        raise UserError(
            f"--from {which}: the run did not come so far; it has finished "
            f"{', '.join(sorted({key[0] for key in finished}, key=order.__getitem__)) or 'nothing'}, up to iteration "
            f"{max(reached, 0)}"
        )
    return [key for key in finished if (-1 if key[1] is None else key[1], order[key[0]]) >= (first, order[stage])]


def _forget(output: Path, again: dict[Key, dict[str, str]]) -> None:
    """Makes a copy of a run forget that stages have finished: in KFP's cache, and what the runner `process` keeps."""
    tails = [path.rpartition("/artifacts/")[2] for outputs in again.values() for path in outputs.values()]
    for file in sorted((output / "cache").rglob("*.json")):
        text = file.read_text(encoding="utf-8")
        if any(f"/artifacts/{tail}" in text for tail in tails):
            file.unlink()
    for tail in tails:
        (output / "artifacts" / tail).parent.joinpath("done.json").unlink(missing_ok=True)
    lines = []
    for line in (output / "events.jsonl").read_text(encoding="utf-8").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if (event["stage"], event["iteration"], event.get("shard", event["fold"])) not in again:
            lines.append(line)
    write_text(output / "events.jsonl", "".join(f"{line}\n" for line in lines))
