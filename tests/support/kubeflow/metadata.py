"""Metadata of artifacts as large as those of a version that kept lineage records in them.

Lengths of the records as measured in a real run of the quickstart (KFP 2.17.0), by stage and iteration.
"""

import hashlib
import json
import re
from typing import Any

from tests.support.kubeflow.launcher import StageInput, StageOutput

LENGTHS = {
    "configure": (298, 298),
    "prepare": (1292, 1292),
    "train": (679, 1930),
    "out-of-fold": (704, 1957),
    "evaluate": (1884, 2176),
    "filter-errors": (3987, 6120),
    "report": (4429, 8200),
    "teacher-augment": (1271, 1428),
    "dedupe": (2522, 2690),
}
"""Characters of a lineage record in iteration 0 and later, by stage."""


LIBRARIES = {
    "accelerate": "1.15.0",
    "numpy": "2.4.6",
    "peft": "0.21.2",
    "pyarrow": "26.0.1",
    "pydantic": "2.14.3",
    "rapidfuzz": "3.14.6",
    "safetensors": "0.8.0",
    "tokenizers": "0.23.3",
    "transformers": "5.23.0",
}
"""Each stage named in a record brought its libraries along."""


def with_lineage(stage: StageInput) -> StageOutput:
    """What a stage of that version leaves: two short fields and a lineage record in each artifact."""
    name, _, number = re.sub(r"-(\d+)$", r"|\1", stage.task).partition("|")
    length = LENGTHS[name][bool(number)]
    made = stage.executor_input["outputs"]["artifacts"]
    return StageOutput(
        metadata={
            output: {
                "kind": "examples",
                "rows": 72,
                "schema_version": 4,
                "lineage": _record(number, output, length),
            }
            for output in made
            if output not in ("executor-logs", "metrics")
        }
    )


def _record(iteration: str, output: str, length: int) -> str:
    """A record of inputs with their hashes. Those of an iteration name the same inputs again and again, so a patch that
    holds several compresses as the real ones do."""
    inputs: dict[str, Any] = {}
    while len(json.dumps(inputs, separators=(",", ":"))) < length - 130:
        number = len(inputs)
        digest = hashlib.sha256(f"{iteration} {output if number == 0 else number}".encode()).hexdigest()
        made = {"made_by": f"filter_errors {iteration}", "output": "predictions", "sha256": digest}
        inputs[f"input {number}"] = {**made, "libraries": LIBRARIES} if number % 2 else made
    return json.dumps({"inputs": inputs, "output": output}, separators=(",", ":"))[:length]
