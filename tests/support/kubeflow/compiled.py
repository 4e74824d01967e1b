"""Compiled pipelines as documents: shipped configs, files, and toys written with KFP's SDK."""

import lzma
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

Json = dict[str, Any]

EVERYTHING = (
    "filter_errors.folds=3",
    "evaluate.shards=4",
    "promote.registry=s3://b/r",
    "promote.only_if_new=true",
    "data.replay=s3://b/replay.jsonl",
    "train.replay_fraction=0.5",
    "max_iterations=10",
)
"""The largest pipeline that a config of one node comes to."""


def compiled_config(name: str, overrides: Iterable[str] = ()) -> list[Json]:
    """The documents of a config, compiled for a cluster."""
    return yaml_documents(compiled_text(name, tuple(overrides)))


@cache
def compiled_text(name: str, overrides: tuple[str, ...]) -> str:
    """The compiled pipeline of a config, as the file has it."""
    from llm2llm.pipelines.config import load_config
    from llm2llm.pipelines.kubeflow.compile import compile_config

    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_config(load_config(name, overrides), path)
        return path.read_text(encoding="utf-8")


def compiled_toy(pipeline: Callable[..., Any]) -> list[Json]:
    """The documents of a pipeline written with KFP's SDK."""
    from kfp import compiler

    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return yaml_documents(path.read_text(encoding="utf-8"))


def read_compiled(path: Path) -> list[Json]:
    """The documents of a file, which may be compressed with xz."""
    read = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return yaml_documents(read.decode("utf-8"))


def yaml_documents(text: str) -> list[Json]:
    """The documents of a YAML text that hold something."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for one in yaml.load_all(text, Loader=loader) if one]
