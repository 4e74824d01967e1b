"""Texts on their way into a stage."""

from typing import Any

import pytest

from tests.support.kubeflow import toys
from tests.support.kubeflow.backend import run
from tests.support.kubeflow.compiled import compiled_toy
from tests.support.kubeflow.launcher import StageInput, StageOutput
from tests.support.kubeflow.store import MetadataStore
from tests.support.kubeflow.texts import argo, kubelet, launcher

KEPT = [
    "{{task}}",
    "{{",
    "{% for x in y %}",
    'it\'s "quoted" and \\ broken\nover\tlines',
    "日本語 \u2028 \u0416",
    "$HOME costs 5$",
    "<b>&amp;</b>",
    r'{"text": "\u007b\u007b=1+1\u007d\u007d \u0024(KUBERNETES_SERVICE_HOST) C:\\new \\frac"}',
]


def test_argo_fills_and_evaluates() -> None:
    known = {"workflow.name": "run-x", "inputs.parameters.a": "1"}
    assert argo("{{workflow.name}} {{ inputs.parameters.a }} {{task}}", known) == "run-x 1 {{task}}"
    assert argo("{{=1+1}} {{='a' + 'b'}} {{=workflow.name}} {{=7/2}} {{=2 > 1}}", known) == "2 ab run-x 3.5 true"
    assert argo("{{=unknown}} {{=open('x')}} {{=1/0}}", known) == "{{=unknown}} {{=open('x')}} {{=1/0}}"


def test_the_kubelet_expands_variables_and_halves_dollars() -> None:
    assert (
        kubelet("$(HOST) $(NONE) $$HOME $$(HOST) $x $", {"HOST": "10.0.0.1"}) == "10.0.0.1 $(NONE) $HOME $(HOST) $x $"
    )


def test_the_launcher_fills_within_what_it_has_filled() -> None:
    given = {"inputs": {"parameterValues": {"text": "{{$.inputs.parameters['other']}}", "other": "x"}}}
    assert launcher(["{{$.inputs.parameters['other']}}", "{{$}}"], given) == [
        "x",
        '{"inputs":{"parameterValues":{"text":"x","other":"x"}}}',
    ]


def _says(stage: StageInput) -> StageOutput:
    """`say` of the toys returns its text."""
    return StageOutput({"Output": stage.parameters["text"]})


def _arrived(store: MetadataStore, text: str) -> tuple[str, Any, str]:
    """A text as a stage received it: as a parameter, within a dict, and through another stage's output."""
    given = {"text": text, "given": {"inside": text}}
    result = run(compiled_toy(toys.texts), given, store=store, pretend=_says)
    assert result.state == "Succeeded", result.message
    first = result.received("say")
    return first["text"], first["given"]["inside"], result.received("say-2")["text"]


@pytest.mark.mlmd
@pytest.mark.parametrize("text", KEPT)
def test_texts_that_arrive(store: MetadataStore, text: str) -> None:
    assert _arrived(store, text) == (text, text, text)


@pytest.mark.mlmd
@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        ("{{=1+1}}", "2"),
        ("$(KUBERNETES_SERVICE_HOST)", "10.96.0.1"),
        ("$$HOME", "$HOME"),
        ("{{$.inputs.parameters['note']}}", "none"),
    ],
)
def test_texts_that_are_rewritten_without_a_word(store: MetadataStore, text: str, arrives: str) -> None:
    assert _arrived(store, text) == (arrives, arrives, arrives)


@pytest.mark.mlmd
def test_the_workflows_name_is_filled_in(store: MetadataStore) -> None:
    name, inside, later = _arrived(store, "{{workflow.name}}")
    assert name.startswith("texts-")
    assert name == inside == later
