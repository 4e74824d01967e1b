"""Follows a run in a cluster to its end: a line for each stage that starts or ends, and why it failed.

What it is told, in this order; the first that has an answer counts:

    the states of tasks in Kubeflow's API      they stand still once Argo stores a large Workflow compressed
    the Workflow, over the older API           `workflow`
    the run's artifacts in object storage      `run_root`
    the run's own state                        always
"""

import re
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TextIO

from llm2llm.pipelines.inspect.tables import summary_table
from llm2llm.pipelines.kubeflow.client import Cluster, ClusterProblem
from llm2llm.pipelines.kubeflow.run_root import RunRoot, error_of, run_folder
from llm2llm.pipelines.kubeflow.submit import Compiled
from llm2llm.pipelines.kubeflow.workflow import Workflow, failures, pod_log, pod_name, read_workflow

EXIT_SUCCEEDED, EXIT_FAILED, EXIT_TERMINATED, EXIT_TIMEOUT, EXIT_INTERRUPTED = 0, 1, 3, 124, 130

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
POLL_SECONDS = 5.0
OUT_OF_TOUCH_SECONDS = 600.0
"""How long a server that no longer answers is asked again while a run is followed."""
QUIET_SECONDS = 30.0
"""How long the states of tasks may stay as they are before it is looked at whether they are told at all."""
LOOK_SECONDS, LOOK_AGAIN_SECONDS = 15.0, 60.0
"""Between two looks at the Workflow or the artifacts: of a run whose states are no longer told, of any other."""
HEARTBEAT_SECONDS = 600.0
"""After this long without a line, one says that the run goes on."""
ORDER = ("RUNNING", "FAILED", "CANCELED", "PENDING", "PAUSED", "SUCCEEDED", "SKIPPED")

WORKFLOW, ARTIFACTS = "workflow", "artifacts"

Tasks = list[tuple[str, str]]
"""(name, state) of what a server lists: stages, drivers, loops, the pods inside a stage."""


def follow(
    cluster: Cluster,
    compiled: Compiled,
    run_id: str,
    timeout: float = 0,
    pipeline_root: str = "",
    stream: TextIO | None = None,
) -> int:
    """Shows a run's stages until it ends.

    Args:
        timeout: Seconds after which it is no longer followed; 0: never. The run goes on.
        pipeline_root: Where its artifacts go; empty: as the run says.
        stream: Where to write; default: standard output.

    Returns:
        The exit code: 0 it succeeded; 1 it failed; 3 it was terminated; 124 `timeout` has passed; 130 interrupted.

    Raises:
        ClusterProblem: The server has not answered for ten minutes, or no longer knows who we are. The run goes on.
    """
    shown = Shown(compiled, stream or sys.stdout)
    sight = Sight(cluster, compiled, run_id, pipeline_root, shown)
    link = cluster.run_link(run_id)
    started = heard = time.monotonic()
    try:
        while True:
            try:
                run = cluster.call(cluster.client.runs.run_service_get_run, run_id)
                heard = time.monotonic()
            except ClusterProblem as problem:
                # 500 is what Kubeflow answers while its database restarts; a look at the run may be asked for again.
                passing = problem.passing or problem.status == 500
                if not passing or time.monotonic() - heard > OUT_OF_TOUCH_SECONDS:
                    raise ClusterProblem(f"{problem}; the run goes on: {link}", problem.status) from None
                run = None
            if run is not None:
                shown.update(run.state or "", sight.tasks(run))
                if run.state in ENDED:
                    return _ended(run, cluster, compiled, shown, sight)
            if timeout and time.monotonic() - started > timeout:
                shown.line(f"not followed any longer, after {timeout:.0f} s; the run goes on: {link}")
                return EXIT_TIMEOUT
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        shown.line(f"not followed any longer; the run goes on: {link}")
        return EXIT_INTERRUPTED


class Shown:
    """What has been said about a run: a line for each stage that starts or ends, and on a terminal one that changes."""

    def __init__(self, compiled: Compiled, stream: TextIO) -> None:
        self._names = {**{name: name for name in compiled.stages.values()}, **compiled.stages}
        self._width = max(map(len, self._names.values()))
        self._since: dict[str, float] = {}
        self._started = self._said = self._news = time.monotonic()
        self._last = "no stage has started"
        self._stream = stream
        self._terminal = stream.isatty()
        self.states: dict[str, str] = {}
        """Of each stage that has been heard of."""
        self.run_states: list[str] = []
        """The run's own states, in the order in which they were seen."""

    def line(self, text: str) -> None:
        self._stream.write(("\r\x1b[K" if self._terminal else "") + text + "\n")
        self._stream.flush()
        self._said = time.monotonic()

    def update(self, run_state: str, tasks: Tasks) -> None:
        """Says what is new.

        Args:
            run_state: The run's own state.
            tasks: What is known of its tasks.
        """
        if run_state not in self.run_states[-1:]:
            self.run_states.append(run_state)
            if run_state == "CANCELING":
                self._say("the run", "is being terminated")
        now = stage_states(tasks, self._names)
        for name in (name for name in dict.fromkeys(self._names.values()) if name in now):
            state, before = now[name], self.states.get(name, "")
            if state == before:
                continue
            self.states[name], self._last, self._news = state, name, time.monotonic()
            if state == "RUNNING":
                self._since[name] = time.monotonic()
                self._say(name, "runs again" if before == "FAILED" else "runs")
            elif state in ("SUCCEEDED", "FAILED", "CANCELED") or (state == "SKIPPED" and before):
                took = f" after {_duration(time.monotonic() - self._since[name])}" if name in self._since else ""
                self._say(
                    name,
                    {"SUCCEEDED": "done", "SKIPPED": "skipped", "CANCELED": "terminated"}.get(state, "failed") + took,
                )
        if run_state in ENDED:
            return
        if self._terminal:
            running = ", ".join(self._running()) or "waiting for a stage to start"
            self._stream.write(f"\r\x1b[K{_duration(time.monotonic() - self._started)}  {running}")
            self._stream.flush()
        elif time.monotonic() - self._said > HEARTBEAT_SECONDS:
            last = ", ".join(self._running()) or self._last
            quiet = _duration(time.monotonic() - self._news)
            self._say("the run", f"goes on ({run_state or 'no state yet'}), nothing new for {quiet}; last: {last}")

    def _running(self) -> list[str]:
        return [name for name, state in self.states.items() if state == "RUNNING"]

    def _say(self, name: str, what: str) -> None:
        self.line(f"{datetime.now():%H:%M:%S}  {name:<{self._width}}  {what}")


class Sight:
    """What is known of a run's tasks, from the first source that tells it; see the module."""

    def __init__(self, cluster: Cluster, compiled: Compiled, run_id: str, pipeline_root: str, shown: Shown) -> None:
        self._cluster, self._compiled, self._run_id, self._shown = cluster, compiled, run_id, shown
        self._root = RunRoot(run_folder(pipeline_root, compiled.pipeline, run_id))
        self._told: Tasks = []
        self._found: Tasks = []
        """What is known beyond that."""
        self._changed = time.monotonic()
        self._next_look = 0.0
        self._blind = ""
        """From where the tasks are told instead, once they are no longer told."""
        self._workflow: Workflow | None = None
        self._doubted = False

    def tasks(self, run: Any) -> Tasks:
        """(name, state) of each task of a run as the server has just told it."""
        told = told_tasks(run)
        now = time.monotonic()
        ended = run.state in ENDED
        if told != self._told:
            self._told, self._changed = told, now
        quiet = now - self._changed >= QUIET_SECONDS and now >= self._next_look
        if self._blind if ended else quiet:
            self._look(run)
            self._next_look = now + (LOOK_SECONDS if self._blind else LOOK_AGAIN_SECONDS)
        if self._blind == WORKFLOW:
            return self._found
        # A stage that has left outputs is over, whatever it was when its state was told last.
        over = {self._compiled.stages[key] for key, _ in self._found}
        return [*((task, state) for task, state in told if self._name(task) not in over), *self._found]

    def root(self, run: Any) -> RunRoot:
        """The folder of the run's artifacts: where it was said to be, as the run says, or as its Workflow says."""
        if not self._root.folder:
            own = (run.runtime_config.pipeline_root if run.runtime_config else "") or ""
            folder = run_folder(own, self._compiled.pipeline, self._run_id)
            if not folder and (workflow := self._workflow or self.workflow()):
                folder = workflow.root
            self._root = RunRoot(folder)
        if run.state in ENDED:  # whatever kept it from being read meanwhile may be gone
            self._root = RunRoot(self._root.folder)
        return self._root

    def workflow(self) -> Workflow | None:
        """The run's Workflow as it is now; as it was last where it is told no longer."""
        self._workflow = read_workflow(self._cluster, self._run_id) or self._workflow
        return self._workflow

    def _look(self, run: Any) -> None:
        workflow = read_workflow(self._cluster, self._run_id)
        if workflow is not None:
            self._workflow = workflow
            if workflow.compressed or self._blind == WORKFLOW:
                self._found = workflow.tasks
                self._say_once(WORKFLOW, f"they are read from its Workflow, of {workflow.size / 1000:.0f} KB")
            return
        if self._blind == WORKFLOW:
            return  # what was read last counts, until it can be read again
        root = self.root(run)
        finished = root.finished()
        known = {self._name(task) for task, _ in self._told}
        left = [key for key in self._compiled.stages if key in finished]
        if self._blind or any(self._compiled.stages[key] not in known for key in left):
            self._found = [(key, "SUCCEEDED") for key in left]
            self._say_once(ARTIFACTS, f"what stages leave behind is looked for in {root.folder}")
        elif root.problem and not self._doubted and time.monotonic() - self._changed > HEARTBEAT_SECONDS:
            self._doubted = True
            self._shown.line(
                "the states of this run's tasks have not changed for long. Kubeflow stops telling them once a Workflow "
                f"is large, and neither Workflow nor artifacts can be read from here ({root.problem}): from here on "
                "only the run's own state is certain"
            )

    def _name(self, task: str) -> str:
        return self._compiled.stages.get(task, task)

    def _say_once(self, source: str, what: str) -> None:
        if self._blind != source:
            self._blind = source
            self._shown.line(f"Kubeflow no longer tells the states of this run's tasks; from here on {what}")


def told_tasks(run: Any) -> Tasks:
    """(name, state) of each task that a V2beta1Run lists."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return [(task.display_name, task.state) for task in details if task.display_name and task.state]


def stage_states(tasks: Iterable[tuple[str, str]], names: Mapping[str, str]) -> dict[str, str]:
    """The state of each stage that a run has come to.

    The server lists every node of the workflow: drivers, loops, the pods inside a stage. A stage's own node is called
    by its task's key, by newer servers by its name. The items of a loop share a name; they are failed, running or done
    together.

    Args:
        tasks: (name, state) of each node.
        names: Task key or name -> name.
    """
    together: dict[str, set[str]] = {}
    for task, state in tasks:
        if task in names:
            together.setdefault(names[task], set()).add(state)
    return {
        name: min(states, key=lambda one: ORDER.index(one) if one in ORDER else len(ORDER))
        for name, states in together.items()
    }


def was_terminated(run: Any, seen: list[str]) -> bool:
    """Whether somebody ended a run. Kubeflow calls it CANCELED or, far more often, FAILED, with CANCELING before it.

    Args:
        run: A V2beta1Run that has ended.
        seen: The states that it was seen in, in order; its own history may lack one that was short.
    """
    if run.state == "CANCELED":
        return True
    history = [one.state for one in run.state_history or [] if one.state]
    # The last state before the end: what was terminated, retried in the UI and failed then has failed.
    last = [next((state for state in reversed(states) if state not in ENDED), "") for states in (history, seen)]
    return run.state == "FAILED" and "CANCELING" in last


def _ended(run: Any, cluster: Cluster, compiled: Compiled, shown: Shown, sight: Sight) -> int:
    link = cluster.run_link(run.run_id)
    if run.state in ("FAILED", "CANCELED"):
        if was_terminated(run, shown.run_states):
            shown.line(f"the run was terminated: {link}")
            return EXIT_TERMINATED
        for line in _failure(run, cluster, compiled, shown, sight):
            shown.line(line)
        return EXIT_FAILED
    shown.line("")
    root = sight.root(run)
    if _nothing_was_new(compiled, shown):
        notes = " ".join(root.text("detect-changes", "notes").split())
        shown.line(notes or "nothing was new: detect_changes found nothing that the last run was not made from")
        shown.line("no student was trained, and there is no report (promote.only_if_new)")
        shown.line(f"the run succeeded: {link}")
        return EXIT_SUCCEEDED
    summary = root.summary()
    if summary is not None:
        shown.line(summary_table(summary))
    else:
        # Kubeflow's API tells neither artifacts' addresses nor their content (kubeflow/pipelines#9858).
        where = f", under {root.folder}" if root.folder else ""
        why = root.problem or "no report can be read there"
        shown.line(f"the table is in the last report of the run{where} ({why})")
    shown.line(f"the run succeeded: {link}")
    return EXIT_SUCCEEDED


def _nothing_was_new(compiled: Compiled, shown: Shown) -> bool:
    stages = set(compiled.stages.values())
    ran = {name for name, state in shown.states.items() if state != "SKIPPED"}
    return "detect_changes" in stages & ran and not any(name.split()[0] in ("train", "report") for name in ran)


def _failure(run: Any, cluster: Cluster, compiled: Compiled, shown: Shown, sight: Sight) -> list[str]:
    """Lines that say where a run failed, why, and where to look."""
    link = cluster.run_link(run.run_id)
    workflow = sight.workflow()
    names = {**{name: name for name in compiled.stages.values()}, **compiled.stages}
    tasks = [*told_tasks(run), *(workflow.tasks if workflow else [])]
    states = {**shown.states, **(stage_states(workflow.tasks, names) if workflow else {})}
    failed = [name for name in dict.fromkeys(names.values()) if states.get(name) == "FAILED"]
    drivers = _failed_drivers(tasks, {**compiled.groups, **compiled.stages})
    places = [*failed, *(f"the driver of {name}" for name in drivers)]
    reason = _reason(run, cluster, compiled, failed, sight, workflow)
    what = f"failed in {', '.join(places)}" if places else "failed"
    lines = [f"the run {what}{f': {reason}' if reason else ''}; the logs are at {link}"]
    namespace = cluster.namespace or (workflow.namespace if workflow else "") or "kubeflow"
    account = run.service_account or ""
    if "service account" in reason or "serviceaccount" in reason:
        lines.append(
            f"see to the service account: kubectl --namespace {namespace} get serviceaccounts; --service-account "
            "names another, and manifests/ makes llm2llm-runs"
        )
    elif not shown.states and not reason:
        asked = f"kubectl --namespace {namespace} get serviceaccount {account}" if account else ""
        lines.append(
            f"no stage has started{f'; is there such a service account? {asked}' if asked else ''}; why it failed is "
            f"in the Workflow, for an hour: {_look_at(namespace, run.run_id)}"
        )
    elif not reason:
        lines.append(f"why is in the Workflow, for an hour: {_look_at(namespace, run.run_id)}")
    return lines


def _look_at(namespace: str, run_id: str) -> str:
    return f"kubectl --namespace {namespace} get workflows --selector pipeline/runid={run_id} --output yaml"


def _failed_drivers(tasks: Tasks, names: Mapping[str, str]) -> list[str]:
    """The tasks whose driver failed. It is called `<task>-driver`, and a try of it `<task>-driver(0)`."""
    drivers = {f"{key}-driver": name for key, name in {**names, "root": "the pipeline"}.items()}
    states = dict(stage_states(tasks, drivers))
    tries = stage_states([(name.partition("(")[0], state) for name, state in tasks if "(" in name], drivers)
    return [name for name, state in {**tries, **states}.items() if state == "FAILED"]


def _reason(
    run: Any, cluster: Cluster, compiled: Compiled, failed: list[str], sight: Sight, workflow: Workflow | None
) -> str:
    """Why a run failed: what its stage says in its log, what Kubernetes says, or what the run says; else empty."""
    keys = {name: key for key, name in compiled.stages.items()}
    root = sight.root(run)
    nodes = failures(workflow) if workflow else []
    # `Error (exit code 1)` says less than a log does; `OOMKilled (exit code 137)` says what the log cannot.
    messages = [text for node in nodes if (text := _short(node.message)) and not _EXIT_CODE.fullmatch(text)]
    said = next((said for name in reversed(failed) if (said := error_of(root.log(keys[name])))), "")
    if not said and workflow:
        pods = [pod_name(node, workflow) for node in nodes if node.type == "Pod"]
        said = next((said for pod in pods[:3] if (said := error_of(pod_log(cluster, run.run_id, pod)))), "")
    told = _short(run.error.message) if run.error and run.error.message else ""
    if said:
        return f"{said} ({messages[0]})" if messages else said
    return next((text for text in (told, *messages, _short(workflow.message) if workflow else "") if text), "")


_EXIT_CODE = re.compile(r"(main: )?Error \(exit code \d+\).*")


def _short(text: str) -> str:
    return " ".join(text.split())[:500]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
