"""The commands `plan` and `ledger`."""

import json
import re
from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.pipelines.checks.plan import judge_bound, plan, planned_stages, teacher_bound
from llm2llm.pipelines.cli.main import main
from llm2llm.pipelines.config import load_config, shipped_configs

OPENAI = ("teacher_augment.teacher=openai", "teacher_augment.grammar=", "teacher_augment.model=a-model",
          "teacher_augment.rows_per_iteration=0")  # fmt: skip


def test_a_plan_counts_pods_and_bounds_gpu_hours() -> None:
    config = load_config("quickstart", ["placement.profile=gke", "max_iterations=2"])
    stages = {one.stage: one for one in planned_stages(config)}
    assert (stages["train"].pods, stages["out_of_fold"].pods, stages["teacher_augment"].pods) == (3, 4, 2)
    # 3 pods, each tried 1 + 3 times, 12 hours each time, on one GPU.
    assert stages["train"].gpu_hours == 3 * 4 * 12
    assert stages["dedupe"].gpu_hours == 0
    shown = plan(config)
    assert "1 x nvidia-l4" in shown
    # The controls are measured once, after the last iteration.
    assert (stages["controls"].pods, stages["controls"].gpu_hours) == (1, 4 * 12)
    assert f"GPU hours: at most {3 * 4 * 12 + 3 * 4 * 6 + 4 * 4 * 12 + 4 * 12}," in shown
    assert "teacher: none is paid" in shown


def test_a_plan_shows_nodes_and_shards() -> None:
    config = load_config("quickstart", [
        "placement.profile=gke", "max_iterations=2", "train.nodes=4", "train.checkpoint_uri=s3://bucket/checkpoints",
        "placement.stages.train={accelerator: nvidia-h100-80gb, gpus: 8}", "evaluate.shards=3",
    ])  # fmt: skip
    stages = {one.stage: one for one in planned_stages(config)}
    assert (stages["train"].node, stages["train"].pods, stages["train"].gpu_hours) == ("CPU", 3, 0)
    assert stages["train's nodes"].node == "4 nodes of 8 x nvidia-h100-80gb"
    assert stages["train's nodes"].gpu_hours == 3 * 4 * 8 * 4 * 12
    assert (stages["predict"].pods, stages["predict"].node) == (9, "1 x nvidia-l4")
    assert (stages["evaluate"].node, stages["evaluate"].image) == ("CPU", config.images.cpu)
    assert "4 nodes of 8 x nvidia-h100-80gb" in plan(config)


PRICED = "teacher_augment.prices={a-model: {input: 1, output: 10}}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("teacher_augment.budget={usd: 12.5}", PRICED), r"at most \$12.50, by teacher_augment.budget"),
        (("prepare.seed_count=50", "max_iterations=2"), "at most 100 rows asked for; what they cost is not known"),
        (
            ("prepare.seed_count=50", "max_iterations=2", "filter_errors.selection=wrong",
             "filter_errors.generated_rows=true"),
            "at most 150 rows asked for",
        ),
        (
            ("prepare.seed_count=50", "max_iterations=2", "teacher_augment.prices={a-model: {input: 1, output: 10}}",
             "teacher_augment.max_tokens=1000", "teacher_augment.attempts=2"),
            r"all of max_tokens and attempts, \$2.00",
        ),
        ((), "no bound: every seed may be an error"),
        (("teacher_augment.teacher=transformers",), "costs that pod's time"),
    ],
)  # fmt: skip
def test_a_plan_says_what_the_teacher_may_cost(overrides: tuple[str, ...], words: str) -> None:
    assert re.search(words, teacher_bound(load_config("quickstart", [*OPENAI, *overrides])))


JUDGED = (
    "task={name: faq, form: text, match: judge, rubric: Right when it names the place.}",
    "teacher_augment.teacher=pool", "teacher_augment.grammar=", "data.pool=more.jsonl",
    "max_iterations=2", "filter_errors.selection=wrong",
)  # fmt: skip


@pytest.mark.parametrize(
    ("judge", "overrides", "words"),
    [
        ("budget: {usd: 5}, ledger: s3://b/l", (), "judge: at most $20.00: evaluate.judge.budget for each of 4 pods"),
        ("budget: {calls: 10, tokens: 500}, ledger: s3://b/l", (), "at most 2,000 tokens, 40 calls: "),
        ("budget: {usd: 1}, ledger: s3://b/l", ("evaluate.shards=4",), "$13.00: evaluate.judge.budget for each of 13"),
        (
            "budget: {usd: 1}, ledger: s3://b/l",
            ("filter_errors.selection=out_of_fold", "filter_errors.folds=3", "promote.registry=s3://b/r"),
            f"${3 + 3 * 2 + 1 + 3}.00: evaluate.judge.budget for each of 13",
        ),
        (
            "budget: {usd: 1}",
            ("placement.profile=gke", "placement.stages.evaluate={retries: 3}"),
            "at most $16.00: evaluate.judge.budget for each of 16 pods that grade; retries counted",
        ),
        ("ledger: s3://b/l", (), "judge: no bound: set evaluate.judge.budget"),
        ("teacher: transformers", (), "judge: runs in the stage's own pod"),
    ],
)
def test_a_plan_says_what_the_judge_may_cost(judge: str, overrides: tuple[str, ...], words: str) -> None:
    prices = "prices: {m: {input: 1, output: 4}}"
    config = load_config("quickstart", [*JUDGED, f"evaluate.judge={{model: m, {prices}, {judge}}}", *overrides])
    assert words in plan(config)


def test_a_plan_without_a_judge_says_nothing_of_one() -> None:
    assert judge_bound(load_config("quickstart", [])) == ""
    assert "judge" not in plan(load_config("quickstart", []))


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("wrong", None),
        ("out_of_fold", "folds: 2 more trainings an iteration, in each but the last; 6 pods at most"),
        ("auto", "in those alone in which the student solves more than 98% of its seeds; 6 pods at most"),
    ],
)
def test_what_the_folds_of_a_selection_cost_is_said(selection: str, says: str | None) -> None:
    shown = plan(load_config("quickstart", [f"filter_errors.selection={selection}"]))
    assert says in shown if says else "folds:" not in shown


def test_a_vllm_teacher_needs_a_gpu_where_it_runs() -> None:
    vllm = (*OPENAI, "teacher_augment.teacher=vllm", "placement.profile=gke")
    with pytest.raises(UserError, match=r"placement.stages.teacher_augment: teacher 'vllm'.*needs a GPU"):
        load_config("quickstart", vllm)
    config = load_config("quickstart", [*vllm, "placement.stages.teacher_augment={accelerator: nvidia-l4, gpus: 1}"])
    (stage,) = [one for one in planned_stages(config) if one.stage == "teacher_augment"]
    assert (stage.image, stage.node) == (config.images.vllm, "1 x nvidia-l4")


def test_a_prompt_of_ones_own_is_read_when_the_config_is(tmp_path: Path) -> None:
    prompt = "# user\nWrite {{count}} examples like {{example}} for: {{task}}\n"
    (tmp_path / "mine.md").write_text(prompt)
    config = tmp_path / "c.yaml"
    config.write_text(shipped_configs()["quickstart"].read_text().replace("teacher: grammar", "teacher: openai"))
    overrides = ["teacher_augment.prompts={llm2llm: mine.md}", "teacher_augment.model=m", "teacher_augment.grammar="]
    assert load_config(str(config), overrides).teacher_augment.prompts == {"llm2llm": prompt}
    with pytest.raises(UserError, match=r"teacher_augment.prompts.llm2llm: cannot read other.md"):
        load_config(str(config), [*overrides, "teacher_augment.prompts={llm2llm: other.md}"])


@pytest.fixture
def ledger(tmp_path: Path) -> tuple[str, str]:
    """(a ledger with one answer, its key)."""
    place = str(tmp_path / "ledger")
    request = LLMRequest(messages=[{"role": "user", "content": "say a\nb"}], temperature=0.5, max_tokens=20)
    identity = ModelSettings(model="a-model").identity("openai")
    key = request_key(identity, request)
    answer = LLMResponse(
        request=request, key=key, outcome="answered", text="b", model="a-model", input_tokens=7, output_tokens=2
    )
    SpendTracker(run="run-1", ledger=place).store(identity, answer)
    return place, key


def test_a_ledger_is_listed_and_shown(ledger: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    place, key = ledger
    with pytest.raises(SystemExit, match="0"):
        main(["ledger", "list", place])
    assert "1 answers, 9 tokens" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["ledger", "show", place, key])
    entry = json.loads(capsys.readouterr().out)
    assert (entry["text"], entry["run"], entry["request"]["messages"][0]["content"]) == ("b", "run-1", "say a\nb")
    with pytest.raises(SystemExit, match="0"):
        main(["ledger", "show", place])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == entry


def test_a_ledger_or_key_that_is_not_there_is_one_message(
    ledger: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["ledger", "list", str(tmp_path / "none")], ["ledger", "show", ledger[0], "0" * 32]):
        with pytest.raises(SystemExit, match="2"):
            main(command)
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
