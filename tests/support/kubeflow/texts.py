"""What happens to a text on its way into a stage: Argo, KFP's launcher and the kubelet each take it for a template.

Seen on KFP 2.17.0 with Argo 4.0.5 and Kubernetes 1.20. Source: Argo's util/template, KFP's `compileCmdAndArgs`,
Kubernetes' third_party/forked/golang/expansion.

Left out: of Argo's expressions everything but numbers, texts, names of parameters, + - * / %, comparisons and `and`,
`or`, `not`; an expression of another form stays as it is, as one does that Argo cannot resolve.
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from llm2llm.pipelines.kubeflow.go_json import go_json
from llm2llm.pipelines.kubeflow.pod_patch import local_path

Json = dict[str, Any]
_TAG = re.compile(r"\{\{([^{}]*)\}\}")
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def argo(text: str, known: Mapping[str, str]) -> str:
    """Fills `{{name}}` and evaluates `{{=expression}}`; what is unknown stays as it is."""

    def one(tag: re.Match[str]) -> str:
        inside = tag[1].strip()
        if not inside.startswith("="):
            return known.get(inside, tag[0])
        try:
            value = _evaluated(ast.parse(json.loads(f'"{inside[1:].strip()}"'), mode="eval").body, known)
        except (SyntaxError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return tag[0]
        return value if isinstance(value, str) else go_json(value)

    return _TAG.sub(one, text)


def _evaluated(node: ast.AST, known: Mapping[str, str]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return node.value
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_evaluated(node.left, known), _evaluated(node.right, known))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _OPERATORS[type(node.ops[0])](_evaluated(node.left, known), _evaluated(node.comparators[0], known))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand, known)
    if isinstance(node, ast.Attribute | ast.Name):
        return known[ast.unparse(node)]
    raise ValueError(f"expressions of this form are left out: {ast.dump(node)}")


def kubelet(text: str, env: Mapping[str, str]) -> str:
    """Expands `$(NAME)` of a container's command and arguments, and makes `$` of `$$`. An unknown name stays."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            if text[at + 1] == "$":
                parts.append("$")
                at += 2
                continue
            if text[at + 1] == "(" and (end := text.find(")", at)) > 0:
                name = text[at + 2 : end]
                parts.append(env.get(name, f"$({name})"))
                at = end + 1
                continue
        parts.append(text[at])
        at += 1
    return "".join(parts)


def placeholders(executor_input: Json) -> dict[str, str]:
    """The launcher's placeholders for a task, with what they stand for."""
    found: dict[str, str] = {}
    inputs, outputs = executor_input.get("inputs", {}), executor_input.get("outputs", {})
    for side, name, many in (
        *(("inputs", name, many) for name, many in inputs.get("artifacts", {}).items()),
        *(("outputs", name, many) for name, many in outputs.get("artifacts", {}).items()),
    ):
        if many["artifacts"]:
            uri = many["artifacts"][0]["uri"]
            found[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = uri
            found[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = local_path(uri)
    for name, value in inputs.get("parameterValues", {}).items():
        found[f"{{{{$.inputs.parameters['{name}']}}}}"] = value if isinstance(value, str) else go_json(value)
    for name, value in outputs.get("parameters", {}).items():
        found[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = value["outputFile"]
    return found


def launcher(arguments: list[str], executor_input: Json) -> list[str]:
    """Fills `{{$}}` and then every other placeholder, within what `{{$}}` brought too.

    Go walks the placeholders in no fixed order; here each sees what those before it put in.
    """
    known = placeholders(executor_input)
    whole = json.dumps(executor_input, separators=(",", ":"), ensure_ascii=False)
    filled = []
    for argument in arguments:
        text = argument.replace("{{$}}", whole)
        for placeholder, value in known.items():
            text = text.replace(placeholder, value)
        filled.append(text)
    return filled
