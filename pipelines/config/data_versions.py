"""The versions (ETag, hash, revision) of a run's data at its start.

Kubeflow's cache knows a stage by its inputs. A file's name stays when its rows change, so `prepare` is handed beside
each name what tells those rows from others: then the same data is found in the cache, and new rows are not.
"""

import hashlib
import uuid
from collections.abc import Mapping

from llm2llm.components.shared import storage
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hashing import hash_of
from llm2llm.components.shared.ingest.sources import BUILTIN, builtin_path, is_file_source, source_path, split_of


def data_versions(sources: Mapping[str, str]) -> dict[str, str]:
    """For each name of data, by its key, what its rows are known by; an empty name has none.

    `sha256:...` of a file's bytes; `stored:...` of size and time of objects in storage; `revision:...` of a data set on
    the hub. Where none can be had it is `unknown:` and something new each time, which no cache holds: the stage that
    reads the rows then says what is wrong.
    """
    return {key: _version(source) for key, source in sources.items() if source}


def _version(source: str) -> str:
    try:
        if source.startswith(BUILTIN):
            return f"sha256:{hash_of(builtin_path(source))}"
        if storage.is_remote(source):
            listed = sorted((one.uri, one.size, one.modified) for one in storage.list_objects(source))
            if listed:
                return f"stored:{hashlib.sha256(repr(listed).encode()).hexdigest()}"
        elif is_file_source(source):
            return f"sha256:{hash_of(source_path(split_of(source)[0]))}"
        elif revision := _hub_revision(source):
            return f"revision:{revision}"
    except (OSError, UserError, storage.NotThere):
        pass
    return f"unknown:{uuid.uuid4().hex}"


def _hub_revision(source: str) -> str | None:
    """The commit of a data set `name[:config][@revision][#split]`; None where the hub cannot be asked."""
    name = source.partition("#")[0]
    name, _, revision = name.partition("@")
    try:
        from huggingface_hub import HfApi

        found = HfApi().dataset_info(name.partition(":")[0], revision=revision or None, timeout=30)
        return str(found.sha) if found.sha else None
    except Exception:  # whatever the client raises, the stage that reads the data says it better
        return None
