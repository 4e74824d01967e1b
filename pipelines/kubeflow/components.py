"""The KFP component of each stage."""

import importlib
from typing import Any


def component(stage: str) -> Any:
    """A stage's KFP component; its `python_func` is the stage as a plain function."""
    room = "pipelines.kubeflow.configure" if stage == "configure" else f"components.{stage}.component"
    return getattr(importlib.import_module(f"llm2llm.{room}"), stage)
