"""The real metadata store, from the side of KFP's client: contexts, executions, artifacts and events.

The store is a process (`mlmd_server.py`); see `metadata_store`. What it refuses is the C++ store's own refusal.
Source: KFP 2.17.0, `backend/src/v2/metadata/client.go` and `converter.go`.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm2llm.pipelines.kubeflow.task_inputs import Execution, StoredArtifact

Json = dict[str, Any]
PYTHON_VARIABLE = "LLM2LLM_MLMD_PYTHON"
_SERVER = Path(__file__).with_name("mlmd_server.py")


class StoreError(RuntimeError):
    """The store refused a request. `code` is gRPC's, such as ALREADY_EXISTS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {message}")
        self.code = code


@dataclass
class MetadataStore:
    """A connection to the store, and the contexts of the run that is under way."""

    process: "subprocess.Popen[str]"
    contexts: list[Json] = field(default_factory=list)
    types: dict[tuple[str, str], str] = field(default_factory=dict)

    def call(self, method: str, **request: Any) -> Json:
        """Calls a method of MetadataStoreService.

        Raises:
            StoreError: The store refused it.
        """
        assert self.process.stdin, "the server was started with pipes"
        assert self.process.stdout, "the server was started with pipes"
        self.process.stdin.write(json.dumps({"method": method, "request": request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise StoreError("UNAVAILABLE", "the metadata store has ended")
        answer: Json = json.loads(line)
        if "code" in answer:
            raise StoreError(answer["code"], answer["error"])
        return dict(answer["response"])

    def begin_run(self, pipeline: str, run_id: str, root: str, session: str) -> None:
        """Makes the contexts of a pipeline and of a run, the run's below the pipeline's."""
        outer = self._context("system.Pipeline", pipeline, {})
        properties = {
            "namespace": "kubeflow",
            "resource_name": "run-resource",
            "pipeline_root": f"{root}/{pipeline}/{run_id}",
            "store_session_info": session,
        }
        inner = self._context("system.PipelineRun", run_id, properties)
        try:
            self.call("PutParentContexts", parent_contexts=[{"child_id": inner["id"], "parent_id": outer["id"]}])
        except StoreError as error:
            if error.code != "ALREADY_EXISTS":
                raise
        self.contexts = [outer, inner]

    def execution(self, number: int) -> Execution:
        """One execution."""
        found = self.call("GetExecutionsByID", execution_ids=[number]).get("executions", [])
        if len(found) != 1:
            raise StoreError("NOT_FOUND", f"execution ID={number} not found")
        return _execution(found[0])

    def executions_below(self, dag: int) -> list[Execution]:
        """The executions of a sub-graph, found as KFP does: by a filter on `parent_dag_id` in the run's context."""
        asked = {"filter_query": f"custom_properties.parent_dag_id.int_value = {dag}", "max_result_size": 100}
        found: list[Execution] = []
        token = ""
        while True:
            options = {**asked, **({"next_page_token": token} if token else {})}
            page = self.call("GetExecutionsByContext", context_id=self.contexts[1]["id"], options=options)
            found += [_execution(one) for one in page.get("executions", [])]
            token = page.get("next_page_token", "")
            if not token:
                return sorted(found, key=lambda one: one.id)

    def inputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Input artifacts by name, of several under one name the last."""
        return self._artifacts(execution, "INPUT")

    def outputs_of(self, execution: int) -> dict[str, StoredArtifact]:
        """Output artifacts by name."""
        return self._artifacts(execution, "OUTPUT")

    def create(self, kind: str, state: str, properties: Json, inputs: Mapping[str, Sequence[int]]) -> int:
        """Records an execution with an INPUT event for each name and artifact.

        Raises:
            StoreError: ALREADY_EXISTS, when one artifact comes under two names.
        """
        pairs = [
            {"event": {"artifact_id": one, "type": "INPUT", "path": {"steps": [{"key": name}]}}}
            for name, ids in inputs.items()
            for one in ids
        ]
        execution = {
            "type_id": self._type("execution", kind),
            "last_known_state": state,
            "custom_properties": {key: _value(value) for key, value in properties.items()},
        }
        answer = self.call("PutExecution", execution=execution, contexts=self.contexts, artifact_event_pairs=pairs)
        return int(answer["execution_id"])

    def by_name(self, kind: str, name: str) -> int | None:
        """The execution of a type and name, as the driver looks it up after ALREADY_EXISTS."""
        found = self.call("GetExecutionByTypeAndName", type_name=kind, execution_name=name).get("execution")
        return int(found["id"]) if found else None

    def record(self, name: str, kind: str, uri: str, metadata: Json) -> int:
        """Records an artifact that a stage made; its metadata are custom properties."""
        artifact = {
            "type_id": self._type("artifact", kind),
            "uri": uri,
            "state": "LIVE",
            "custom_properties": {key: _artifact_value(value) for key, value in metadata.items()},
        }
        return int(self.call("PutArtifacts", artifacts=[artifact])["artifact_ids"][0])

    def publish(self, execution: int, state: str, outputs: Json | None, artifacts: Mapping[str, int]) -> None:
        """Ends an execution with its outputs: parameters, and artifacts by name."""
        stored = self.call("GetExecutionsByID", execution_ids=[execution])["executions"][0]
        for derived in ("type", "create_time_since_epoch", "last_update_time_since_epoch"):
            stored.pop(derived, None)
        stored["last_known_state"] = state
        if outputs is not None:
            stored["custom_properties"]["outputs"] = {"struct_value": outputs}
        pairs = [
            {"event": {"artifact_id": one, "type": "OUTPUT", "path": {"steps": [{"key": name}]}}}
            for name, one in artifacts.items()
        ]
        self.call("PutExecution", execution=stored, contexts=self.contexts, artifact_event_pairs=pairs)

    def _artifacts(self, execution: int, kind: str) -> dict[str, StoredArtifact]:
        events = self.call("GetEventsByExecutionIDs", execution_ids=[execution]).get("events", [])
        names = {one["artifact_id"]: one["path"]["steps"][0]["key"] for one in events if one["type"] == kind}
        if not names:
            return {}
        found = self.call("GetArtifactsByID", artifact_ids=list(names)).get("artifacts", [])
        return {
            names[one["id"]]: StoredArtifact(
                int(one["id"]),
                one.get("uri", ""),
                {key: _plain(value) for key, value in one.get("custom_properties", {}).items()},
            )
            for one in sorted(found, key=lambda one: int(one["id"]))
        }

    def _context(self, kind: str, name: str, properties: Mapping[str, str]) -> Json:
        found = self.call("GetContextByTypeAndName", type_name=kind, context_name=name).get("context")
        if found is None:
            custom = {key: {"string_value": value} for key, value in properties.items()}
            new = {"type_id": self._type("context", kind), "name": name, "custom_properties": custom}
            self.call("PutContexts", contexts=[new])
            found = self.call("GetContextByTypeAndName", type_name=kind, context_name=name)["context"]
        return {key: found[key] for key in ("id", "type_id", "name", "custom_properties") if key in found}

    def _type(self, what: str, name: str) -> str:
        if (what, name) not in self.types:
            put = {"artifact": "PutArtifactType", "execution": "PutExecutionType", "context": "PutContextType"}[what]
            self.types[what, name] = self.call(put, **{f"{what}_type": {"name": name}})["type_id"]
        return self.types[what, name]


@contextmanager
def metadata_store(python: str | None = None) -> Iterator[MetadataStore]:
    """Starts an empty store and ends it, by its own process id, at the end.

    Args:
        python: A Python with ml-metadata; None: that of LLM2LLM_MLMD_PYTHON.
    """
    python = python or os.environ[PYTHON_VARIABLE]
    process = subprocess.Popen([python, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout, "the server was started with pipes"
        port = process.stdout.readline()
        assert port.strip().isdigit(), f"the metadata store did not start with {python}"
        yield MetadataStore(process)
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _value(value: Any) -> Json:
    """A custom property of an execution."""
    if isinstance(value, bool | int):
        return {"int_value": int(value)}
    return {"struct_value": value} if isinstance(value, dict) else {"string_value": str(value)}


def _artifact_value(value: Any) -> Json:
    """A custom property of an artifact: KFP stores numbers as doubles and booleans as 0 or 1."""
    if isinstance(value, bool):
        return {"int_value": int(value)}
    if isinstance(value, int | float):
        return {"double_value": value}
    if isinstance(value, list):
        return {"struct_value": {"list": value}}
    return {"struct_value": {"struct": value}} if isinstance(value, dict) else {"string_value": str(value)}


def _plain(value: Json) -> Any:
    if "int_value" in value:
        return int(value["int_value"])
    return next(iter(value.values()), "")


def _execution(stored: Json) -> Execution:
    return Execution(
        int(stored["id"]),
        stored["type"],
        stored.get("last_known_state", "UNKNOWN"),
        {key: _plain(value) for key, value in stored.get("custom_properties", {}).items()},
    )
