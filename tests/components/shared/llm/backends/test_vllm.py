"""A real vLLM answers: as a server behind the `openai` teacher, and as the engine of the `vllm` teacher."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest
from llm2llm.components.shared.llm.settings import ModelSettings, Price
from tests.support.chat_model import make_chat_model
from tests.support.vllm_server import requests_answered, vllm_environment, vllm_python, vllm_server

NAME = "tiny-teacher"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green", "blue"]},
        "word": {"type": "string", "pattern": "^[a-z]{1,8}$"},
    },
    "required": ["colour", "word"],
    "additionalProperties": False,
}


def requests(count: int) -> list[LLMRequest]:
    return [
        LLMRequest(
            messages=[{"role": "system", "content": "Write."}, {"role": "user", "content": f"Row {n}: <|im_end|> 'x'"}],
            schema=SCHEMA,
            temperature=1.0,
            max_tokens=96,
        )
        for n in range(count)
    ]


def assert_valid(text: str) -> None:
    """A random model says nothing sensible, but what it says has the form that was asked for."""
    value = json.loads(text)
    assert set(value) == {"colour", "word"}, text
    assert not set("\n\t ") & set(text), "white space that a weak model might write without end"
    assert value["colour"] in SCHEMA["properties"]["colour"]["enum"]
    assert 1 <= len(value["word"]) <= 8


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vllm_python()
    return make_chat_model(tmp_path_factory.mktemp("teacher") / "chat")


@pytest.fixture(scope="module")
def server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(chat_model, NAME, tmp_path_factory.mktemp("vllm") / "server.log") as url:
        yield url


@pytest.mark.vllm
@pytest.mark.slow
def test_a_vllm_server_answers_in_the_form_asked_for_and_is_asked_once(server: str, tmp_path: Path) -> None:
    settings = ModelSettings(model=NAME, url=server, structured="json_schema", concurrency=8)
    prices = {NAME: Price(input=1.0, output=2.0)}
    tracker = SpendTracker(run="one", ledger=str(tmp_path), prices=prices)
    before = requests_answered(server)
    with open_teacher(settings, "openai", tracker) as teacher:
        answers = teacher(requests(12))
    for answer in answers:
        assert (answer.outcome, answer.truncated) == ("answered", False), answer
        assert_valid(answer.text)
        assert answer.input_tokens
        assert answer.output_tokens
        assert answer.usd == pytest.approx((answer.input_tokens + 2 * answer.output_tokens) / 1e6)
    assert requests_answered(server) - before == 12
    assert tracker.spent.calls == 12

    again = SpendTracker(run="two", ledger=str(tmp_path), prices=prices)
    with open_teacher(settings, "openai", again) as teacher:
        assert [answer.text for answer in teacher(requests(12))] == [answer.text for answer in answers]
    assert requests_answered(server) - before == 12
    assert again.spent.calls == 0


@pytest.mark.vllm
@pytest.mark.slow
def test_a_vllm_server_tells_the_probabilities_that_its_model_has(server: str, chat_model: Path) -> None:
    """Of the first token, held against transformers."""
    import torch

    from llm2llm.components.shared.models.load import load_model, load_tokenizer

    messages = [{"role": "user", "content": "Which colour?"}]
    request = LLMRequest(messages=messages, temperature=0.0, max_tokens=4, top_logprobs=20)
    with open_teacher(ModelSettings(model=NAME, url=server), "openai", SpendTracker(run="one")) as teacher:
        (answer,) = teacher([request])
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 4
    assert b"".join(one.text for one in answer.logprobs).decode("utf-8", "replace").startswith(answer.text[:1])
    first = answer.logprobs[0]
    assert len(first.likeliest) == 20
    assert max(first.likeliest, key=lambda one: one[1]) == (first.text, first.logprob), "greedy"
    tokenizer, model = load_tokenizer(chat_model), load_model(chat_model)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = model(input_ids=prompt["input_ids"].to(model.device)).logits[0, -1].float()
    expected = torch.log_softmax(logits, dim=-1).sort(descending=True).values[:20].tolist()
    assert sorted((value for _, value in first.likeliest), reverse=True) == pytest.approx(expected, abs=2e-3)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_model_that_a_vllm_server_does_not_serve_is_refused_with_what_it_lists(server: str) -> None:
    before = requests_answered(server)
    settings = ModelSettings(model="tiny-teacher2", url=server)
    with (
        open_teacher(settings, "openai", SpendTracker(run="r")) as teacher,
        pytest.raises(UserError, match=r"HTTP 404 for model 'tiny-teacher2'.*it lists tiny-teacher"),
    ):
        teacher(requests(1))
    assert requests_answered(server) == before


ENGINE = """
import dataclasses, json, multiprocessing, sys
from llm2llm.components.shared.llm.backends import vllm as vllm_engine
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.requests import LLMRequest
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.llm.client import open_teacher, with_revision

def main():
    given = json.load(open(sys.argv[1]))
    requests = [LLMRequest(**request) for request in given["requests"]]
    settings = with_revision(ModelSettings(**given["settings"]), "vllm")
    vllm_engine.CHUNK = 5
    kept, unkept, later = (SpendTracker(run="one", ledger=given["ledger"]), SpendTracker(run="two"),
                           SpendTracker(run="three", ledger=given["ledger"]))
    found = {}
    with vllm_engine.opened(settings) as send:
        found["first"] = [dataclasses.asdict(answer) for answer in send(requests, settings, kept)]
        found["second"] = [dataclasses.asdict(answer) for answer in send(requests[::-1], settings, unkept)][::-1]
    found["children"] = len(multiprocessing.active_children())
    with open_teacher(settings, "vllm", later) as teacher:
        # All of these are in the ledger, so the model is not loaded again.
        found["later"] = [dataclasses.asdict(answer) for answer in teacher(requests[:12])]
    found["calls"] = [kept.spent.calls, unkept.spent.calls, later.spent.calls]
    json.dump(found, open(sys.argv[2], "w"))

if __name__ == "__main__":
    main()
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_the_engine_answers_in_the_form_asked_for_the_same_twice_and_once_for_the_ledger(
    chat_model: Path, tmp_path: Path
) -> None:
    script, given, found = tmp_path / "engine.py", tmp_path / "given.json", tmp_path / "found.json"
    script.write_text(ENGINE)
    sent = [
        {"messages": request.messages, "schema": request.schema, "temperature": 1.0, "max_tokens": 96}
        for request in requests(12)
    ]
    sent.append({"messages": [{"role": "user", "content": "x" * 600}], "temperature": 1.0, "max_tokens": 16})
    sent.append({"messages": [{"role": "user", "content": "free"}], "temperature": 0.0, "max_tokens": 16})
    settings = {"model": str(chat_model)}
    given.write_text(json.dumps({"requests": sent, "settings": settings, "ledger": str(tmp_path / "ledger")}))
    ran = subprocess.run(
        [vllm_python(), script, given, found], env=vllm_environment(), capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    result = json.loads(found.read_text())
    *formed, too_long, free = result["first"]
    for answer in formed:
        assert (answer["outcome"], answer["truncated"]) == ("answered", False), answer
        assert_valid(answer["text"])
        assert answer["input_tokens"] > 0
        assert answer["output_tokens"] > 0
    assert len({answer["text"] for answer in formed}) > 1
    assert too_long["outcome"] == "failed"
    assert "leaves none for an answer" in too_long["detail"]
    assert (free["truncated"], free["output_tokens"]) == (True, 16)
    assert [a["text"] for a in result["second"]] == [a["text"] for a in result["first"]]
    assert [a["text"] for a in result["later"]] == [a["text"] for a in formed]
    assert result["calls"] == [13, 13, 0]
    assert result["children"] == 0


def test_without_vllm_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with (
        open_teacher(ModelSettings(model="a/b"), "vllm", SpendTracker(run="r")) as teacher,
        pytest.raises(UserError, match=r"vLLM cannot be imported .* set teacher: transformers"),
    ):
        teacher(requests(1))


def test_an_adapter_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with (
        open_teacher(ModelSettings(model=str(tmp_path)), "vllm", SpendTracker(run="r")) as teacher,
        pytest.raises(UserError, match="is a LoRA adapter; set teacher: transformers"),
    ):
        teacher(requests(1))
