"""Answers on several GPUs of this machine: one process for each, with the whole student and a share of the batches.

    python -m llm2llm.components.shared.inference.on_devices REQUEST.json REPLY.json

Batches are dealt as they are to shards, so the answers are those of one process. Without a GPU the processes share
the CPU's cores. Requests and replies are JSON: token ids, texts and numbers.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.children import end_with_parent_pipe, run_children
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.questions import (
    Replies,
    StudentAnswer,
    StudentQuestion,
    StudentReply,
    shard_of,
)
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.prompts import Encoded

MODULE = "llm2llm.components.shared.inference.on_devices"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def ask_on_devices(
    student: Path, batches: Sequence[list[StudentQuestion]], settings: AnswerSettings
) -> tuple[Replies, dict[str, float]]:
    """What the student makes of every question, on `settings.gpus` devices.

    Returns:
        (the questions with their replies; `import_seconds`, `load_seconds`: of the slowest process,
        `first_token_seconds`: of the fastest, where anything was written).

    Raises:
        UserError: There are fewer GPUs; or as `load_student` and `answer_batches`.
        RuntimeError: A process failed; the others were ended.
    """
    visible = _visible_gpus()
    if visible and settings.gpus > len(visible):
        raise UserError(
            f"evaluate.gpus: {settings.gpus} GPUs are asked for, and {len(visible)} can be seen here: ask the cluster "
            "for as many (placement), or set evaluate.gpus lower"
        )
    parts = [shard_of(batches, number, settings.gpus) for number in range(settings.gpus)]
    parts = [part for part in parts if part]
    alone = settings.model_copy(update={"gpus": 1})
    with tempfile.TemporaryDirectory(prefix="llm2llm-answers-") as folder:
        commands, environments = [], []
        for number, part in enumerate(parts):
            asked, replied = (str(Path(folder) / f"{number}-{what}.json") for what in ("request", "reply"))
            request = {
                "student": str(student),
                "settings": alone.model_dump(mode="json"),
                "who": f"evaluate, process {number + 1} of {len(parts)}",
                "batches": [[_as_json(question) for question in batch] for batch in part],
            }
            Path(asked).write_text(json.dumps(request), encoding="utf-8")
            commands.append([sys.executable, "-m", MODULE, asked, replied])
            environments.append(os.environ | _device(number, len(parts), visible))
        codes = run_children(commands, environments)
        files = [Path(folder) / f"{number}-reply.json" for number in range(len(parts))]
        replies = [json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None for file in files]
    written = [reply for reply in replies if reply is not None]
    for reply in written:
        if "user_error" in reply:
            raise UserError(reply["user_error"])
    if any(codes) or len(written) < len(parts):
        number = next(number for number, (code, reply) in enumerate(zip(codes, replies, strict=True))
                      if code or (code == 0 and reply is None))  # fmt: skip
        raise RuntimeError(
            f"evaluate: process {number + 1} of {len(parts)} ended with code {codes[number]}; its own messages are "
            "above, and the kernel kills one that takes too much memory"
        )
    found: Replies = []
    for part, reply in zip(parts, written, strict=True):
        questions = [question for batch in part for question in batch]
        found += list(zip(questions, map(_reply, reply["replies"]), strict=True))
    figures = {name: max(reply["figures"][name] for reply in written) for name in ("import_seconds", "load_seconds")}
    first = [reply["figures"]["first_token_seconds"] for reply in written if "first_token_seconds" in reply["figures"]]
    return found, figures | ({"first_token_seconds": min(first)} if first else {})


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA is told of them; without initialising it."""
    import torch

    number = torch.cuda.device_count()
    named = [one.strip() for one in os.environ.get(VISIBLE, "").split(",") if one.strip()]
    return (named or [str(one) for one in range(number)])[:number]


def _device(number: int, processes: int, visible: Sequence[str]) -> dict[str, str]:
    """What makes a process use one device: its GPU, else its share of the cores."""
    if visible:
        return {VISIBLE: visible[number]}
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}


def _as_json(question: StudentQuestion) -> dict[str, Any]:
    """What an answer depends on; the row itself stays here."""
    return {
        "split": question.split,
        "id": question.example.id,
        "prompt": question.prompt,
        "samples": question.samples,
        "drawn": question.drawn,
        "limit": question.limit,
        "measured": [[one.prompt, one.completion] for one in question.measured],
    }


def _question(values: dict[str, Any]) -> StudentQuestion:
    return StudentQuestion(
        split=values["split"],
        example=Example(id=values["id"], question="", answer=""),
        prompt=values["prompt"],
        samples=values["samples"],
        drawn=values["drawn"],
        limit=values["limit"],
        measured=[Encoded(prompt, completion) for prompt, completion in values["measured"]],
    )


def _reply(values: dict[str, Any]) -> StudentReply:
    answers = [StudentAnswer(text, truncated) for text, truncated in values["answers"]]
    return StudentReply(answers, values["likelihoods"])


def main(asked: str, replied: str) -> None:
    """The process: reads the request, loads the student, writes the reply whole."""
    end_with_parent_pipe()
    request = json.loads(Path(asked).read_text(encoding="utf-8"))
    try:
        reply = _answer(request)
    except UserError as problem:
        reply = {"user_error": str(problem)}
    partial = Path(replied + ".partial")
    partial.write_text(json.dumps(reply), encoding="utf-8")
    partial.replace(replied)
    if "user_error" in reply:
        raise SystemExit(2)  # the others need not go on


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    from llm2llm.components.shared.inference.generate import Pace, answer_batches, load_student

    imported = time.monotonic()
    settings = AnswerSettings.load(request["settings"], "evaluate")
    model, tokenizer = load_student(Path(request["student"]), settings)
    figures = {"import_seconds": imported - started, "load_seconds": time.monotonic() - imported}
    pace = Pace(rows=settings.batch_size, measured=settings.batch_size)
    batches = [[_question(one) for one in batch] for batch in request["batches"]]
    replies = answer_batches(model, tokenizer, batches, settings, pace, request["who"])
    if pace.first_token is not None:
        figures["first_token_seconds"] = pace.first_token
    return {
        "figures": figures,
        "replies": [
            {"answers": [[one.completion, one.truncated] for one in reply.answers], "likelihoods": reply.likelihoods}
            for _, reply in replies  # in the order of the batches
        ],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
