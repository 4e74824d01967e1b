"""A right answer is never longer than a student may write."""

from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference import limits
from llm2llm.components.shared.inference.limits import answer_limit
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.models.prompts import answer_tokens, encode
from llm2llm.components.shared.tasks import Task

LONG = Example(id="faq-7", question="Why?", answer="Because the parcel was sent back to the depot and scanned again.")
ROWS = [Example(id="faq-1", question="Where?", answer="Here."), LONG]
FAQ = Task(name="faq", form="text", max_new_tokens=4)


def test_the_limit_is_raised_to_the_longest_right_answer(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(tiny_student)
    limit, note = answer_limit(tokenizer, FAQ, ROWS, AnswerSettings())
    assert limit == len(encode(tokenizer, FAQ, LONG).completion)
    assert f"row faq-7 has {limit} tokens" in note
    assert answer_limit(tokenizer, FAQ.model_copy(update={"max_new_tokens": limit}), ROWS, AnswerSettings()) == (
        limit,
        "",
    )
    assert answer_limit(tokenizer, FAQ, [], AnswerSettings()) == (4, "")


def test_a_limit_that_is_set_too_low_is_refused(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(tiny_student)
    needed = len(encode(tokenizer, FAQ, LONG).completion)
    with pytest.raises(UserError, match=rf"evaluate\.max_new_tokens: {needed - 1} .*row faq-7 has {needed} tokens"):
        answer_limit(tokenizer, FAQ, ROWS, AnswerSettings(max_new_tokens=needed - 1))
    assert answer_limit(tokenizer, FAQ, ROWS, AnswerSettings(max_new_tokens=needed)) == (needed, "")


@pytest.mark.slow
def test_answers_are_written_to_their_end(tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(tiny_student, {"test": ROWS}, 0, None, FAQ, AnswerSettings())
    assert "row faq-7 has" in capsys.readouterr().out
    with pytest.raises(UserError, match="faq-7"):
        predict(tiny_student, {"test": ROWS}, 0, None, FAQ, AnswerSettings(max_new_tokens=3))


def test_only_answers_that_may_be_too_long_are_encoded(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(tiny_student)
    encoded = []

    def counted(tokenizer: Any, task: Task, row: Example) -> int:
        encoded.append(row.id)
        return answer_tokens(tokenizer, task, row)

    monkeypatch.setattr(limits, "answer_tokens", counted)
    task = FAQ.model_copy(update={"max_new_tokens": 16})
    folded = Example(id="faq-3", question="Who?", answer="\ufdfa")  # one character, which NFKC makes eighteen of
    assert answer_limit(tokenizer, task, [*ROWS, folded], AnswerSettings())[0] > 16
    assert encoded == ["faq-7", "faq-3"]
