"""Settings of a model: what cannot work or would show a secret is refused, and the message does not show it."""

from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.settings import ModelSettings, TeacherSettings, headers_of, looks_like_a_key

SECRETS = ["sk-proj-8fJ2kd91mcPq", "Bearer abc", "hf_abcdefghijkl", "ghp_0123456789abcdef",
           "eyJhbGciOiJIUzI1NiJ9.e30.x", "AIzaSyA-1234567890abcdefghijkl",
           "3f9a1b2c4d5e6f708192a3b4c5d6e7f8"]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_in_a_config_is_refused_and_not_shown(secret: str) -> None:
    for values in ({"extra_headers": {"X-Gateway": secret}}, {"extra_body": {"user": {"id": [secret]}}}):
        with pytest.raises(UserError, match="looks like a key") as caught:
            TeacherSettings.load({"model": "m", **values}, "teacher")
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["low", "org-team", "https://example.org/app", "2024-10-21", "env:GATEWAY", "en", "A team"]
)
def test_what_is_no_key_is_none(value: str) -> None:
    assert not looks_like_a_key(value)
    TeacherSettings.load({"model": "m", "extra_headers": {"X-Title": value}}, "teacher")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"extra_headers": {"Authorization": "x"}}, "extra_headers.Authorization: its value looks like a key"),
        ({"extra_headers": {"X-Api-Key": "x"}}, "write env:NAME"),
        ({"extra_headers": {"a b": "x"}}, "is no HTTP header"),
        ({"extra_headers": {"a": "x\ny"}}, "is no HTTP header"),
        ({"extra_headers": {"Host": "x"}}, "the HTTP client sets it"),
        ({"extra_body": {"temperature": 1}}, "extra_body.temperature: llm2llm sets it; set temperature itself"),
        ({"extra_body": {"top_p": 0.5}, "top_p": 0.9}, "extra_body.top_p: top_p is set itself; remove one of the two"),
        ({"top_p": 0}, "top_p: Input should be greater than 0"),
        ({"extra_body": {"stream": True}}, "extra_body.stream: llm2llm sets it; remove it"),
        ({"extra_body": {"api_key": "x"}}, "looks like a key"),
        ({"teacher": "vllm", "extra_body": {"a": 1}}, "extra_body: is for an endpoint, and teacher is 'vllm'"),
        ({"teacher": "transformers", "temperature": None}, "temperature: null is for an endpoint"),
        ({"teacher": "batch", "api_version": "2024-10-21"}, "api_version: is for teacher 'openai'"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TeacherSettings.load({"model": "m", **values}, "teacher")


def test_other_parameters_are_another_teacher_and_none_the_same_as_before() -> None:
    plain = ModelSettings(model="m", url="http://one/v1")
    assert plain.identity("openai") == "http://one/v1 m"
    low, high = (
        ModelSettings(model="m", url="http://one/v1", extra_body={"reasoning_effort": effort})
        for effort in ("low", "high")
    )
    assert len({one.identity("openai") for one in (plain, low, high)}) == 3


def test_a_secret_header_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY", " a-secret-of-a-gateway \n")
    found = headers_of(ModelSettings(model="m", extra_headers={"X-Token": "env:GATEWAY", "X-Team": "a"}))
    assert found == ({"X-Token": "a-secret-of-a-gateway", "X-Team": "a"}, ["a-secret-of-a-gateway"])
    monkeypatch.setenv("GATEWAY", "")
    with pytest.raises(UserError, match="GATEWAY is not set"):
        headers_of(ModelSettings(model="m", extra_headers={"X-Token": "env:GATEWAY"}))
