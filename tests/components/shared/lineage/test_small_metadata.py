"""Kubeflow copies an artifact's metadata into every task that is handed it, so it is tiny."""

import ast
from pathlib import Path

import llm2llm.components
import llm2llm.pipelines

ALLOWED = {"kind", "schema_version", "rows", "sha256"}
COMPONENTS = Path(next(iter(llm2llm.components.__path__)))


def written_keys(source: str) -> set[str]:
    """The keys that a module writes to some artifact's `metadata`; `?` for one that is not a plain text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Subscript) and is_metadata(target.value):
                found.add(target.slice.value if isinstance(target.slice, ast.Constant) else "?")
            elif is_metadata(target):
                found.add("?")
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and is_metadata(called.value) and called.attr in ("update", "setdefault"):
            for argument in node.args:
                keys = argument.keys if isinstance(argument, ast.Dict) else [argument]
                found |= {key.value if isinstance(key, ast.Constant) else "?" for key in keys}
    return found


def targets_of(node: ast.AST) -> list[ast.expr]:
    """What an assignment assigns to."""
    if isinstance(node, ast.AugAssign):
        return [node.target]
    return node.targets if isinstance(node, ast.Assign) else []


def is_metadata(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "metadata"


def test_no_stage_writes_any_other_key() -> None:
    found = {
        (path.relative_to(COMPONENTS).as_posix(), key)
        for path in COMPONENTS.rglob("*.py")
        for key in written_keys(path.read_text(encoding="utf-8")) - ALLOWED
    }
    # Figures of metrics outside Kubeflow, and the one place that writes the hash, under `SHA256`.
    assert found == {
        ("shared/data/artifacts.py", "?"),
        ("shared/data/artifacts.py", "confusionMatrix"),
        ("shared/lineage/records.py", "?"),
    }


def test_another_key_would_be_seen() -> None:
    for planted in (
        "model.metadata['student'] = 1",
        "model.metadata.update({'kind': 'model', 'student': 1})",
        "model.metadata[key] = 1",
        "model.metadata |= more",
        "model.metadata = more",
        "model.metadata.update(more)",
    ):
        assert written_keys(planted) - ALLOWED
