"""Compares a run's data and config with those of the version in production."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.registry import digests, tried
from llm2llm.components.shared.registry.production import current
from llm2llm.components.shared.registry.records import Record, TrainedOn
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.registry.versions import find_version, read_document


def detect_changes(
    registry: str,
    seeds: Sequence[Example],
    validation: Sequence[Example] | None,
    config: Mapping[str, Any],
    settings: PromoteSettings,
) -> tuple[bool, str]:
    """Whether a run could come to anything new, and why or why not, in one sentence.

    Nothing is new when the version in production was made from the same seeds under the same config, or when another
    run has made of them what was not good enough against that version, by the same conditions.

    Args:
        registry: Folder or s3:// prefix, as `versions.registry_uri` gives it.
        seeds: Those of this run.
        validation: What students are compared on; None: what others have tried is not looked up.
        config: This run's, with the hashes of its pool and replay rows; see `digests.with_rows`.
        settings: Say what is good enough.

    Raises:
        UserError: The registry cannot be read, or the version in production is damaged.
    """
    config_now, ids = digests.of_config(config), {row.id for row in seeds}
    production = current(registry)
    if validation is not None:
        uri = tried.tried_uri(
            registry,
            digests.of_ids(ids),
            digests.of_ids(row.id for row in validation),
            config_now,
            digests.of_conditions(settings),
            production.version if production else "",
        )
        if before := tried.read_tried(uri):
            return False, (
                f"nothing new: run {before.get('run')} tried the same {len(ids):,} seeds under the same config, and "
                f"{before.get('reason')}"
            )
    if production is None:
        return True, "nothing is in production yet"
    version = production.version
    uri = find_version(registry, version)
    before_ids = set(read_document(uri, TrainedOn).seeds)
    added, removed = len(ids - before_ids), len(before_ids - ids)
    if added or removed:
        gone = f", {removed:,} gone" if removed else ""
        return (
            True,
            f"since {version}: {added:,} seed{'s' * (added != 1)} added{gone}, {len(ids & before_ids):,} the same",
        )
    if read_document(uri, Record).config_digest != config_now:
        other = "another config, or other rows to draw from or to replay" if "rows" in config else "another config"
        return True, f"since {version}: the same {len(ids):,} seeds, and {other}"
    return False, f"nothing new since {version}: the same {len(ids):,} seeds and the same config"
