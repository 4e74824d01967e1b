"""Six formats, one content, one id; what is in none of them is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.ingest.examples import to_examples
from llm2llm.components.shared.ingest.formats import recognise
from llm2llm.components.shared.ingest.sources import read_examples, read_raw
from llm2llm.components.shared.tasks import Columns, Task

TEXT = Task(name="free", form="text", match="exact", question_cue="\0")
Row = dict[str, Any]


COMMANDS = (r"\frac{1}{2}", r"\times 2", r"\text{so}", r"\rho", r"\right)", r"\nabla f", r"\neq 3", r"\beta",
            r"\bar{x}", r"$\tau$", r"$$\nu$$", r"\(\to\)")  # fmt: skip


def as_columns(system: str, question: str, answer: str) -> Row:
    return {"system": system, "question": question, "answer": answer}


def as_messages(system: str, question: str, answer: str) -> Row:
    turns = [{"role": "system", "content": system}] if system else []
    return {"messages": [*turns, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def as_sharegpt(system: str, question: str, answer: str) -> Row:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "system": system or None}


def as_prompt(system: str, question: str, answer: str) -> Row:
    *prompt, completion = as_messages(system, question, answer)["messages"]
    return {"prompt": prompt, "completion": [completion]}


def as_prompt_text(system: str, question: str, answer: str) -> Row:
    return {"prompt": "\n\n".join(part.strip() for part in (system, question) if part.strip()), "completion": answer}


def as_alpaca(system: str, question: str, answer: str) -> Row:
    # Alpaca's own order: what to do, then the text that it is done to.
    return {"instruction": system, "input": question, "output": answer}


FORMATS: dict[str, tuple[Callable[[str, str, str], Row], str]] = {
    "columns": (as_columns, "columns"),
    "messages": (as_messages, "messages"),
    "sharegpt": (as_sharegpt, "sharegpt"),
    "prompt messages": (as_prompt, "prompt_completion"),
    "prompt text": (as_prompt_text, "prompt_completion"),
    "alpaca": (as_alpaca, "alpaca"),
}


def put(folder: Path, rows: list[Row], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"]) | st.just("\n"), min_size=1, max_size=30)
filled = texts.filter(lambda text: text.strip() != "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(filled, filled, filled), min_size=1, max_size=3))
def test_the_same_content_has_the_same_ids_in_every_format(
    tmp_path: Path, contents: list[tuple[str, str, str]]
) -> None:
    expected = [
        content_id(f"{system.strip()}\n\n{question.strip()}", [], None, answer.strip())
        for system, question, answer in contents
    ]
    for make, name in FORMATS.values():
        source = put(tmp_path, [make(*content) for content in contents])
        columns = Columns(question=["system", "question"]) if name == "columns" else Columns()
        assert read_raw(source, TEXT, columns).format == name
        assert [row.id for row in read_examples(source, TEXT, columns)] == expected, name


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_system_prompt_the_question_is_what_was_asked(tmp_path: Path, name: str) -> None:
    make, _ = FORMATS[name]
    row = as_alpaca("Who?", "", "Me.") if name == "alpaca" else make("", "Who?", "Me.")
    (example,) = read_examples(put(tmp_path, [row]), TEXT)
    assert (example.question, example.answer) == ("Who?", "Me.")


HISTORY = "Be brief.\n\nUser: My parcel is late.\n\nAssistant: Which one?\n\nUser: Number 7."


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "My parcel is late."},
                      {"role": "assistant", "content": "Which one?"},
                      {"role": "user", "content": [{"type": "text", "text": "Number 7."}]},
                      {"role": "assistant", "content": "Sorry."}]},
        {"system": "Be brief.", "conversations": [
            {"from": "human", "value": "My parcel is late."}, {"from": "gpt", "value": "Which one?"},
            {"from": "human", "value": "Number 7."}, {"from": "gpt", "value": "Sorry."}]},
        {"instruction": "Number 7.", "input": "", "output": "Sorry.", "system": "Be brief.",
         "history": [["My parcel is late.", "Which one?"]]},
        {"prompt": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "My parcel is late."},
                    {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "Number 7."}],
         "completion": "Sorry."},
    ],
)  # fmt: skip
def test_earlier_turns_are_context(tmp_path: Path, row: Row) -> None:
    (example,) = read_examples(put(tmp_path, [row]), TEXT)
    assert (example.question, example.answer) == (HISTORY, "Sorry.")


def test_turns_behind_the_last_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    row = as_messages("", "Who?", "Me.")
    row["messages"].append({"role": "user", "content": "Thanks."})
    raw = read_raw(put(tmp_path, [row]), TEXT, Columns())
    assert to_examples(raw, TEXT, Columns(), None)[0].answer == "Me."
    assert raw.notes == ["in 1 rows, turns behind the assistant's last are left out"]


def test_chat_rows_of_a_task_are_read_in_its_terms(tmp_path: Path) -> None:
    colours = Task(
        name="c", form="classification", labels=["red", "blue"], columns=Columns(question="q", answer="a", id="n")
    )
    rows = [{**as_messages("", "a ball", "red"), "n": 7}, {**as_messages("", "a sky", "blue"), "n": 8}]
    assert [(row.answer, row.source_id) for row in read_examples(put(tmp_path, rows), colours)] == [
        ("red", "7"),
        ("blue", "8"),
    ]
    sums = Task(name="s", form="numeric", rationale=True)
    (row,) = read_examples(put(tmp_path, [as_sharegpt("", "16-7?", "16-7=9\n#### 9")]), sums)
    assert (row.answer, row.rationale) == ("9", "16-7=9")


def test_a_format_can_be_set(tmp_path: Path) -> None:
    both = {"question": "Q", "answer": "A", **as_messages("", "asked", "told")}
    source = put(tmp_path, [both])
    assert read_examples(source, TEXT)[0].question == "Q"
    assert read_examples(source, TEXT, row_format="messages")[0].question == "asked"


def test_messages_in_parquet_and_as_json_text(tmp_path: Path) -> None:
    row = as_messages("Be brief.", "Who?", "Me.")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    text = put(tmp_path, [{"messages": json.dumps(row["messages"])}])
    assert read_examples(str(tmp_path / "rows.parquet"), TEXT)[0].id == read_examples(text, TEXT)[0].id


def test_a_context_column_is_put_before_the_question(tmp_path: Path) -> None:
    source = put(tmp_path, [{"context": "Rome is old.", "question": "What is old?", "answer": "Rome"}])
    raw = read_raw(source, TEXT, Columns())
    assert read_examples(source, TEXT)[0].question == "Rome is old.\n\nWhat is old?"
    assert raw.notes == ["column 'context' is put before the question; prepare.format: columns leaves it out"]
    assert read_examples(source, TEXT, row_format="columns")[0].question == "What is old?"
    two = read_examples(source, TEXT, Columns(question=["context", "question"]))
    assert two[0].id == read_examples(source, TEXT)[0].id


def test_several_text_columns_and_nested_ones(tmp_path: Path) -> None:
    row = {"mail": {"subject": "Late", "body": "My parcel is late."}, "meta": {"labels": [{"name": "delivery"}]}}
    columns = Columns(question=["mail.subject", "mail.body"], answer="meta.labels.0.name")
    (example,) = read_examples(
        put(
            tmp_path,
            [
                row,
            ],
        ),
        TEXT,
        columns,
    )
    assert (example.question, example.answer) == ("Late\n\nMy parcel is late.", "delivery")
    row["mail"]["subject"] = " "  # type: ignore[index]
    assert read_examples(put(tmp_path, [row]), TEXT, columns)[0].question == "My parcel is late."
    row["mail"]["body"] = None  # type: ignore[index]
    with pytest.raises(UserError, match=r"rows\.jsonl:1: columns 'mail\.subject', 'mail\.body' are empty"):
        read_examples(put(tmp_path, [row]), TEXT, columns)
    with pytest.raises(UserError, match=r"no column 'mail\.text'; 'mail' holds 'subject', 'body'"):
        read_examples(put(tmp_path, [row]), TEXT, Columns(question="mail.text", answer="meta"))
    (tmp_path / "rows.csv").write_text('text,meta\nhi,"{""label"": ""x""}"\n')
    assert (
        read_examples(str(tmp_path / "rows.csv"), TEXT, Columns(question="text", answer="meta.label"))[0].answer == "x"
    )
    dotted = put(tmp_path, [{"a.b": "q", "a": {"b": "other"}, "answer": "x"}])
    assert read_examples(dotted, TEXT, Columns(question="a.b"))[0].question == "q", "a column's own name wins"


def test_several_right_answers(tmp_path: Path) -> None:
    row = {"question": "Who?", "answers": {"text": ["Marie Curie", "Curie", "Marie Curie"]}}
    (example,) = read_examples(put(tmp_path, [row]), TEXT, Columns(answer="answers.text"))
    assert (example.answer, example.also_right) == ("Marie Curie", ["Curie"])
    assert example.id == content_id("Who?", [], None, "Marie Curie")
    colours = Task(name="c", form="classification", labels=["red", "blue"])
    assert read_examples(put(tmp_path, [{"question": "a", "answer": ["red"]}]), colours)[0].answer == "red"
    with pytest.raises(
        UserError, match=r"rows\.jsonl:1: 2 right answers, \['red', 'blue'\]; form 'classification' takes"
    ):
        read_examples(put(tmp_path, [{"question": "a", "answer": ["red", "blue"]}]), colours)


@pytest.mark.parametrize(
    ("row", "row_format", "says"),
    [
        ({"messages": [{"role": "user", "content": "Who?"}]}, "auto", "no turn of the assistant, so no answer"),
        ({"messages": [{"role": "assistant", "content": "Me."}]}, "auto", "the assistant's turn follows no question"),
        ({"messages": [{"role": "wizard", "content": "Me."}]}, "auto", "the speaker 'wizard' is not known"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "auto", "a part of type 'image_url'"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [1]}]},
         "auto", "messages[1]: tool calls must be a list of {name, arguments}, got [1]"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [
            {"function": {"name": "f", "arguments": "{}"}}]}]}, "auto", "the answer is a tool call, which is no text"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"name": "f",
            "arguments": "f(3)"}]}, {"role": "tool", "content": "3"}, {"role": "assistant", "content": "3"}]},
         "auto", "the arguments of a tool call are no JSON"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"name": "f",
            "arguments": [3]}]}, {"role": "tool", "content": "3"}, {"role": "assistant", "content": "3"}]},
         "auto", "the arguments of a tool call must be an object, got [3]"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]}, "auto", "no cont"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]}, "auto", "is empty"),
        ({"messages": "hello"}, "messages", "column 'messages' must hold a list of turns"),
        ({"text": "hello"}, "messages", "no column 'messages', which format 'messages' needs; columns here: 'text'"),
        ({"text": "hello"}, "alpaca", "no column 'instruction', which format 'alpaca' needs"),
        ({"instruction": {"a": 1}, "output": "x"}, "auto", "column 'instruction' holds {"),
        ({"instruction": "a", "output": "x", "history": [1]}, "auto", "column 'history' must hold pairs"),
        ({"prompt": "a", "completion": None}, "auto", "column 'completion' holds null, expected text"),
        ({"text": "hello"}, "auto", "no column 'question'; columns here: 'text'"),
    ],
)  # fmt: skip
def test_what_is_in_no_format_is_named(tmp_path: Path, row: Row, row_format: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_examples(put(tmp_path, [row]), TEXT, row_format=row_format)
    assert str(caught.value).startswith("rows.jsonl:1: ")
    assert says in str(caught.value)


def test_a_row_of_another_format_than_the_first_is_named(tmp_path: Path) -> None:
    source = put(tmp_path, [as_messages("", "Who?", "Me."), as_alpaca("Who?", "", "Me.")])
    with pytest.raises(UserError, match=r"rows\.jsonl:2: no column 'messages', which format 'messages' needs"):
        read_examples(source, TEXT)


def test_an_input_that_a_mapping_leaves_out_is_told(tmp_path: Path) -> None:
    columns = Columns(question="instruction", answer="output")
    raw = read_raw(put(tmp_path, [as_alpaca("Add.", "1 2", "3")]), TEXT, columns)
    assert raw.format == "columns"
    assert raw.notes == ["column 'input', not empty in 1 rows, is not read; prepare.format: alpaca does"]
    assert recognise(as_alpaca("Add.", "1 2", "3"), Columns()) == "alpaca"


@pytest.mark.parametrize(("key", "value"), [("weight", 0), ("weight", 0.0), ("train", False)])
def test_a_turn_that_nothing_is_to_be_learnt_from_is_no_answer(tmp_path: Path, key: str, value: Any) -> None:
    """As OpenAI's fine-tuning format marks a bad answer that the user then corrected."""
    turns = [
        {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me.", "weight": 1},
        {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "No idea.", key: value},
    ]  # fmt: skip
    raw = read_raw(put(tmp_path, [{"messages": turns}]), TEXT, Columns())
    (example,) = to_examples(raw, TEXT, Columns(), None)
    assert (example.question, example.answer) == ("Who?", "Me.")
    assert raw.notes == ["in 1 rows, turns behind the assistant's last are left out"]
    # In the history it is context.
    turns += [{"role": "user", "content": "Think."}, {"role": "assistant", "content": "You."}]
    (example,) = read_examples(put(tmp_path, [{"messages": turns}]), TEXT)
    assert example.answer == "You."
    assert "Assistant: No idea." in example.question
    with pytest.raises(UserError, match="no turn of the assistant, so no answer; all that there are have weight 0"):
        read_examples(put(tmp_path, [{"messages": [turns[0], turns[3]]}]), TEXT)


@pytest.mark.parametrize("column", ["images", "image", "videos", "audio"])
def test_rows_about_more_than_text_are_refused(tmp_path: Path, column: str) -> None:
    row = as_messages("", "<image><image>Which is larger?", "The first.")
    with pytest.raises(UserError, match=f"rows.jsonl:1: column '{column}' is not empty, and only text can be read"):
        read_examples(put(tmp_path, [{**row, column: ["a.png", "b.png"]}]), TEXT)
    for empty in ([], None, ""):
        assert read_examples(put(tmp_path, [{**row, column: empty}]), TEXT)[0].answer == "The first."


def test_the_answer_may_be_called_response(tmp_path: Path) -> None:
    prompt = put(tmp_path, [{"prompt": "Who?", "response": "Me."}])
    assert read_raw(prompt, TEXT, Columns()).format == "prompt_completion"
    expected = read_examples(put(tmp_path, [as_prompt_text("", "Who?", "Me.")]), TEXT)[0].id
    assert read_examples(put(tmp_path, [{"prompt": "Who?", "response": "Me."}]), TEXT)[0].id == expected
    dolly = {"instruction": "Who?", "context": "", "response": "Me.", "category": "open_qa"}
    assert read_examples(put(tmp_path, [dolly]), TEXT)[0].id == expected
    dolly["context"] = "It was you."
    assert read_examples(put(tmp_path, [dolly]), TEXT)[0].question == "Who?\n\nIt was you."


HI = [{"role": "user", "content": "Who?"}]
ME = [{"role": "assistant", "content": "Me."}]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]}, "contents": [
            {"role": "user", "parts": [{"text": "Who?"}]}, {"role": "model", "parts": [{"text": "Me."}]}]},
            id="Gemini"),
        pytest.param({"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be brief."}], "messages": [
            {"role": "user", "content": [{"text": "Who?"}]}, {"role": "assistant", "content": [{"text": "Me."}]}]},
            id="Bedrock"),
        pytest.param({"messages": [{"role": "System", "content": "Be brief."}, {"role": "User", "content": "Who?"},
                                   {"role": "Chatbot", "content": "Me."}]}, id="Cohere"),
        pytest.param({"system": "Be brief.", "query": "Who?", "response": "Me.", "history": []}, id="ms-swift"),
        pytest.param({"messages": {"role": ["system", "user", "assistant"], "content": ["Be brief.", "Who?", "Me."]}},
                     id="a Sequence of datasets"),
        pytest.param({"system": "Be brief.", "prompt": "Who?", "chosen": "Me.", "rejected": "You."}, id="DPO"),
        pytest.param({"system": "Be brief.", "prompt": HI, "chosen": ME, "rejected": HI}, id="DPO of messages"),
        pytest.param({"system": "Be brief.", "chosen": HI + ME, "rejected": HI + HI}, id="DPO, prompt implied"),
        pytest.param({"input": {"messages": [{"role": "system", "content": "Be brief."}, *HI]},
                      "preferred_output": ME, "non_preferred_output": HI}, id="DPO of OpenAI"),
        pytest.param({"messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Who?"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Me."}]}]}, id="parts of responses"),
        pytest.param({"messages": [{"role": "system", "content": "Be brief."}, *HI,
            {"role": "assistant", "reasoning_content": "I am asked.", "content": "Me."}]}, id="thoughts beside"),
        pytest.param({"messages": [{"role": "system", "content": "Be brief."}, *HI,
            {"role": "assistant", "content": "<think>\nI am asked.\n</think>\n\nMe."}]}, id="thoughts before"),
    ],
)  # fmt: skip
def test_what_other_trainers_and_services_take_is_the_same_content(tmp_path: Path, row: Row) -> None:
    (example,) = read_examples(put(tmp_path, [row]), TEXT)
    assert example.id == content_id("Be brief.\n\nWho?", [], None, "Me.")


def test_what_is_left_out_of_a_row_is_told(tmp_path: Path) -> None:
    liked = read_raw(put(tmp_path, [{"prompt": "Who?", "chosen": "Me.", "rejected": "You."}]), TEXT, Columns())
    assert liked.notes == ["the rows are preferences: what was preferred is the answer, what was rejected is left out"]
    rows = [{"question": "7-4?", "answer": "<think>7-4 is 3</think>3"}, {"question": "8-4?", "answer": "4"}]
    raw = read_raw(put(tmp_path, rows), TEXT, Columns())
    assert [example.answer for example in to_examples(raw, TEXT, Columns(), None)] == ["3", "4"]
    assert raw.notes == ["in 1 rows, the thoughts before the answer are left out"]
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .*'<think>7-4 is 3</think>'"):
        read_examples(put(tmp_path, [{"question": "7-4?", "answer": "<think>7-4 is 3</think>"}]), TEXT)


def test_a_completion_that_is_not_wanted_is_no_answer(tmp_path: Path) -> None:
    """As KTO has its rows; whoever trains on all of them teaches what people disliked."""
    rows = [
        {"prompt": "Who?", "completion": "Me.", "label": True},
        {"prompt": "Who?", "completion": "x", "label": False},
    ]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: label is false, which says that the completion is not wanted"):
        read_examples(put(tmp_path, rows), TEXT)
    assert read_examples(put(tmp_path, rows[:1]), TEXT)[0].answer == "Me."


@pytest.mark.parametrize("command", COMMANDS)
def test_a_swallowed_command_comes_back_in_every_format_wherever_it_stands(tmp_path: Path, command: str) -> None:
    r"""`\frac` in JSON is a form feed and `rac`; at the beginning of a text it must not go as white space goes."""
    question, answer = f"{command} and {command}", command
    written = [
        json.dumps(form("", question, answer))
        for form in (as_columns, as_messages, as_sharegpt, as_prompt, as_prompt_text)
    ]
    written.append(json.dumps({"instruction": "", "input": question, "output": answer}).replace('"",', '"So:",'))
    for place, line in enumerate(written):
        single = line.replace("\\\\", "\\")
        if command.startswith(r"\("):  # which is no escape, so JSON has it doubled or not at all
            single = single.replace(r"\(", r"\\(").replace(r"\)", r"\\)")
        (tmp_path / "rows.jsonl").write_text(single + "\n")
        (row,) = read_examples(str(tmp_path / "rows.jsonl"), TEXT)
        assert (row.question.removeprefix("So:\n\n"), row.answer) == (question, answer), place


def test_swallowed_commands_in_choices_and_tools(tmp_path: Path) -> None:
    choice = Task(name="m", form="multiple_choice", columns=Columns(choices="choices"))
    (tmp_path / "rows.jsonl").write_text(r'{"question": "q", "choices": ["\frac{1}{2}", "\times"], "answer": "\times"}')
    (row,) = read_examples(str(tmp_path / "rows.jsonl"), choice)
    assert (row.choices, row.answer) == ([r"\frac{1}{2}", r"\times"], "B")


def test_a_single_backslash_that_is_no_escape_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(r'{"question": "\alpha", "answer": "x"}')
    with pytest.raises(UserError, match=r"rows.jsonl:1: not JSON: Invalid .*; JSON writes a backslash as two"):
        read_examples(str(tmp_path / "rows.jsonl"), TEXT)
