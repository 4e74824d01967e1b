"""The quickstart on a real Kubeflow, end to end; exits with 1 when a check fails.

    python -m tests.e2e.run --host http://localhost:8080 --set images.cpu=... --set images.train=...

Object storage is read with what AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like say; kubectl is used where there is
one.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.kubeflow.client import connect
from tests.e2e import checks
from tests.e2e.place import FAIL, SKIP, Outcome, Place, Started
from tests.e2e.pods import HOW, delete_pod
from tests.e2e.table import size_table

CHECKS = ("run", "local", "again", "schedule", "terminate", "texts", "pods")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the checks and prints what they found."""
    given = _arguments(arguments)
    cluster = connect(given.host, given.token_file, given.ca_file, given.namespace)
    place = Place(cluster, given.config, tuple(given.overrides), given.pipeline_root, given.service_account)
    outcomes: list[Outcome] = []

    def check(name: str, make: Callable[[], list[Outcome]]) -> None:
        if name not in given.only:
            return
        print(f"\n== {name}", flush=True)
        try:
            found = make()
        except UserError as problem:
            found = [Outcome(name, FAIL, str(problem))]
        outcomes.extend(found)
        for one in found:
            print(f"{one.status:<5} {one.check}: {one.note}", flush=True)

    first: list[Started] = []

    def run() -> list[Outcome]:
        first.append(place.run("run"))
        return [checks.succeeded("run", first[0])]

    def local() -> list[Outcome]:
        folder = given.local or _run_here(given.config, given.overrides, given.output)
        return checks.against_local(place, first[0], folder)

    def again() -> list[Outcome]:
        second = place.run("again")
        return [checks.succeeded("again", second), checks.cached(place, second)]

    check("run", run)
    done = [one for one in first if one.code == 0]
    needs_it = [Outcome("local, again", SKIP, "the first run did not succeed")]
    for name, make in (("local", local), ("again", again)):
        check(name, make if done else lambda: needs_it)
    check("schedule", lambda: checks.scheduled(place))
    check("terminate", lambda: [checks.terminated(place)])
    check("texts", lambda: [checks.texts_arrive(place)])
    check("pods", lambda: [delete_pod(place, how) for how in HOW])

    for one in first:
        workflow = place.workflow(one)
        print(f"\n{size_table(workflow, one.compiled.stages) if workflow else 'the server does not tell the Workflow'}")
    print()
    for outcome in outcomes:
        print(f"{outcome.status:<5} {outcome.check:<22} {outcome.note}")
    return int(any(outcome.status == FAIL for outcome in outcomes))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True, help="URL of Kubeflow Pipelines")
    parser.add_argument("--namespace", default="", help="on a Kubeflow for several users")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--service-account", default="", help="default: placement.service_account")
    parser.add_argument("--pipeline-root", default="", help="where artifacts go; default: the server's own")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for llm2llm submit")
    parser.add_argument("--output", type=Path, default=Path("build/e2e"), help="where the run on this machine goes")
    parser.add_argument(
        "--local", type=Path, help="an output folder of `llm2llm run` of the same config, if there is one"
    )
    parser.add_argument("--only", default=",".join(CHECKS), help=f"some of {','.join(CHECKS)}")
    given = parser.parse_args(arguments)
    given.only = given.only.split(",")
    if unknown := [name for name in given.only if name not in CHECKS]:
        parser.error(f"--only: no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    if "run" not in given.only and ("local" in given.only or "again" in given.only):
        parser.error("--only: local and again need run")
    return given


def _run_here(config: str, overrides: Sequence[str], output: Path) -> Path:
    """The same config on this machine; started again, it goes on where it was."""
    folder = output / "local"
    changes = [argument for override in overrides for argument in ("--set", override)]
    command = [sys.executable, "-m", "llm2llm.pipelines", "run", config, "--output", str(folder), *changes]
    if subprocess.run(command).returncode:
        raise UserError(f"the run on this machine failed; see {folder}")
    return folder


if __name__ == "__main__":
    try:
        code = main()
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        code = 2
    sys.exit(code)
