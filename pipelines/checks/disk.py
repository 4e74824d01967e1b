"""Checks that the stages' volumes can hold what they will write."""

import math
from collections.abc import Iterator

from llm2llm.pipelines.checks.preflight import OK, WARN, Finding
from llm2llm.pipelines.config import Config
from llm2llm.pipelines.config.placement_settings import StagePlacement
from llm2llm.pipelines.config.placement_values import GIB, quantity_bytes
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement, stage_disk


def disk_checks(config: Config, used: dict[str, StagePlacement], parameters: int) -> Iterator[Finding]:
    """Holds the volumes of every stage that loads the student against the student's real size.

    Args:
        config: The config.
        used: The placed stages that its pipeline has.
        parameters: The student's weights, counted.
    """
    placement = fit_placement(config)
    for stage in (name for name in placement.model_stages if name in used and name != "dedupe"):
        need, wanted = stage_disk(config, stage, parameters), placement.stages[stage]
        if need is None:
            continue
        wrong = []
        for volume, gib in (("scratch", need.scratch), ("downloads", need.downloads)):
            has = quantity_bytes(getattr(wanted, volume)) / GIB
            if gib > has:
                fix = f"set placement.stages.{stage}.{volume}={10 * math.ceil(1.2 * gib / 10)}Gi"
                wrong.append(Finding(WARN, f"disk of {stage}", f"about {gib:.0f} of {has:.0f} GiB of {volume}", fix))
        yield from wrong or [
            Finding(
                OK, f"disk of {stage}", f"about {need.scratch:.0f} GiB of scratch, {need.downloads:.0f} of downloads"
            )
        ]
