"""Every reason for which a row may be rejected has a text in the report."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from llm2llm.components.report.reasons import REASONS
from llm2llm.components.shared.data.parquet import write_rows
from llm2llm.components.shared.data.schemas import Reason, Reject

COMPONENTS = Path(__file__).resolve().parents[3] / "components"
KNOWN = set(get_args(Reason))


def constants(code: ast.expr) -> set[str]:
    """The texts that an expression may be, as far as they stand in it."""
    match code:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return constants(body) | constants(orelse)
    return set()


def reasons_in(tree: ast.Module) -> set[str]:
    """What is given as the reason of a problem, an unusable answer or a reject."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Problem" | "Unusable"), args=[first, *_]):
                found |= constants(first)
            case ast.Call(func=ast.Name(id="reject"), args=[_, _, _, reason, *_]):
                found |= constants(reason)
            case ast.Call(func=ast.Name(id="Reject"), keywords=keywords):
                found |= set().union(*(constants(one.value) for one in keywords if one.arg == "reason"))
            case ast.AnnAssign(target=ast.Name(id="reason"), value=ast.expr() as value):
                found |= constants(value)
            case ast.AnnAssign(target=ast.Name(id="REASONS"), value=ast.Dict(values=values)):
                found |= set().union(*map(constants, values))
            case ast.FunctionDef(name="reason", body=body):
                found |= {text for part in body for one in ast.walk(part) if isinstance(one, ast.Return) and one.value
                          for text in constants(one.value)}  # fmt: skip
            case ast.Assign(targets=[ast.Name(id="Kind")], value=ast.Subscript(slice=ast.Tuple(elts=parts))):
                found |= set().union(*map(constants, parts))
    return found


def test_every_reason_has_a_text() -> None:
    assert REASONS.keys() == KNOWN


@pytest.mark.parametrize("reason", REASONS)
def test_a_text_is_the_rest_of_a_sentence(reason: str) -> None:
    text = REASONS[reason]
    assert text[0].islower()
    assert text[-1].isalpha()
    assert len(text.split()) >= 3
    assert text == text.lower(), "the page makes a capital of the first letter and small ones of the others"


def test_every_reason_in_the_code_is_known_and_no_other() -> None:
    found: set[str] = set()
    for folder in ("prepare", "dedupe", "teacher_augment", "shared/leakage"):
        for file in (COMPONENTS / folder).rglob("*.py"):
            found |= reasons_in(ast.parse(file.read_text(encoding="utf-8")))
    assert found == KNOWN


def test_a_reject_with_an_unknown_reason_is_not_written(tmp_path: Path) -> None:
    reject = Reject(iteration=1, stage="dedupe", reason="ugly", id="a", question="q", answer="b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rejects: reason 'ugly' is none of call_failed, truncated"):
        write_rows(tmp_path / "rejects.parquet", "rejects", [reject])
    assert not list(tmp_path.iterdir())
