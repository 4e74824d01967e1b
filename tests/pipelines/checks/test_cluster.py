"""`llm2llm preflight`: each thing that a run would choke on is one line, and none is a traceback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.llm.backends import openai_attempts
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.pipelines.checks import preflight
from llm2llm.pipelines.checks.student_memory import Memory, answering_memory, shape_of, training_memory
from tests.support.cluster import Run
from tests.support.json_server import JsonServer
from tests.support.kfp_server import KfpServer
from tests.support.loopback_endpoint import HTTPResponse, completion, with_logprobs

CANARY = "canary-key-5f0e2d"
KIND = ("--set", "placement.profile=kind")
Server = Callable[[], JsonServer]


@pytest.fixture
def server() -> Iterator[Server]:
    started: list[JsonServer] = []

    def start() -> JsonServer:
        started.append(JsonServer())
        return started[-1]

    yield start
    for one in started:
        one.stop()


def lines(out: str) -> dict[str, tuple[str, str]]:
    """what -> (status, the rest), of checks whose names occur once."""
    found = {}
    for line in out.splitlines()[:-1]:
        status, _, rest = line.partition("  ")
        what, _, detail = rest.strip().partition("  ")
        found[what] = (status.strip(), detail.strip())
    return found


def test_the_quickstart_passes_on_this_machine(run: Run) -> None:
    code, out, err = run("preflight", "quickstart")
    assert (code, err) == (0, "")
    assert lines(out)["prepare"] == ("ok", "72 seeds, 120 validation, 352 test, 0 pool")
    assert "0 to look at, 0 failed" in out


def test_a_first_config_that_would_learn_nothing_from_half_its_rows(run: Run, tmp_path: Path) -> None:
    """Random weights at the learning rate of pretrained ones, and rows that prepare leaves out."""
    rows = [{"text": f"say {n}", "intent": f"{n % 3}"} for n in range(60)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:7]]))
    values = {
        "name": "mine", "student": "scratch", "data": {"seeds": "seeds.jsonl"}, "prepare": {"seed_count": 20},
        "task": {"name": "mine", "form": "classification", "labels": ["0", "1", "2"],
                 "columns": {"question": "text", "answer": "intent"}},
        "teacher_augment": {"teacher": "pool"},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    code, out, _ = run("preflight", str(tmp_path / "mine.yaml"))
    assert code == 0
    assert "dropped 7 duplicate rows of seeds" in lines(out)["prepare"][1]
    status, detail = lines(out)["student"]
    assert (status, "set train.learning_rate: 1.0e-3" in detail) == ("warn", True)


# data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no rows"),
        ('{"ticket": "a", "queue": "billing"}\nnot json\n', "seeds.jsonl:2"),
        ('{"ticket": "a", "queue": "nowhere"}\n', "nowhere"),
        ('{"text": "a", "queue": "billing"}\n', "no column 'ticket'"),
        ('{"ticket": "a", "queue": "billing"}\n{"ticket": "a", "queue": "refund"}\n', "same question"),
    ],
)
def test_rows_that_prepare_would_refuse_are_refused_here(content: str, says: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(content)
    code, out, _ = run("preflight", "quickstart", "--set", f"data.seeds={tmp_path}/seeds.jsonl")
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("fail"))
    assert says in line


def test_a_file_that_pods_do_not_see_is_pointed_out_when_a_cluster_is_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(
        "".join(json.dumps({"ticket": f"t {i}", "queue": "refund"}) + "\n" for i in range(9))
    )
    code, out, _ = run("preflight", "quickstart", *KIND, "--set", f"data.seeds={tmp_path}/seeds.jsonl")
    assert code == 0
    assert "warn  data.seeds" in out
    code, out, _ = run("preflight", "quickstart", *KIND, "--set", "data.seeds=/data/seeds.jsonl")
    assert code == 0
    assert "only a pod can tell" in lines(out)["data.seeds"][1]
    assert run("preflight", "quickstart", "--set", "data.seeds=/data/seeds.jsonl")[0] == 1


# storage


def test_a_folder_that_can_be_written_to_is_left_as_it_was(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "preflight",
        "quickstart",
        "--set",
        f"teacher_augment.ledger={tmp_path}/ledger",
        "--pipeline-root",
        str(tmp_path),
    )
    assert code == 0
    assert lines(out)["ledger"] == ("ok", f"{tmp_path}/ledger is writable")
    assert lines(out)["pipeline root"][0] == "ok"
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_places_that_cannot_be_written_to_fail(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = run("preflight", "quickstart", "--set", f"teacher_augment.ledger={tmp_path}/file/ledger")
    assert (code, lines(out)["ledger"][0]) == (1, "fail")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, out, err = run("preflight", "quickstart", "--pipeline-root", "s3://no/such")
    assert (code, lines(out)["pipeline root"][0]) == (1, "fail")
    assert CANARY not in out + err


def test_checkpoints_are_written_to_a_place_that_is_tried_beforehand(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    code, out, _ = run("preflight", "quickstart", "--set", f"train.checkpoint_uri={place}")
    assert code == 0
    assert lines(out)["checkpoints"] == ("ok", f"{place} is writable")
    assert not place.exists() or list(place.iterdir()) == []
    (tmp_path / "file").write_text("")
    code, out, _ = run("preflight", "quickstart", "--set", f"train.checkpoint_uri={tmp_path / 'file'}")
    assert code == 1
    assert lines(out)["checkpoints"][0] == "fail"


def test_a_ledger_in_a_pods_own_folder_is_pointed_out(run: Run, tmp_path: Path) -> None:
    out = run("preflight", "quickstart", *KIND, "--set", f"teacher_augment.ledger={tmp_path}")[1]
    assert lines(out)["ledger"][0] == "warn"


# teacher


def teacher(server: JsonServer, answer: Callable[[Any], tuple[int, Any]], *models: str) -> tuple[str, ...]:
    server.answers["GET /v1/models"] = (200, {"object": "list", "data": [{"id": name} for name in models or ("big",)]})
    server.answers["POST /v1/chat/completions"] = answer
    return (
        "--set", "teacher_augment.teacher=openai", "--set", "teacher_augment.model=big",
        "--set", f"teacher_augment.url={server.url}/v1",
    )  # fmt: skip


def says(text: str) -> tuple[int, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "1", "object": "chat.completion", "model": "big", "choices": [choice],
                 "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}  # fmt: skip


def by_schema(body: Any) -> tuple[int, Any]:
    assert body["max_tokens"] <= 2048, "room for thoughts, and no more"
    return says('{"word": "yes"}') if body["response_format"]["type"] == "json_schema" else says("?")


def without_schemas(body: Any) -> tuple[int, Any]:
    if "response_format" in body:
        return 400, {"error": {"message": "response_format is not supported"}}
    return says('{"word": "yes"}')


def test_a_teacher_that_answers_by_schema_is_ok(server: Server, run: Run) -> None:
    one = server()
    code, out, _ = run("preflight", "quickstart", *teacher(one, by_schema))
    assert code == 0
    assert lines(out)["teacher"] == ("ok", f"big at {one.url}/v1 answers, and takes structure asked for by JSON schema")
    assert one.requests.count("POST /v1/chat/completions") == 1


def test_a_teacher_without_schemas_is_asked_in_words_and_that_is_said(server: Server, run: Run) -> None:
    code, out, _ = run("preflight", "quickstart", *teacher(server(), without_schemas))
    assert code == 0
    assert "takes no JSON schema" in lines(out)["teacher"][1]
    arguments = (*teacher(server(), without_schemas), "--set", "teacher_augment.structured=json_schema")
    assert run("preflight", "quickstart", *arguments)[0] == 1


def test_a_teacher_that_babbles_is_pointed_out(server: Server, run: Run) -> None:
    out = run("preflight", "quickstart", *teacher(server(), lambda body: says("Sure! yes")))[1]
    assert lines(out)["teacher"][0] == "warn"


@pytest.mark.parametrize(
    "content",
    ['```json\n{"word": "yes"}\n```', '<think>{"word": "no"}?</think>\n{"word": "yes"}', 'Sure: {"word": "yes"}'],
)
def test_fences_thoughts_and_words_are_no_alarm(server: Server, run: Run, content: str) -> None:
    code, out, _ = run("preflight", "quickstart", *teacher(server(), lambda body: says(content)))
    assert (code, lines(out)["teacher"][0]) == (0, "ok")


@pytest.mark.parametrize(
    ("with_schema", "said"),
    [
        ((500, {"error": {"message": "cannot compile grammar"}}), "fails when it is sent a JSON schema"),
        (says("Yes."), "ignores a JSON schema"),
    ],
)
def test_a_server_that_breaks_on_a_schema_or_ignores_it_is_asked_in_words(
    server: Server, run: Run, with_schema: Any, said: str
) -> None:
    def answer(body: Any) -> tuple[int, Any]:
        return with_schema if "response_format" in body else says('{"word": "yes"}')

    code, out, _ = run("preflight", "quickstart", *teacher(server(), answer))
    assert code == 0
    assert lines(out)["teacher"][0] == "warn"
    assert said in lines(out)["teacher"][1]
    assert "asked in words" in lines(out)["teacher"][1]


def test_a_model_that_is_not_listed_and_answers_is_a_warning(server: Server, run: Run) -> None:
    code, out, _ = run("preflight", "quickstart", *teacher(server(), by_schema, "bigg"))
    assert (code, lines(out)["teacher"][0]) == (0, "ok")
    assert lines(out)["teacher's endpoint"][0] == "warn"
    assert "does not list model 'big'; did you mean 'bigg'?" in lines(out)["teacher's endpoint"][1]


def test_an_unknown_model_fails_with_the_nearest(server: Server, run: Run) -> None:
    missing = (404, {"error": {"message": "model big does not exist"}})
    code, out, _ = run("preflight", "quickstart", *teacher(server(), lambda body: missing, "bigg"))
    assert code == 1
    assert "did you mean 'bigg'?" in lines(out)["teacher"][1]


def test_a_model_without_a_temperature_is_pointed_out(server: Server, run: Run) -> None:
    def answer(body: Any) -> tuple[int, Any]:
        if body.get("temperature", 1) != 1:
            return 400, {"error": {"message": "'temperature' does not support 0.7 with this model"}}
        return by_schema(body)

    code, out, _ = run("preflight", "quickstart", *teacher(server(), answer))
    assert (code, lines(out)["teacher"][0]) == (0, "ok")
    assert "takes no temperature 0.7; it is left out" in lines(out)["teacher's endpoint"][1]


LOGPROBS = ("--set", "teacher_augment.verify=resolve", "--set", "teacher_augment.verification.logprobs=true")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (with_logprobs("{}", {"{}": 1.0}), ("warn", "it wrote '{}'")),
        (HTTPResponse(400, {"error": {"message": "logprobs are not supported"}}), ("fail", "it refuses to (HTTP 400")),
        (completion("about"), ("fail", "it answers without them; set teacher_augment.verification.logprobs: false")),
        (None, ("ok", "its tokens tell the labels apart")),
    ],
)
def test_a_verifier_is_asked_for_its_log_probabilities(
    server: Server, run: Run, answer: HTTPResponse | None, expected: tuple[str, str]
) -> None:
    def says_one(body: Any) -> tuple[int, Any]:
        if "logprobs" not in body:
            return by_schema(body)
        wanted = body["messages"][-1]["content"].split()[2]
        told = answer or with_logprobs(wanted, {wanted: 0.99})
        return told.status, told.body

    code, out, _ = run("preflight", "quickstart", *teacher(server(), says_one), *LOGPROBS)
    status, said = lines(out)["teacher's log-probabilities"]
    assert (status, code) == (expected[0], int(expected[0] == "fail"))
    assert expected[1] in said


def test_it_says_what_it_waits_for_and_gives_up(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PATIENCE", 0.3)
    monkeypatch.setattr(openai_attempts, "SAID_WAIT", 0.0)
    one = server()
    one.headers["POST /v1/chat/completions"] = {"Retry-After": "999999"}
    asked = teacher(one, lambda body: (429, {"error": {"message": "slow down"}}))
    code, out, err = run("preflight", "quickstart", *asked)
    assert (code, lines(out)["teacher"][0]) == (1, "fail")
    assert "waits 0 s: HTTP 429: slow down" in err
    assert "HTTP 429: slow down" in lines(out)["teacher"][1]


def test_prices_that_do_not_name_the_model_are_refused_before_anything(server: Server, run: Run) -> None:
    one = server()
    prices = ("--set", "teacher_augment.prices={bigg: {input: 1, output: 2}}")
    code, out, err = run("preflight", "quickstart", *teacher(one, by_schema), *prices)
    assert code == 2
    assert "prices: name 'bigg', and the model that is asked is 'big'; did you mean 'bigg'?" in out + err
    code, out, err = run("preflight", "quickstart", *teacher(one, by_schema), "--set", "teacher_augment.budget.usd=5")
    assert code == 2
    assert "the price of model 'big' is not known" in out + err
    assert one.requests == []


def test_a_refused_key_fails_and_is_not_shown(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one = server()
    arguments = teacher(one, by_schema)
    one.needs = {"GET /v1/models": "Bearer right", "POST /v1/chat/completions": "Bearer right"}
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    code, out, err = run("preflight", "quickstart", *arguments)
    assert (code, lines(out)["teacher"][0]) == (1, "fail")
    assert CANARY not in out + err
    monkeypatch.delenv("OPENAI_API_KEY")
    code, out, _ = run("preflight", "quickstart", *arguments, *KIND)
    assert code == 0
    assert "its key is in Secret llm2llm-teacher" in lines(out)["teacher"][1]


def test_a_key_that_is_here_and_in_no_secret_of_the_pods_fails(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server()
    arguments = (*teacher(one, by_schema), "--set", "teacher_augment.api_key_env=OTHER_KEY")
    one.needs = {"GET /v1/models": f"Bearer {CANARY}", "POST /v1/chat/completions": f"Bearer {CANARY}"}
    monkeypatch.setenv("OTHER_KEY", CANARY)
    assert run("preflight", "quickstart", *arguments)[0] == 0, "on this machine the key is there"
    code, out, _ = run("preflight", "quickstart", *arguments, *KIND)
    assert (code, lines(out)["teacher"][0]) == (1, "fail")
    assert "asked as teacher_augment does, without a key" in lines(out)["teacher"][1]
    assert "placement.secrets: {env: OTHER_KEY, secret: NAME, key: KEY, stages: [teacher_augment]}" in out
    assert CANARY not in out
    for stages, fails in (("[teacher_augment]", 0), ("[train]", 1)):
        secrets = f"placement.secrets=[{{env: OTHER_KEY, secret: s, key: k, stages: {stages}}}]"
        assert run("preflight", "quickstart", *arguments, *KIND, "--set", secrets)[0] == fails


def test_a_teacher_that_is_not_up_fails_and_one_inside_the_cluster_is_pointed_out(run: Run) -> None:
    base = ("preflight", "quickstart", "--set", "teacher_augment.teacher=openai", "--set", "teacher_augment.model=big")
    code, out, _ = run(*base, "--set", "teacher_augment.url=http://127.0.0.1:9/v1")
    assert (code, lines(out)["teacher"][0]) == (1, "fail")
    code, out, _ = run(*base, "--set", "teacher_augment.url=http://teacher.llm2llm.svc:8000/v1")
    assert (code, lines(out)["teacher"][0]) == (0, "warn")


# student

LLAMA_7B = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "vocab_size": 32000, "tie_word_embeddings": False}  # fmt: skip


def test_a_judge_is_asked_as_a_teacher_is(server: Server, run: Run, tmp_path: Path) -> None:
    asked = teacher(server(), by_schema, "judge-1")
    url = next(one.partition("=")[2] for one in asked if one.startswith("teacher_augment.url="))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"why {i}?", "answer": f"since {i}"}) + "\n" for i in range(40)))
    task = {"name": "open", "form": "text", "match": "judge", "rubric": "same meaning"}
    overrides = [f"task={json.dumps(task)}", f"data={{seeds: {rows}}}", "prepare={}",
                 "teacher_augment={strategy: eda}", "filter_errors={}",
                 f"evaluate={{judge: {{model: judge-1, url: '{url}', structured: json_schema}}}}"]  # fmt: skip
    _, out, _ = run("preflight", "quickstart", *(part for one in overrides for part in ("--set", one)))
    assert lines(out)["judge"] == ("ok", f"judge-1 at {url} answers, and takes structure asked for by JSON schema")


def model(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


@pytest.mark.parametrize(
    ("overrides", "status", "fix"),
    [
        (("train.bf16_weights=true",), "fail", "accelerator=nvidia-a100-80gb"),
        (("train.batch_size=1", "train.max_length=256"), "fail", "train.method=lora"),
        (("train.method=lora", "train.batch_size=1", "train.max_length=512"), "ok", ""),
        (
            ("train.method=lora", "train.batch_size=8", "train.max_length=1024"),
            "warn",
            "with activation checkpointing at once, which is tried then",
        ),
        (("train.method=qlora", "train.batch_size=1", "train.max_length=512"), "ok", "weights 4"),
    ],
)
def test_a_student_is_held_against_the_accelerators_memory(
    overrides: tuple[str, ...], status: str, fix: str, run: Run, tmp_path: Path
) -> None:
    student = model(tmp_path / "llama", **LLAMA_7B)
    settings = [part for one in ("train.batch_size=2", "evaluate.batch_size=4", *overrides) for part in ("--set", one)]
    code, out, _ = run(
        "preflight", "quickstart", "--set", "placement.profile=gke", "--set", f"student={student}", *settings
    )
    assert lines(out)["student"] == ("ok", f"{student}, 6.7 B parameters")
    assert lines(out)["memory of train"][0] == status
    assert fix in lines(out)["memory of train"][1]
    assert (code, lines(out)["student's files"][0]) == (1, "fail"), "there are no weights in that folder"


@pytest.mark.parametrize(
    ("overrides", "status", "says"),
    [
        ((), "fail", "27 of 24 GiB while the student is loaded; set placement.stages.train.memory=33Gi"),
        (("train.method=lora",), "ok", "15 of 24 GiB"),
        (("train.method=lora", "placement.stages.train.gpus=2"), "fail", "29 of 24 GiB"),
        (("train.method=qlora", "placement.stages.train.gpus=2"), "ok", "4 of 24 GiB"),
    ],
)
def test_a_student_that_the_pods_own_memory_does_not_hold_on_its_way_to_the_gpu_fails(
    overrides: tuple[str, ...], status: str, says: str, run: Run, tmp_path: Path
) -> None:
    student = model(tmp_path / "llama", **LLAMA_7B)
    settings = [part for one in ("placement.profile=gke", *overrides) for part in ("--set", one)]
    _, out, _ = run("preflight", "quickstart", "--set", f"student={student}", *settings)
    assert lines(out)["pod memory of train"][0] == status
    assert says in lines(out)["pod memory of train"][1]


@pytest.mark.parametrize(
    ("overrides", "status", "says"),
    [
        ((), "ok", ""),
        (("placement.stages.train.scratch=40Gi",), "warn", "about 176 of 40 GiB of scratch"),
        (("train.checkpoint_minutes=0", "placement.stages.train.scratch=60Gi"), "ok", "about 25 GiB of scratch"),
        (("placement.stages.train.downloads=10Gi",), "warn", "set placement.stages.train.downloads=70Gi"),
    ],
)
def test_volumes_that_do_not_hold_what_the_student_makes_a_stage_write_are_pointed_out(
    overrides: tuple[str, ...], status: str, says: str, run: Run, tmp_path: Path
) -> None:
    # Its name sizes the volumes, its config.json is held against them.
    student = model(tmp_path / "llama-7b", **LLAMA_7B)
    settings = [part for one in ("placement.profile=gke", *overrides) for part in ("--set", one)]
    _, out, _ = run("preflight", "quickstart", "--set", f"student={student}", *settings)
    assert lines(out)["disk of train"][0] == status
    assert says in lines(out)["disk of train"][1]


def test_every_stage_that_loads_the_student_is_held_against_its_accelerator(run: Run, tmp_path: Path) -> None:
    student = model(tmp_path / "llama", **LLAMA_7B)
    settings = ("placement.profile=gke", f"student={student}", "filter_errors.selection=auto", "evaluate.shards=2",
                f"promote.registry={tmp_path}/registry")  # fmt: skip
    _, out, _ = run("preflight", "quickstart", *(part for one in settings for part in ("--set", one)))
    stages = {what.removeprefix("memory of ") for what in lines(out) if what.startswith("memory of ")}
    assert stages == {"train", "answer", "out_of_fold", "controls", "promote"}


def test_the_base_of_an_adapter_is_looked_at(run: Run, tmp_path: Path) -> None:
    base = model(tmp_path / "base", **LLAMA_7B)
    adapter = model(tmp_path / "adapter")
    (Path(adapter) / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    out = run("preflight", "quickstart", "--set", f"student={adapter}")[1]
    assert lines(out)["adapter"][0] == "ok"
    assert lines(out)["student"] == ("ok", f"{base}, 6.7 B parameters")


def test_students_that_cannot_be_loaded_fail(run: Run, tmp_path: Path) -> None:
    pickled = Path(model(tmp_path / "pickled", **LLAMA_7B))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    broken = model(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    for student, why in (
        (pickled, "pickles are not loaded"),
        (tmp_path / "empty", "holds no model"),
        (broken, "not JSON"),
    ):
        code, out, _ = run("preflight", "quickstart", "--set", f"student={student}")
        assert code == 1
        assert why in lines(out)["student"][1]


def test_the_count_of_parameters_is_that_of_transformers() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shapes: list[dict[str, Any]] = [
        LLAMA_7B,
        {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
         "vocab_size": 151936, "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True},
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
        {"model_type": "mixtral", "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16,
         "vocab_size": 32000, "num_key_value_heads": 8, "intermediate_size": 3584, "num_local_experts": 8,
         "tie_word_embeddings": False},
    ]  # fmt: skip
    for values in shapes:
        kind = {key: value for key, value in values.items() if key != "model_type"}
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(AutoConfig.for_model(values["model_type"], **kind))
        exact = sum(one.numel() for one in built.parameters())
        assert shape_of(values).parameters == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "mpnet"])
def test_an_encoder_that_classifies_has_no_output_embeddings(kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(kind)
    with torch.device("meta"):
        built = AutoModelForSequenceClassification.from_config(config)
    shape = shape_of(config.to_dict(), classifier=True)
    assert shape.parameters == pytest.approx(sum(one.numel() for one in built.parameters()), rel=0.02)


def test_a_classifier_keeps_neither_logits_of_words_nor_keys_and_values() -> None:
    shape = shape_of(LLAMA_7B)
    writes = answering_memory(shape, shape.parameters, 32, 1024)
    scores = answering_memory(shape, shape.parameters, 32, 1024, classifier=True)
    assert scores.weights == writes.weights
    assert scores.activations < writes.activations / 2
    short = {"max_length": 64}
    writes, scores = (
        training_memory(shape, shape.parameters, FineTuneSettings.model_validate({"head": head, **short}), 1)
        for head in ("language_model", "classifier")
    )
    assert writes.activations - scores.activations > 4 * shape.vocabulary * shape.hidden / 2**30


def test_preflight_estimates_a_classifier_as_one(run: Run, tmp_path: Path) -> None:
    bert = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "vocab_size": 30522}  # fmt: skip
    student = model(tmp_path / "bert", **bert)
    out = run("preflight", "tickets-classifier", "--set", f"student={student}")[1]
    assert lines(out)["student"] == ("ok", f"{student}, 108.4 M parameters")
    said = lines(out)["memory of evaluate"][1]
    assert float(said.split("about ")[1].split()[0]) < 2.5, said


def test_a_run_that_mlflow_would_not_see_is_pointed_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wanted = ("--set", "report.mlflow_experiment=tickets")

    def found(*settings: str) -> tuple[str, str]:
        more = [part for one in settings for part in ("--set", one)]
        return lines(run("preflight", "quickstart", *wanted, *more)[1])["mlflow"]

    assert found()[0] == "fail"
    assert "needs the address of a tracking server" in found()[1]
    cluster, variable = "placement.profile=gke", "placement.env.MLFLOW_TRACKING_URI"
    assert found(cluster)[0] == "warn"
    assert "stage report is not given it; set placement.env.MLFLOW_TRACKING_URI" in found(cluster)[1]
    assert "'mlflow:5000' is no http:// or https:// address" in found(cluster, f"{variable}=mlflow:5000")[1]
    assert found(cluster, f"{variable}=http://mlflow:5000")[0] == "ok"
    key = "{env: MLFLOW_TRACKING_URI, %s: mlflow, key: address, stages: [%s]}"
    for given, stage, status in (
        ("placement.config_maps=[" + key % ("config_map", "report") + "]", "report", "ok"),
        ("placement.secrets=[" + key % ("secret", "report") + "]", "report", "ok"),
        ("placement.secrets=[" + key % ("secret", "train") + "]", "train", "warn"),
    ):
        assert found(cluster, given)[0] == status, stage
    out = run("compile", "quickstart", "-o", tmp_path / "pipeline.yaml", *wanted, "--set", "max_iterations=1")[1]
    assert "warning: report.mlflow_experiment: nothing is logged without the tracking server in" in out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert found()[0] == "ok"
    assert found(cluster)[0] == "warn", "this machine's environment is not the pod's"


def test_every_way_to_need_less_memory_does() -> None:
    shape = shape_of(LLAMA_7B)

    def needs(rows: int = 8, devices: int = 1, **settings: Any) -> Memory:
        return training_memory(shape, shape.parameters, FineTuneSettings(**settings), rows, devices)

    full = needs()
    for method, bytes_each in (({}, 18), ({"bf16_weights": True}, 8), ({"method": "hft"}, 12)):
        memory = needs(**method)
        assert memory.weights + memory.optimiser == pytest.approx(bytes_each * shape.parameters / 2**30, rel=0.03)
    lora, qlora = needs(method="lora"), needs(method="qlora")
    assert lora.optimiser == qlora.optimiser < 1
    assert qlora.weights < lora.weights / 2 < full.weights / 4
    for half in (needs(max_length=512), needs(rows=4)):
        assert half.activations == pytest.approx(full.activations / 2, rel=0.02), "but for the pieces of logits"
    assert needs(activation_checkpointing=True).activations < full.activations / 4
    assert needs(devices=4) == full
    shared = needs(devices=4, sharding="fsdp")
    assert shared.weights < full.weights / 4, "float32 weights without copies, and two blocks whole"
    assert shared.activations == full.activations


# cluster

GKE = ("--set", "placement.profile=gke", "--set", "images.cpu=IMAGES/cpu:1", "--set", "images.train=IMAGES/train:1")
BOUNDED = {"templateDefaults": {"retryStrategy": {"limit": "0", "retryPolicy": "Always"}}}
"""What manifests/administrator sets."""
SHIPPED_2_17 = {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}}}
"""manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml of KFP 2.17.0."""
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}


class Cluster:
    """A Kubernetes API server with everything that the profile gke needs, and a registry."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.api, self.registry = server(), server()
        self.config = folder / "kubeconfig"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "c",
                    "clusters": [{"name": "k", "cluster": {"server": self.api.url}}],
                    "users": [{"name": "u", "user": {"token": CANARY}}],
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "ml"}}],
                }
            )
        )  # fmt: skip
        self.put("", {"kind": "Namespace", "metadata": {"name": "ml"}})
        self.retries(controller=BOUNDED)
        self.secret("llm2llm-teacher", "api-key")
        self.secret("llm2llm-hugging-face", "token")
        claim = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
        self.put("persistentvolumeclaims/llm2llm-model-cache", claim)
        self.put("resourcequotas", {"items": []})
        self.put("serviceaccounts/llm2llm-runs", {})
        self.nodes(node("cpu-1", {}, cpu="8", memory="32Gi"), node("gpu-1", L4, gpus="1", taint="nvidia.com/gpu"))
        for name in ("cpu", "train"):
            self.image(name, 200)
        self.arguments = ("preflight", "quickstart", "--cluster",
                          *(one.replace("IMAGES", self.registry.address) for one in GKE))  # fmt: skip

    def put(self, path: str, value: Any, status: int = 200) -> None:
        """Answers for a path, or for what is in the namespace."""
        full = path if path.startswith("/") else f"/api/v1/namespaces/ml/{path}".rstrip("/")
        self.api.answers[f"GET {full}"] = (status, value)

    def image(self, name: str, status: int) -> None:
        self.registry.answers[f"HEAD /v2/{name}/manifests/1"] = (status, {})

    def secret(self, name: str, *keys: str) -> None:
        self.put(
            f"secrets/{name}",
            {"metadata": {"name": name}, "data": dict.fromkeys(keys, "c2VjcmV0")},
        )

    def retries(self, controller: Any = None, patch: str | None = "{}", status: int = 200) -> None:
        """KFP's own settings, in its namespace: the controller's workflowDefaults and the API server's patch."""
        defaults = {} if controller is None else {"workflowDefaults": yaml.safe_dump({"spec": controller})}
        self.put("/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap", {"data": defaults}, status)
        env = [] if patch is None else [{"name": "COMPILED_PIPELINE_SPEC_PATCH", "value": patch}]
        pod = {"containers": [{"name": "ml-pipeline-api-server", "env": env}]}
        spec = {"selector": {}, "template": {"spec": pod}}
        self.put("/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline", {"spec": spec}, status)

    def nodes(self, *nodes: Any) -> None:
        self.put("/api/v1/nodes", {"items": list(nodes)})


def node(
    name: str, labels: dict[str, str], cpu: str = "8", memory: str = "64Gi", gpus: str = "", taint: str = ""
) -> Any:
    allocatable = {"cpu": cpu, "memory": memory, "pods": "110", **({"nvidia.com/gpu": gpus} if gpus else {})}
    taints = [{"key": taint, "value": "present", "effect": "NoSchedule"}] if taint else None
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {"allocatable": allocatable},
    }


@pytest.fixture
def cluster(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(server, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(made.config))
    from kubernetes import config

    # The client reads KUBECONFIG when it is imported.
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(made.config))
    return made


def test_a_cluster_that_has_everything_passes(cluster: Cluster, run: Run, kfp_server: KfpServer) -> None:
    code, out, err = run(*cluster.arguments, "--host", kfp_server.url)
    assert (code, err) == (0, "")
    assert not [line for line in out.splitlines() if line.startswith("fail")]
    assert "warn" not in out
    found = lines(out)
    assert found["kubeflow"] == ("ok", f"{kfp_server.url} answers")
    assert found["secret llm2llm-teacher"] == ("ok", "has api-key")
    assert CANARY not in out
    assert "c2VjcmV0" not in out
    assert not any(request.startswith("POST") for request in cluster.api.requests)


SECRET = "secret llm2llm-teacher"
VOLUME = "volume llm2llm-model-cache"
CACHE = "persistentvolumeclaims/llm2llm-model-cache"
PENDING = {"spec": {}, "status": {"phase": "Pending"}}


@pytest.mark.parametrize(
    ("change", "what", "status", "says"),
    [
        (lambda c: c.put("", {}, 404), "namespace", "fail", "ml is not there"),
        (lambda c: c.put("", {}, 401), "namespace", "fail", "log in again"),
        (lambda c: c.put("secrets/llm2llm-teacher", {}, 404), SECRET, "warn",
         "kubectl create secret generic llm2llm-teacher --namespace ml --from-file=api-key=FILE"),
        (lambda c: c.secret("llm2llm-teacher", "other"), SECRET, "warn", "has no key api-key"),
        (lambda c: c.put("secrets/llm2llm-teacher", {}, 403), SECRET, "warn", "not permitted"),
        (lambda c: c.put(CACHE, {}, 404), VOLUME, "fail", "is not there"),
        (lambda c: c.put(CACHE, PENDING), VOLUME, "warn", "is Pending"),
        (lambda c: c.retries(SHIPPED_2_17), "retries", "warn",
         "killed or evicted is not tried again; one whose pod vanishes or cannot be created is tried up to "
         "6 x 3^(i+3) times in iteration i, 162 in iteration 0"),
        (lambda c: c.retries(), "retries", "warn", "is tried up to 6 times; one whose pod vanishes or cannot be "
         "created is not tried again"),
        (lambda c: c.retries(SHIPPED_2_17, status=403), "retries", "warn",
         "configmap and COMPILED_PIPELINE_SPEC_PATCH of Deployment ml-pipeline cannot be read; as shipped, KFP up to"),
        (lambda c: c.image("train", 404), "image", "fail", "train:1 does not exist"),
        (lambda c: c.image("train", 403), "image", "warn", "is private, or does not exist"),
        (lambda c: c.image("train", 500), "image", "warn", "its registry answers 500"),
        (lambda c: c.nodes(node("cpu-1", {})), "nodes", "warn",
         "train, evaluate, out_of_fold, controls: no node has cloud.google.com/gke-accelerator=nvidia-l4 now"),
        (lambda c: c.nodes(node("cpu-1", {}), node("gpu-1", L4, gpus="1", taint="other")), "nodes", "fail",
         "not tolerated: other=present:NoSchedule"),
        (lambda c: c.nodes(node("gpu-1", L4, cpu="4", gpus="1")), "nodes", "warn", "no node is large enough"),
        (lambda c: c.put("/api/v1/nodes", {}, 403), "nodes", "warn", "not permitted"),
        (lambda c: c.put("/api/v1/nodes", {}, 500), "nodes", "fail", "answers 500"),
        (lambda c: c.put("resourcequotas", quota("0", "0")), "quota gpus", "fail",
         "train asks 1 requests.nvidia.com/gpu, of 0, 0 are left"),
        (lambda c: c.put("resourcequotas", quota("1", "1")), "quota gpus", "warn", "waits until others have ended"),
    ],
)  # fmt: skip
def test_what_a_cluster_lacks_is_one_line_with_the_fix(
    change: Callable[[Cluster], Any], what: str, status: str, says: str, cluster: Cluster, run: Run
) -> None:
    change(cluster)
    code, out, err = run(*cluster.arguments)
    assert err == ""
    (line,) = (line for line in out.splitlines() if line.split("  ")[0] in ("warn", "fail"))
    assert line.startswith(status)
    assert what in line
    assert says in line
    assert code == (status == "fail")


def test_the_api_servers_patch_lies_over_the_controllers_settings(cluster: Cluster, run: Run) -> None:
    cluster.retries(SHIPPED_2_17, patch=json.dumps(BOUNDED))
    status, detail = lines(run(*cluster.arguments)[1])["retries"]
    assert status == "ok"
    assert detail == "a stage that fails, is killed or evicted, or whose pod vanishes, is tried up to 6 times"
    config_map = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
    cluster.put(config_map, {}, 403)
    assert lines(run(*cluster.arguments)[1])["retries"][0] == "ok", "nothing below it can change what it says"
    cluster.retries(SHIPPED_2_17, patch="{}")
    cluster.put(config_map, {}, 403)
    status, detail = lines(run(*cluster.arguments)[1])["retries"]
    assert status == "warn"
    assert "unless ConfigMap workflow-controller-configmap, which cannot be read, says otherwise" in detail


def test_submit_says_what_will_be_tried_again_and_starts_in_any_case(
    cluster: Cluster, run: Run, kfp_server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said(*more: str) -> str:
        code, out, err = run("submit", "quickstart", "--host", kfp_server.url, *more)
        assert (code, err) == (0, "")
        (line,) = (line for line in out.splitlines() if line.startswith("retries"))
        return line.removeprefix("retries").strip()

    assert said("--set", "placement.profile=kind") == (
        "a stage that fails, is killed or evicted, or whose pod vanishes, is tried up to 2 times"
    )
    cluster.retries(SHIPPED_2_17)
    assert said().endswith(
        "is tried up to 3^(i+4) times in iteration i, 81 in iteration 0, with all that the iteration holds; apply "
        "manifests/administrator/retries-api-server, see manifests/README.md"
    )
    cluster.retries(SHIPPED_2_17, status=403)
    assert said().startswith("not known: ConfigMap workflow-controller-configmap and COMPILED_PIPELINE_SPEC_PATCH of")
    cluster.retries(SHIPPED_2_17, status=500)
    assert "answers 500" in said()
    cluster.api.stop()
    assert said().startswith("not known from here: ")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert said().startswith("not known from here: no kubeconfig")


def test_settings_in_the_runs_own_namespace_are_those_of_a_kubeflow_for_one_user(cluster: Cluster, run: Run) -> None:
    cluster.retries(BOUNDED)
    own = {"config": yaml.safe_dump({"workflowDefaults": {"spec": SHIPPED_2_17}})}
    cluster.put("configmaps/workflow-controller-configmap", {"data": own})
    assert "is not tried again" in lines(run(*cluster.arguments)[1])["retries"][1]


def test_config_maps_and_certificates_that_pods_need_are_looked_for(cluster: Cluster, run: Run) -> None:
    proxy = "placement.config_maps=[{env: HTTPS_PROXY, config_map: proxy, key: https}]"
    arguments = (*cluster.arguments, "--set", proxy, "--set", "placement.ca_bundle={config_map: trust}")
    code, out, _ = run(*arguments)
    assert code == 1
    assert "kubectl create configmap proxy --namespace ml --from-file=https=FILE" in out
    assert lines(out)["configmap trust"][0] == "fail"
    cluster.put("configmaps/proxy", {"data": {"https": "http://proxy.example.org"}})
    cluster.put("configmaps/trust", {"data": {"other": ""}})
    code, out, _ = run(*arguments)
    assert (code, lines(out)["configmap proxy"]) == (1, ("ok", "has https"))
    assert "has no key ca.crt" in lines(out)["configmap trust"][1]
    cluster.put("configmaps/trust", {"data": {"ca.crt": ""}})
    assert run(*arguments)[0] == 0


def quota(hard: str, used: str) -> Any:
    resource = "requests.nvidia.com/gpu"
    return {"items": [{"metadata": {"name": "gpus"}, "spec": {"hard": {resource: hard}},
                       "status": {"hard": {resource: hard}, "used": {resource: used}}}]}  # fmt: skip


def test_a_secret_without_which_no_pod_starts_fails(cluster: Cluster, run: Run) -> None:
    wanted = "placement.secrets=[{env: OPENAI_API_KEY, secret: mine, key: key}]"
    code, out, _ = run(*cluster.arguments, "--set", wanted)
    assert (code, lines(out)["secret mine"][0]) == (1, "fail")
    cluster.secret("mine", "key")
    assert run(*cluster.arguments, "--set", wanted)[0] == 0
    cluster.secret("mine", "kee")
    assert run(*cluster.arguments, "--set", wanted)[0] == 1


def test_on_machines_of_ones_own_a_missing_node_fails(cluster: Cluster, run: Run) -> None:
    code, out, _ = run(*cluster.arguments, "--set", "placement.profile=onprem")
    assert code == 1
    assert "no node has nvidia.com/gpu.product=NVIDIA-L4" in out


def test_training_on_several_nodes_needs_its_runtime_its_account_and_quota_for_all_nodes(
    cluster: Cluster, run: Run
) -> None:
    nodes = ("--set", "train.nodes=3", "--set", "train.checkpoint_uri=s3://bucket/checkpoints")
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}},
             "status": {"hard": {"requests.nvidia.com/gpu": "2"}, "used": {}}}  # fmt: skip
    cluster.put("resourcequotas", {"items": [quota]})
    _, out, _ = run(*cluster.arguments, *nodes)
    found = lines(out)
    assert found["training runtime torch-distributed"][0] == "fail"
    assert found["quota gpus"][0] == "fail"
    assert "train asks 3 requests.nvidia.com/gpu, of 2" in found["quota gpus"][1]
    cluster.put("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed", {})
    cluster.put("serviceaccounts/llm2llm-train", {})
    _, out, _ = run(*cluster.arguments, *nodes)
    assert lines(out)["training runtime torch-distributed"] == ("ok", "is there")


def test_queues_priorities_and_service_accounts_are_looked_for(cluster: Cluster, run: Run) -> None:
    stage = "placement.defaults={cpu: '1', memory: 4Gi, queue: gpus, priority: low}"
    arguments = (*cluster.arguments, "--set", stage, "--service-account", "trainer")
    code, out, _ = run(*arguments)
    assert code == 1
    found = lines(out)
    assert [found[what][0] for what in ("queue gpus", "priority low", "service account")] == ["fail"] * 3
    cluster.put("serviceaccounts/trainer", {})
    for version in ("v1beta1", "v1beta2"):  # a server has the one or both
        queue, priority = (
            f"/apis/kueue.x-k8s.io/{version}/{one}"
            for one in ("namespaces/ml/localqueues/gpus", "workloadpriorityclasses/low")
        )
        cluster.put(queue, {})
        cluster.put(priority, {})
        assert run(*arguments)[0] == 0
        cluster.put(queue, {}, 404)
        cluster.put(priority, {}, 404)


def test_a_registry_that_hands_out_tokens_is_asked_with_one(cluster: Cluster, run: Run) -> None:
    registry = cluster.registry
    registry.answers["GET /token"] = (200, {"token": "t"})
    for name in ("cpu", "train"):
        path = f"HEAD /v2/{name}/manifests/1"
        registry.needs[path] = "Bearer t"
        registry.headers[path] = {
            "www-authenticate": f'Bearer realm="{registry.url}/token",service="r",scope="repository:{name}:pull"'
        }
    assert run(*cluster.arguments)[0] == 0
    assert registry.requests.count("GET /token") == 2


def test_no_cluster_and_no_login_are_one_line(
    run: Run, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kfp_server: KfpServer
) -> None:
    cluster.api.stop()
    code, out, _ = run(*cluster.arguments, "--host", "http://127.0.0.1:9")
    assert code == 1
    assert "cannot be reached" in lines(out)["namespace"][1]
    assert "cannot be reached" in lines(out)["kubeflow"][1]
    code, out, _ = run(*cluster.arguments, "--kube-context", "none")
    assert "no context 'none'" in lines(out)["kubernetes"][1]
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert "no kubeconfig" in run(*cluster.arguments)[1]
