"""The points of a sweep as runs of Kubeflow Pipelines.

A run is called `SWEEP POINT`, and a point's name holds a hash of its settings. So the server itself knows what was
started: a sweep that goes on takes over the runs of these names that have not failed, whoever started them.
"""

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.pipelines.config import Config, to_parameters
from llm2llm.pipelines.kubeflow import follow
from llm2llm.pipelines.kubeflow.client import Cluster, equals
from llm2llm.pipelines.kubeflow.local_data import refuse_local_data
from llm2llm.pipelines.kubeflow.submit import Compiled, compile_upload, start, upload
from llm2llm.pipelines.sweep.local import folder_of, summary_of
from llm2llm.pipelines.sweep.points import Point
from llm2llm.pipelines.sweep.settings import SweepSettings


@dataclass(frozen=True)
class Place:
    """Where the runs of a sweep are."""

    cluster: Cluster
    experiment_id: str
    service_account: str = ""
    """Of the pods; empty: the config's `placement.service_account`."""
    pipeline_root: str = ""


def check_points(points: Sequence[Point]) -> None:
    """Refuses what only this machine has, before anything is sent.

    Raises:
        UserError: Names the key and the path.
    """
    for point in points:
        refuse_local_data(point.loaded(resolve=False), point.loaded(resolve=True))


def run_points(
    sweep: SweepSettings,
    points: Sequence[Point],
    output: Path,
    place: Place,
    say: Callable[[str], None],
    then: Callable[[], object] = lambda: None,
) -> list[str]:
    """Starts the points that have not finished, follows them, and keeps their summaries.

    Args:
        sweep: Its name, and `limits.points`.
        points: All of them; those with a summary in `output` stay as they are.
        output: The sweep's folder.
        place: Where the runs are.
        say: Shows a line to a person.
        then: Called after each point that has finished.

    Returns:
        A line for each point that failed, with the reason.

    Raises:
        ClusterProblem: The server refuses, or has not answered for long. The runs go on, and so does the sweep when it
            is started again.
    """
    waiting = [point for point in points if summary_of(output, point) is None]
    most = sweep.limits.points or len(waiting)
    failed: list[str] = []
    running: dict[Point, tuple[str, Compiled]] = {}
    uploaded: dict[str, tuple[str, str, bool]] = {}
    compiled: dict[str, Compiled] = {}
    while waiting or running:
        while waiting and len(running) < most:
            point = waiting.pop(0)
            config = point.loaded(resolve=False)
            made = _compiled(config, compiled)
            run_id = _there(place, _run_name(sweep, point))
            if run_id:
                say(f"there     {point.label}: {place.cluster.run_link(run_id)}")
            else:
                if made.version not in uploaded:
                    uploaded[made.version] = upload(place.cluster, made)
                account = place.service_account or config.placement.service_account
                run_id = start(
                    place.cluster, made, uploaded[made.version], place.experiment_id, _run_name(sweep, point), account,
                    place.pipeline_root,
                )  # fmt: skip
                say(f"started   {point.label}: {place.cluster.run_link(run_id)}")
            running[point] = run_id, made
        for point, (run_id, made) in list(running.items()):
            run = place.cluster.call(place.cluster.client.runs.run_service_get_run, run_id)
            if run.state not in follow.ENDED:
                continue
            del running[point]
            problem = _collected(run, made, point, output, place)
            if problem:
                failed.append(f"{point.label}: {problem}; {place.cluster.run_link(run_id)}")
                say(f"failed    {failed[-1]}")
            else:
                say(f"finished  {point.label} ({len(waiting) + len(running)} to go)")
                then()
        if running:
            time.sleep(follow.POLL_SECONDS)
    return failed


def _compiled(config: Config, compiled: dict[str, Compiled]) -> Compiled:
    """The config compiled. Points that differ in their random seeds share a version: seeds are its parameters."""
    plain = config.model_copy(
        update={"random_seed": 0, "prepare": config.prepare.model_copy(update={"random_seed": None})}
    )
    key = plain.model_dump_json()
    if key not in compiled:
        compiled[key] = compile_upload(plain)
    return replace(compiled[key], parameters=to_parameters(config))


def _run_name(sweep: SweepSettings, point: Point) -> str:
    return f"{sweep.name} {point.key}"


def _there(place: Place, name: str) -> str:
    """The id of a run of this name that has not failed; empty where there is none."""
    found = place.cluster.call(
        place.cluster.client.runs.run_service_list_runs,
        experiment_id=place.experiment_id,
        filter=equals("display_name", name),
        page_size=100,
        sort_by="created_at desc",
        **place.cluster.scope(),
    )
    usable = (run for run in found.runs or [] if run.state not in follow.ENDED or run.state == "SUCCEEDED")
    return next((str(run.run_id) for run in usable), "")


def _collected(run: Any, made: Compiled, point: Point, output: Path, place: Place) -> str:
    """Keeps the summary of a run that has ended; else says what is wrong."""
    if run.state != "SUCCEEDED":
        return f"the run ended as {run.state}"
    unseen = follow.Shown(made, io.StringIO())
    left = follow.Sight(place.cluster, made, run.run_id, place.pipeline_root, unseen).root(run)
    summary = left.summary()
    if summary is None:
        return f"it succeeded, and its summary cannot be read ({left.problem or 'there is none'})"
    write_text(folder_of(output, point) / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return ""
