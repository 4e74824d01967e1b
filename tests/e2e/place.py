"""Where an end-to-end run happens: a Kubeflow, a config, and what was started there."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from llm2llm.pipelines.config import Config, load_config
from llm2llm.pipelines.kubeflow.client import Cluster
from llm2llm.pipelines.kubeflow.follow import ENDED, follow, told_tasks
from llm2llm.pipelines.kubeflow.run_root import RunRoot, run_folder
from llm2llm.pipelines.kubeflow.submit import Compiled, compile_upload, start, upload
from llm2llm.pipelines.kubeflow.workflow import Workflow, read_workflow

OK, LOOK, FAIL, SKIP = "ok", "look", "fail", "skip"


@dataclass(frozen=True)
class Outcome:
    """What one check found."""

    check: str
    status: str
    """OK; LOOK: a person should judge it; FAIL; SKIP: it could not be made."""
    note: str


@dataclass
class Started:
    """A run in the cluster."""

    run_id: str
    config: Config
    compiled: Compiled
    code: int = -1
    """The exit code that `llm2llm submit --wait` would have; -1: it was not waited for."""


@dataclass
class Place:
    """The Kubeflow, and how it is asked."""

    cluster: Cluster
    source: str
    """The config: a file, or a shipped one's name."""
    overrides: tuple[str, ...] = ()
    pipeline_root: str = ""
    service_account: str = ""
    timeout: float = 3 * 3600.0
    """Seconds that one run may take."""
    say: Callable[[str], None] = print
    started: list[Started] = field(default_factory=list)

    def compiled(self, overrides: Iterable[str] = ()) -> tuple[Config, Compiled]:
        """The config, with further overrides."""
        config = load_config(self.source, [*self.overrides, *overrides])
        return config, compile_upload(config)

    def start(self, what: str, overrides: Iterable[str] = ()) -> Started:
        """Submits the config, with overrides of this run's own."""
        config, compiled = self.compiled(overrides)
        uploaded = upload(self.cluster, compiled)
        experiment = self.cluster.experiment_id("llm2llm e2e", create=True)
        account = self.service_account or config.placement.service_account
        name = f"e2e {what} {compiled.version}"
        run_id = start(self.cluster, compiled, uploaded, experiment, name, account, self.pipeline_root)
        self.say(f"{what}: {self.cluster.run_link(run_id)}")
        self.started.append(Started(run_id, config, compiled))
        return self.started[-1]

    def wait(self, run: Started) -> Started:
        """Follows a run to its end."""
        run.code = follow(self.cluster, run.compiled, run.run_id, self.timeout, self.pipeline_root, sys.stdout)
        return run

    def run(self, what: str, overrides: Iterable[str] = ()) -> Started:
        """Submits and follows."""
        return self.wait(self.start(what, overrides))

    def until_running(self, run: Started, stage: str = "") -> bool:
        """Waits until a stage runs, any or that of a name; False when the run has ended or the time is over."""
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            told = self.cluster.call(self.cluster.client.runs.run_service_get_run, run.run_id)
            running = {run.compiled.stages.get(name, name) for name, state in told_tasks(told) if state == "RUNNING"}
            if running & ({stage} if stage else set(run.compiled.stages.values())):
                return True
            if told.state in ENDED:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def workflow(self, run: Started) -> Workflow | None:
        """The run's Workflow."""
        return read_workflow(self.cluster, run.run_id)

    def root(self, run: Started) -> RunRoot:
        """The folder of its artifacts."""
        workflow: Any = self.workflow(run)
        named = run_folder(self.pipeline_root, run.compiled.pipeline, run.run_id)
        return RunRoot(named or (workflow.root if workflow else ""))


POLL_SECONDS = 3.0
