"""The checks of an end-to-end run, each on its own."""

import json
import uuid
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.inspect.run_files import open_run
from llm2llm.pipelines.kubeflow import schedule as schedules
from llm2llm.pipelines.kubeflow.follow import EXIT_TERMINATED
from llm2llm.pipelines.kubeflow.submit import upload
from tests.e2e.compare import compare_hashes, compare_scores
from tests.e2e.place import FAIL, OK, SKIP, Outcome, Place, Started
from tests.e2e.table import taken_over

NEW_YEAR = "0 0 3 1 1 *"
"""A time at which nothing is due while this runs."""
TEXTS = {
    "description": "{{workflow.name}} {{=1+1}} {{$.inputs.parameters['task']}} {{task}} {{ {% for %} $$HOME $$x$$ "
    '${HOME} $(KUBERNETES_SERVICE_HOST) $(id) `id` She said "it\'s 5 < 7"\n\n\tC:\\new \\frac{1}{2} \u2028 '
    "ünï 漢字 %s {0} #",
    "instruction": '{{=1+1}} $$x "it\'s"\n$(HOSTNAME)',
    "question_cue": "{{task}} $$",
    "answer_cue": "'\"{{",
}
"""Texts that Argo, KFP's launcher or the kubelet would change, by key of the task."""


def succeeded(check: str, run: Started) -> Outcome:
    """Whether a run came to a good end."""
    return Outcome(check, OK if run.code == 0 else FAIL, f"exit code {run.code}; run {run.run_id}")


def against_local(place: Place, run: Started, local: Path) -> list[Outcome]:
    """What a run has left, held against an output folder of `llm2llm run` of the same config."""
    root = place.root(run)
    theirs = root.summary()
    if theirs is None:
        return [Outcome("fetch", FAIL, f"no summary is under {root.folder or 'an unknown root'}: {root.problem}")]
    ours = json.loads((local / "summary.json").read_text(encoding="utf-8"))
    found = [Outcome("fetch", OK, f"the last report is under {root.folder}"), compare_scores(theirs, ours)]
    try:
        return [*found, compare_hashes(open_run(root.folder).manifest(), open_run(str(local)).manifest())]
    except UserError as problem:
        return [*found, Outcome("hashes", FAIL, str(problem))]


def cached(place: Place, run: Started) -> Outcome:
    """What a second run of the same version has taken over from the first."""
    workflow = place.workflow(run)
    if workflow is None:
        return Outcome("cache", SKIP, "the server does not tell the Workflow")
    names = taken_over(workflow, run.compiled.stages)
    return Outcome("cache", OK if names else FAIL, f"{len(names)} stages taken over: {', '.join(names) or 'none'}")


def scheduled(place: Place) -> list[Outcome]:
    """Makes a schedule of the config, finds it, pauses it, and deletes it."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster = place.cluster
    _, compiled = place.compiled()
    uploaded = upload(cluster, compiled)
    experiment = cluster.experiment_id("llm2llm e2e", create=True)
    made = schedules.set_schedule(cluster, compiled, uploaded, experiment, name, NEW_YEAR, say=place.say)
    try:
        (one,) = schedules.our_schedules(cluster, name)
        paused = schedules.pause(cluster, name, place.say)
        (off,) = schedules.our_schedules(cluster, name)
        good = (made, one.enabled, paused, off.enabled) == ("created", True, "paused", False)
        note = f"{made}, then {'enabled' if one.enabled else 'disabled'}, {paused}"
        found = [Outcome("schedule", OK if good else FAIL, note)]
    finally:
        schedules.remove(cluster, name, force=True)
    left = schedules.our_schedules(cluster, name)
    return [*found, Outcome("schedule deleted", FAIL if left else OK, f"{len(left)} left")]


def terminated(place: Place) -> Outcome:
    """Terminates a run as soon as a stage runs; `submit --wait` would exit with 3."""
    run = place.start("terminate", ("max_iterations=1",))
    if not place.until_running(run):
        return Outcome("terminate", FAIL, "no stage ever ran")
    place.cluster.call(place.cluster.client.runs.run_service_terminate_run, run.run_id)
    place.wait(run)
    return Outcome("terminate", OK if run.code == EXIT_TERMINATED else FAIL, f"exit code {run.code}, 3 is right")


def texts_arrive(place: Place) -> Outcome:
    """Sends texts that look like templates, and reads in what `configure` has left what reached the stages."""
    run = place.run("texts", ["max_iterations=1", *(f"task.{key}={json.dumps(text)}" for key, text in TEXTS.items())])
    sent = {key: getattr(run.config.task, key) for key in TEXTS}
    if sent != TEXTS:
        return Outcome("texts", FAIL, "they were changed on this machine already")
    root = place.root(run)
    content = root.text("configure", "config")
    if not content:
        return Outcome("texts", FAIL, f"configure has left no config under {root.folder}: {root.problem}")
    task = json.loads(content)["task"]
    wrong = [f"{key}: {task.get(key)!r} in place of {text!r}" for key, text in TEXTS.items() if task.get(key) != text]
    if wrong:
        return Outcome("texts", FAIL, "; ".join(wrong))
    return Outcome("texts", OK if run.code == 0 else FAIL, f"all unchanged; exit code {run.code}")
