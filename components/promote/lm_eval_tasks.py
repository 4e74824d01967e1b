"""Tasks of EleutherAI's lm-eval as guards: what a student gets right, document by document.

Source: lm-eval 0.4, `lm_eval.simple_evaluate` with a model that is loaded already.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.registry.settings import Guard, PromoteSettings

METRICS = ("acc", "exact_match")
"""Those that are taken unless a guard names one; the first that a task has."""


def check_lm_eval(settings: PromoteSettings) -> None:
    """Refuses guards of lm-eval where it is not installed.

    Raises:
        UserError: It is not.
    """
    named = next((guard.lm_eval for guard in settings.guards if guard.lm_eval), "")
    if named and find_spec("lm_eval") is None:
        raise UserError(
            f"promote.guards: {named} is a task of lm-eval, which is not installed here: pip install 'lm-eval>=0.4.8' "
            "where the stage promote runs, or name rows of other tasks (file, task)"
        )


def answers(student: Path, guard: Guard, config: Mapping[str, Any]) -> dict[str, bool]:
    """Whether a student is right, by task and document of a guard's lm-eval task or group.

    Args:
        student: Its folder, or a name on the hub.
        guard: Of lm-eval.
        config: The run's; of `evaluate` batch_size and trust_remote_code.

    Raises:
        UserError: No such task, its data cannot be had here, a metric that is not right or wrong, or none of this name.
    """
    from llm2llm.components.shared.models.load import load_model, load_tokenizer

    evaluate = config.get("evaluate") or {}
    trust = bool(evaluate.get("trust_remote_code", False))
    # By their names, as type checkers find no such package where nobody uses it.
    tasks: Any = import_module("lm_eval.tasks").TaskManager()
    is_file = guard.lm_eval.endswith((".yaml", ".yml"))
    if is_file and not Path(guard.lm_eval).is_file():
        raise UserError(f"promote.guards: {guard.lm_eval}: no such file; name a task of lm-eval, or the file of one")
    if not is_file and guard.lm_eval not in tasks.all_tasks:
        raise UserError(
            f"promote.guards: lm-eval has no task {guard.lm_eval!r}{did_you_mean(guard.lm_eval, tasks.all_tasks)}; "
            "`lm-eval ls tasks` lists them"
        )
    wrapped: Any = import_module("lm_eval.models.huggingface").HFLM(
        pretrained=load_model(student, trust),
        tokenizer=load_tokenizer(student, trust),
        batch_size=int(evaluate.get("batch_size") or 32),
    )
    try:
        found = import_module("lm_eval").simple_evaluate(
            wrapped, tasks=[guard.lm_eval], task_manager=tasks, limit=guard.limit or None, bootstrap_iters=0
        )
    except Exception as problem:  # a task may raise anything: it is made of others' code and data
        first = str(problem).strip().split("\n", 1)[0] or type(problem).__name__
        raise UserError(
            f"promote.guards: the lm-eval task {guard.lm_eval} cannot be asked here: {first}; its data are downloaded "
            "from the Hugging Face Hub, so it needs the network, or HF_HOME with them in it"
        ) from problem
    return _right(found["samples"], guard)


def _right(samples: Mapping[str, Any], guard: Guard) -> dict[str, bool]:
    right = {}
    for task, rows in sorted(samples.items()):
        if not rows:
            continue
        # A task with several filters, strict and lenient ways to read an answer, has each document once for each.
        rows = [row for row in rows if row["filter"] == rows[0]["filter"]]
        has = [str(name) for name in rows[0]["metrics"]]
        metric = guard.metric or next((name for name in METRICS if name in has), "")
        if metric not in has:
            raise UserError(
                f"promote.guards: the lm-eval task {task} has no metric {guard.metric or ' or '.join(METRICS)!r}; it "
                f"has {', '.join(has)}; set metric to one that is right or wrong of each document"
            )
        for row in rows:
            value = row[metric]
            if not isinstance(value, bool | int | float) or value not in (0, 1):
                raise UserError(
                    f"promote.guards: {metric} of the lm-eval task {task} is {value!r} of a document, and a guard "
                    "counts what is right or wrong; set metric to acc, acc_norm or exact_match"
                )
            right[f"{task}/{row['doc_id']}"] = bool(value)
    if not right:
        raise UserError(f"promote.guards: the lm-eval task {guard.lm_eval} has no documents")
    return right
