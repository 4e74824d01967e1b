"""KFP's cache of finished tasks in a folder that may be moved; see `movable`."""

import json
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import cache

from llm2llm.pipelines.local.movable import OUTPUT, moved


class _MovableCache(cache.LocalCache):
    """KFP's cache of finished tasks, which knows tasks and their outputs by absolute paths."""

    output = ""

    def compute_key(self, component_name: str, image: str, full_command: list[str], arguments: dict[str, Any],
                    **more: Any) -> str:  # fmt: skip
        plain = json.loads(json.dumps(self._serialize_value_for_key(arguments), default=str))
        command = moved(list(full_command), self.output, OUTPUT)
        key: str = super().compute_key(component_name, image, command, moved(plain, self.output, OUTPUT), **more)
        return key

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        super().put(key, {name: _marked(value, self.output) for name, value in outputs.items()})

    def get(self, key: str) -> dict[str, Any] | None:
        file = Path(self.cache_root) / f"{key}.json"
        try:
            kept = moved(json.loads(file.read_text(encoding="utf-8")), OUTPUT, self.output)
            found: dict[str, Any] = self._deserialize_outputs(kept)
        except (OSError, ValueError, cache._MissingArtifactError):
            return None  # the task runs again
        return found


def _marked(value: Any, output: str) -> Any:
    if isinstance(value, list):
        return [_marked(one, output) for one in value]
    if isinstance(value, dsl.Artifact):
        return type(value)(name=value.name, uri=moved(value.uri, output, OUTPUT), metadata=value.metadata)
    return moved(value, output, OUTPUT)


def use_movable_cache(output: Path) -> None:
    """Has KFP's local runner, once it is set up for this folder, keep finished tasks so that the folder can move.

    KFP 2.17 has no setting for its own cache; the one object that it makes is put there before it makes it.
    """
    root = str(output / "cache")
    made = _MovableCache(root)
    made.output = str(output)
    cache._cache_singleton, cache._cache_singleton_root = made, root
