"""The whole quickstart with its rows, ledger, checkpoints and registry on a real S3 server; says what it found there.

    python -m tests.support.quickstart_s3                       as it is shipped, three iterations: a few minutes
    python -m tests.support.quickstart_s3 --set max_iterations=1

A model on loopback judges every row that the grammar wrote, so that there are answers for the ledger. The exit code
says whether all of it is as it should be. Needs what the tests marked `s3` need.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from llm2llm.components.shared.ingest.sources import builtin_path
from llm2llm.components.shared.llm.ledger import list_entries
from llm2llm.components.shared.registry.production import current
from llm2llm.components.shared.storage import fetched, list_uris, write_bytes
from tests.support.loopback_endpoint import Endpoint, completion
from tests.support.rgw import S3Server, free_ports

DATA = ("seeds.jsonl", "validation.jsonl", "test.jsonl", "grammar.yaml")


def main() -> int:
    """Runs it and looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for llm2llm run")
    parser.add_argument("--runner", default="subprocess", help="as for llm2llm run")
    given = parser.parse_args()

    scratch = Path(tempfile.mkdtemp(prefix="quickstart-s3-"))
    server = S3Server(Path(tempfile.mkdtemp(prefix="s3-")), *free_ports(2))
    judge = Endpoint()
    judge.answer = lambda body, number: completion({"right": True, "confidence": 95, "answer": "none"})
    try:
        server.start()
        os.environ.update(server.environment())
        os.environ["LLM2LLM_CACHE"] = str(scratch / "cache")
        bucket = f"s3://{server.bucket()}"
        for name in DATA:
            write_bytes(f"{bucket}/data/{name}", builtin_path(f"builtin:support_tickets/{name}").read_bytes())
        asked = {"teacher": "openai", "model": "teacher-8b", "url": judge.url, "api_key_env": ""}
        settings = {
            "data.seeds": f"{bucket}/data/seeds.jsonl",
            "data.validation": f"{bucket}/data/validation.jsonl",
            "data.test": f"{bucket}/data/test.jsonl",
            "teacher_augment.grammar": f"{bucket}/data/grammar.yaml",
            "teacher_augment.ledger": f"{bucket}/ledger",
            "teacher_augment.verify": "judge",
            "teacher_augment.verification": json.dumps({"by": asked, "samples": 1}),
            "train.checkpoint_uri": f"{bucket}/checkpoints",
            "train.checkpoint_steps": "50",
            "promote.registry": f"{bucket}/registry",
            "promote.mode": "promote",
        }
        command = [sys.executable, "-m", "llm2llm.pipelines", "run", "quickstart", "--runner", given.runner]
        command += ["--output", str(scratch / "out")]
        for setting in [*(f"{key}={value}" for key, value in settings.items()), *given.overrides]:
            command += ["--set", setting]
        if code := subprocess.run(command).returncode:
            print((scratch / "out" / "run.log").read_text()[-3000:])
            return code
        return _look(bucket, scratch / "out", len(judge.requests))
    finally:
        judge.close()
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def _look(bucket: str, output: Path, requests: int) -> int:
    """Whether the run has left in the bucket what it should."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    test = {one["iteration"]: one["accuracy"]["test"]["value"] for one in summary["iterations"]}
    rise = test[summary["best_iteration"]] - test[0]
    entries = len(list(list_entries(f"{bucket}/ledger")))
    production = current(f"{bucket}/registry")
    promoted = fetched(f"{bucket}/registry/versions/{production.version}") if production else None
    same = promoted is not None and (
        (promoted / "model.safetensors").read_bytes() == (output / "student" / "model.safetensors").read_bytes()
    )
    stored = sum(json.loads(line)["checkpoints"] for line in _trainings(output))
    left = list(list_uris(f"{bucket}/checkpoints"))
    print(f"test accuracy {test[0]:.1%} to {test[summary['best_iteration']]:.1%}, {100 * rise:+.1f} points")
    print(f"ledger: {entries} answers, {requests} requests to the judge")
    print(f"checkpoints: {stored} stored, {len(left)} files left")
    print(f"in production: {production.version if production else 'nothing'}; its weights are the student's: {same}")
    print(f"Kept in {bucket}: {len(list(list_uris(f'{bucket}/registry')))} files of the registry")
    right = {
        "the test accuracy rose by 10 points": rise >= 0.10 or len(test) < 4,
        "each answer was paid for once": 0 < entries == requests,
        "checkpoints were stored": stored > 0,
        "they went with their trainings": not left,
        "the best student is in production, whole": same,
    }
    for what in [what for what, is_so in right.items() if not is_so]:
        print(f"not so: {what}")
    return 0 if all(right.values()) else 1


def _trainings(output: Path) -> list[str]:
    """The metrics that each train stage has left, as JSON."""
    found = []
    for line in (output / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line) if line else {}
        if (event.get("event"), event.get("stage")) == ("finished", "train"):
            found.append(Path(event["outputs"]["metrics"]).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
