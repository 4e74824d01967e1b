"""Configs: the shipped ones are whole, and every mistake is named with its key, its value and the fix."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import PARENT_VARIABLE
from llm2llm.components.shared.base.settings_text import read_settings_text, settings_text
from llm2llm.components.stages import STAGES
from llm2llm.pipelines.config import (
    FORM_PARAMETERS,
    Config,
    check_config,
    compiled_settings,
    from_parameters,
    load_config,
    shipped_configs,
    to_parameters,
)
from llm2llm.pipelines.config.configured import configured
from llm2llm.pipelines.config.form import MOST_BYTES, describe_form
from llm2llm.pipelines.kubeflow.local_data import refuse_local_data

PAPER = ["casehold", "gsm8k", "snips", "sst2", "trec"]
JSON = ["extraction", "several-labels", "spans", "tool-calls"]
NAMES = sorted(
    [*PAPER, *(f"paper-{name}" for name in PAPER), *JSON, "quickstart", "quickstart-random", "tickets-classifier"]
)


def minimal(**values: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "student": "scratch",
        "task": "snips",
        "data": {"seeds": "seeds.jsonl"},
        "teacher_augment": {"teacher": "openai", "model": "m", "url": "http://localhost:8000/v1"},
    } | values


def test_every_config_is_shipped() -> None:
    assert sorted(shipped_configs()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configs_survive_the_way_through_the_parameters(name: str) -> None:
    config = load_config(name)
    parameters = to_parameters(config)
    assert set(parameters) == {*FORM_PARAMETERS, "settings"}
    assert all(isinstance(value, str | int | float) for value in parameters.values())
    assert from_parameters(config.name, parameters, config.images) == config


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_can_read_its_settings(name: str, tmp_path: Path) -> None:
    """What `configure` hands on is what the stage's own class takes, and says the same."""
    import importlib

    from llm2llm.components.shared.base.settings import StageSettings
    from llm2llm.pipelines.config.stage_settings import stage_settings

    replay = [] if load_config(name).train.classifies else ["data.replay=r.jsonl", "train.replay_fraction=0.5"]
    config = load_config(name, [*replay, "promote.registry=r"])
    for stage, text in stage_settings(config, {"seeds": "sha256:1"}).items():
        module = importlib.import_module(f"llm2llm.components.{stage}.settings")
        (kind,) = [
            one
            for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, StageSettings) and one.__module__ == module.__name__
        ]
        loaded = kind.load(read_settings_text(text, stage), stage)
        assert set(STAGES[stage].sections) == set(kind.model_fields), stage
        for section in set(STAGES[stage].sections) & set(Config.model_fields):
            assert getattr(loaded, section) == getattr(config, section), (stage, section)
    assert loaded.named_sources() == {} or loaded.named_sources()


def test_the_form_stands_together_and_says_what_the_settings_say() -> None:
    """Kubeflow sorts the form by name."""
    names = sorted([*FORM_PARAMETERS, "settings"])
    assert [name.split("_")[0] for name in names] == [
        *["data"] * 4, *["loop"] * 3, "settings", *["student"] * 3, *["teacher"] * 4,
    ]  # fmt: skip
    described = describe_form()
    assert described.keys() == set(names)
    assert all(len(text) > 15 for text in described.values())
    for teacher in ("openai", "batch", "vllm", "transformers", "grammar", "pool"):
        assert teacher in described["teacher"]


@pytest.mark.parametrize("text", ["{{workflow.name}}", "{{=1+1}}", "$(HOME)", "$$5"])
def test_texts_of_the_form_that_kubeflow_would_change_are_refused(text: str) -> None:
    config = load_config("quickstart", [f"data.test=s3://bucket/{text}.jsonl"])
    with pytest.raises(UserError, match=r"data_test \(data\.test\): .* which Kubeflow replaces on the way"):
        to_parameters(config)


def test_texts_of_the_rest_arrive_as_they_are() -> None:
    text = (
        "Fill {{queue}} for {{$.inputs.parameters['seeds']}}; $5, $$5, $(HOME), {{=1+1}}, \"so\"\n\\frac{1}{2} \u2028 é"
    )
    values = minimal(task={"name": "t", "form": "text", "instruction": text, "description": "{{workflow.name}}"})
    config = check_config(values, "c.yaml")
    parameters = to_parameters(config)
    assert "{{" not in parameters["settings"]
    assert "$" not in parameters["settings"]
    assert from_parameters("mine", parameters, config.images).task.instruction == text


def test_too_many_parameters_are_refused_by_name() -> None:
    values = minimal(task={"name": "t", "form": "text", "description": "long " * (MOST_BYTES // 4)})
    with pytest.raises(UserError, match=r"KiB, more than the 100 .* most of it is settings: put long prompts"):
        to_parameters(check_config(values, "c.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": "[1]"}, "settings: expected a JSON object"),
        ({"settings": 4}, "settings: expected a JSON object of keys and values, got 4"),
        ({"settings": [1]}, r"settings: expected a JSON object of keys and values, got \[1\]"),
        ({"settings": "{'task': 'snips'}"}, "settings: not JSON"),
        ({"settings": '{"train": 3}'}, "settings.train: expected keys and values, got 3"),
        ({"settings": '{"train": {}, "train": {}}'}, "settings: not JSON: the key 'train' stands twice"),
        ({"settings": '{"placement": {}}'}, "settings.placement: fixed when the pipeline is compiled"),
        ({"settings": None}, "task: missing"),
        ({"settings": ""}, "task: missing"),
        ({"data_seeds": None}, "data.seeds: missing"),
        ({"student_epochs": "many"}, r"train\.epochs: .*\(got 'many'\)"),
    ],
)
def test_what_people_type_into_the_form_is_refused_with_one_message(changes: dict[str, Any], message: str) -> None:
    config = load_config("snips")
    with pytest.raises(UserError, match=message):
        from_parameters("snips", to_parameters(config) | changes, config.images)


def test_numbers_of_a_form_come_as_floats_and_the_rest_as_an_object() -> None:
    config = load_config("snips")
    parameters = to_parameters(config)
    as_sent = parameters | {
        "loop_max_iterations": float(config.max_iterations),
        "data_validation": None,
        "settings": read_settings_text(parameters["settings"], "settings"),
    }
    assert from_parameters("snips", as_sent, config.images) == config


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configs_are_commented(name: str) -> None:
    lines = shipped_configs()[name].read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= 5


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_configs_have_the_reference_implementations_settings(name: str) -> None:
    """As `SqueezeAILab/LLM2LLM` has them; everything else is as in the config that it is based on."""
    ours, plain = load_config(f"paper-{name}"), load_config(name)
    assert ours.train.batch_size * ours.train.gradient_accumulation == 128
    assert (ours.train.epochs, ours.train.learning_rate, ours.train.scheduler, ours.train.warmup) == (
        3, 2e-5, "cosine", 0.03,
    )  # fmt: skip
    assert ours.max_iterations + 1 == 10
    asked = ours.evaluate
    assert (asked.draw_seeds, asked.temperature, asked.top_p, asked.samples) == (True, 0.7, 0.9, 1)
    augment = ours.teacher_augment
    assert (augment.temperature, augment.ask_again_above, augment.examples_per_error) == (1.0, 0.95, 1)
    assert (augment.checks, augment.verify, augment.strategy) == ([], "none", "llm2llm")
    assert augment.prompts["llm2llm"].count("a good answer is") == 1, "one worked example"
    assert (ours.filter_errors.selection, ours.filter_errors.patience) == ("wrong", 0)
    assert (ours.data, ours.task, ours.student, ours.prepare) == (plain.data, plain.task, plain.student, plain.prepare)
    assert "Deviations" in shipped_configs()[f"paper-{name}"].read_text()


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_worked_examples_are_answers_that_the_task_takes(name: str) -> None:
    from llm2llm.components.shared import tasks

    config = load_config(f"paper-{name}")
    text = config.teacher_augment.prompts["llm2llm"]
    (row,) = json.loads(text.split("a good answer is\n")[1].split("\nWhat stands")[0])["examples"]
    assert tasks.normalise(config.task, row["answer"], row.get("choices", []), row.get("rationale"))[0] == row["answer"]
    given = json.loads(text.split("For the example\n")[1].split("\na good answer is")[0])
    assert given["question"] != row["question"]


def test_a_config_may_start_from_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: snips\nname: mine\ntrain: {epochs: 7}\ntask: trec\ndata: {validation: v.jsonl}\n")
    mine, base = load_config(str(path)), load_config("snips")
    assert (mine.name, mine.train.epochs, mine.task.name) == ("mine", 7, "trec")
    assert mine.train.learning_rate == base.train.learning_rate
    assert (mine.data.seeds, mine.data.validation) == (base.data.seeds, "v.jsonl")
    assert load_config(str(path), ["train.epochs=9"]).train.epochs == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: snip\nname: mine\n", "base 'snip' is no shipped config; did you mean 'snips'"),
        ("base: paper-snips\nname: mine\n", "base 'paper-snips' has a base itself, 'snips'"),
        ("base: snips\n", "name: missing; a config with a base has a name of its own"),
        ("base: [snips]\nname: mine\n", "is no shipped config"),
        ("base: snips\nname: mine\ntrain: {epoch: 3}\n", "train.epoch: unknown key; did you mean 'epochs'"),
    ],
)
def test_a_base_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        load_config(str(tmp_path / "mine.yaml"))
    assert said in str(refused.value)


def test_the_random_config_differs_from_the_quickstart_in_its_strategy_alone() -> None:
    one, other = (load_config(name).model_dump() for name in ("quickstart", "quickstart-random"))
    assert (one.pop("name"), other.pop("name")) == ("quickstart", "quickstart-random")
    assert (one["teacher_augment"].pop("strategy"), other["teacher_augment"].pop("strategy")) == ("llm2llm", "random")
    assert one == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_iteration": 3}, r"c\.yaml: max_iteration: unknown key; did you mean 'max_iterations'\?"),
        ({"train": {"epoch": 3}}, r"c\.yaml: train\.epoch: unknown key; did you mean 'epochs'\?"),
        ({"train": {"scratch": {"layer": 3}}}, r"train\.scratch\.layer: unknown key; did you mean 'layers'\?"),
        ({"train": {"epochs": -1}}, r"train\.epochs: .*greater than 0 \(got -1\)"),
        ({"max_iterations": 0}, r"max_iterations: .*\(got 0\)"),
        ({"name": "My Pipeline"}, r"c\.yaml: name: .*\(got 'My Pipeline'\)"),
        ({"task": "snipz"}, r"task: 'snipz' is no shipped task .*did you mean 'snips'\?"),
        ({"task": 3}, r"task: a shipped task's name or a mapping, got 3"),
        ({"student": "scratch", "train": {"method": "lora"}}, r"train\.method 'lora' adapts a pretrained model"),
        ({"prepare": {"seed_count": 5, "seed_fraction": 0.5}}, r"seed_count 5 and seed_fraction 0\.5 contradict"),
        ({"teacher_augment": {"teacher": "pool"}}, r"'pool' has nothing to draw from: set data\.pool"),
        ({"teacher_augment": {"teacher": "grammar"}}, r"teacher 'grammar' needs a grammar file"),
        ({"teacher_augment": {"teacher": "openai"}}, r"teacher 'openai' needs the name of a model"),
        ({"teacher_augment": {"teacher": "openai", "model": "m", "url": "localhost"}}, r"url: must begin with http"),
        (
            {"task": "gsm8k", "teacher_augment": {"teacher": "grammar", "grammar": "g.yaml"}},
            r"'grammar' writes a question and its answer only, and task 'gsm8k' needs choices or a rationale",
        ),
        ({"teacher_augment": {"budget": {"usd": float("inf")}}}, r"budget\.usd: Input should be a finite number"),
        ({"data": {}}, r"data\.seeds: missing"),
        ({"train": {"row_weights": "dimp", "loss_on": "all"}}, r"row_weights: 'dimp' weighs answers, and loss_on is"),
        (
            {"train": {"row_weights": "imp", "nodes": 2}},
            r"row_weights: 'imp' asks a checker in this pod, and nodes is 2",
        ),
        (
            {"train": {"row_weights": "imp"}, "task": "gsm8k"},
            r"train\.row_weights: 'imp' asks for the probabilities of",
        ),
        (
            {"train": {"row_weights": "dimp"}, "task": {"name": "snips", "rationale": True}},
            r"train\.row_weights: 'dimp' weighs answers, and task 'snips' writes a rationale before them",
        ),
        ({"train": {"soft_labels": True}, "task": "gsm8k"}, r"train\.soft_labels: task 'gsm8k' has neither labels nor"),
        ({"train": {"soft_labels": True, "row_weights": "dimp"}}, r"soft_labels: true trains a row on several labels"),
        (
            {"train": {"soft_labels": True}, "task": {"name": "snips", "rationale": True}},
            r"train\.soft_labels: task 'snips' writes a rationale before the answer",
        ),
        (
            {"train": {"preference": {"epochs": 1}}},
            r"preference\.epochs: 1 needs own answers that are wrong, and own_ans",
        ),
        ({"train": {"own_answers": {"join": 2}}}, r"own_answers\.join: 2 needs answers, and own_answers\.samples is 0"),
        ({"train": {"own_answers": {"samples": 2}}}, r"own_answers\.samples: 2 answers that nothing is made of; set"),
        (
            {"train": {"own_answers": {"samples": 2}, "preference": {"epochs": 1}, "nodes": 2}},
            r"own_answers: the student answers in this pod, and nodes is 2",
        ),
        (
            {"train": {"own_answers": {"samples": 2}, "preference": {"epochs": 1}, "sharding": "fsdp"}},
            r"preference: not with sharding 'fsdp'",
        ),
        (
            {"train": {"own_answers": {"samples": 2}, "preference": {"epochs": 1}, "bf16_weights": True}},
            r"preference: not with bf16_weights",
        ),
        (
            {"train": {"own_answers": {"samples": 2, "join": 1}}},
            r"train\.own_answers\.join: task 'snips' has answers without a rationale",
        ),
        ({"train": {"trust_remote_code": "perhaps"}}, r"train\.trust_remote_code: .*\(got 'perhaps'\)"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(minimal(**change), "c.yaml")


def test_overrides_set_any_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(minimal()))
    config = load_config(str(path), ["train.epochs=2.5", "task.max_new_tokens=3", "data.test=t.jsonl", "random_seed=4"])
    assert (config.train.epochs, config.task.max_new_tokens, config.data.test) == (2.5, 3, "t.jsonl")
    assert (config.task.name, config.random_seed) == ("snips", 4)
    with pytest.raises(UserError, match=r"^--set train\.epoch: unknown key; did you mean 'epochs'"):
        load_config(str(path), ["train.epochs=2", "train.epoch=2"])
    path.write_text(yaml.safe_dump(minimal(train={"epochs": "many"})))
    with pytest.raises(UserError, match=r"^c\.yaml: train\.epochs: "):
        load_config(str(path), ["train.epoch=2"])
    with pytest.raises(UserError, match=r"expected section\.key=value"):
        load_config(str(path), ["train.epochs"])
    with pytest.raises(UserError, match="'student' is no section"):
        load_config(str(path), ["student.size=2"])


def test_paths_are_as_seen_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "c.yaml"
    values = minimal(
        student="model", data={"seeds": "seeds.jsonl", "test": "openai/gsm8k:main#test", "pool": "builtin:x/y.jsonl"}
    )
    path.write_text(yaml.safe_dump(values))
    config = load_config(str(path), resolve=True)
    assert config.data.seeds == str(tmp_path / "seeds.jsonl")
    assert config.student == str(tmp_path / "model")
    assert config.data.test == "openai/gsm8k:main#test"
    semantic = {"semantic": {"model": "embed"}}
    path.write_text(yaml.safe_dump({**values, "prepare": {"leak": semantic}, "dedupe": {"leak": semantic, **semantic}}))
    compared = load_config(str(path), resolve=True)
    for settings in (compared.prepare.leak, compared.dedupe.leak, compared.dedupe):
        assert settings.semantic is not None
        assert settings.semantic.model == str(tmp_path / "embed")
    assert config.data.pool == "builtin:x/y.jsonl"
    assert load_config(str(path)).data.seeds == "seeds.jsonl", (
        "a path of this machine has no place in a compiled pipeline"
    )


def test_a_models_folder_is_as_seen_from_the_config_and_a_name_at_an_endpoint_stays(tmp_path: Path) -> None:
    for name in ("writer", "judge", "scratch", "gpt"):
        (tmp_path / name).mkdir()
    path = tmp_path / "c.yaml"

    def load(augment: dict[str, Any], **changes: Any) -> Config:
        path.write_text(yaml.safe_dump(minimal(teacher_augment=augment, **changes)))
        return load_config(str(path), resolve=True)

    writer, judge = str(tmp_path / "writer"), str(tmp_path / "judge")
    config = load(
        {
            "teacher": "transformers",
            "model": "./writer",
            "verify": "judge",
            "verification": {"by": {"teacher": "vllm", "model": "judge"}},
            "prices": {"./writer": {"input": 1, "output": 1}},
        }
    )
    assert config.student == "scratch", "not the folder that is called so"
    augment, by = config.teacher_augment, config.teacher_augment.verification.by
    assert by is not None
    assert (augment.model, by.model) == (writer, judge)
    assert writer in augment.prices, "a price goes with its model"
    assert load({"teacher": "vllm", "model": "./gone"}).teacher_augment.model == str(tmp_path / "gone")
    assert load({"teacher": "vllm", "model": "Qwen/Qwen3-8B"}).teacher_augment.model == "Qwen/Qwen3-8B"
    assert load({"model": "gpt"}).teacher_augment.model == "gpt"
    several = load({"teachers": [{"model": "gpt"}, {"teacher": "transformers", "model": "writer"}]}).teacher_augment
    assert [one.model for one in several.teachers] == ["gpt", writer]
    task = {"name": "open", "form": "text", "match": "judge", "rubric": "It is polite."}
    judged = load({"model": "gpt"}, task=task, evaluate={"judge": {"teacher": "transformers", "model": "judge"}})
    assert judged.evaluate.judge is not None
    assert judged.evaluate.judge.model == judge


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML"),
        ("- a\n", "a config is a mapping"),
        ("\x00", "not YAML"),
        ("name: a\ntrain: {epochs: 1}\nname: b\n", r"(?s)the key 'name' stands twice.*line 3, column 1"),
        ("a: &b {c: 1}\nd: {<<: *b, c: 2, e: 3, e: 4}\n", "the key 'e' stands twice"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(path))


def test_a_key_may_override_one_that_is_merged_in(tmp_path: Path) -> None:
    """YAML's `<<`, also from a mapping that has overridden something itself."""
    path = tmp_path / "c.yaml"
    shared = "{<<: {layers: 1, heads: 2}, layers: 3}"
    path.write_text(yaml.safe_dump(minimal()) + f"train: {{scratch: {{<<: {shared}, heads: 4}}}}\n")
    scratch = load_config(str(path)).train.scratch
    assert (scratch.layers, scratch.heads) == (3, 4)


def test_an_unknown_config_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"qickstart: no such file, and no shipped config .*did you mean 'quickstart'"):
        load_config("qickstart")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the first task of a pipeline with changed parameters and gives its message."""
    from llm2llm.components.shared.data.artifacts import LocalArtifact

    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    config = load_config("quickstart")

    def run(**changes: Any) -> str:
        artifact = LocalArtifact(str(tmp_path / "config.json"))
        compiled = settings_text(compiled_settings(config))
        with pytest.raises(SystemExit) as stop:
            configured(config.name, compiled, to_parameters(config) | changes, artifact)
        assert stop.value.code == 2
        assert not Path(artifact.path).exists()
        return capsys.readouterr().err

    return run


def test_run_time_parameters_are_checked_before_anything_is_spent(refused: Any) -> None:
    assert "max_iterations: 9 is more than the 3 that the pipeline was compiled with" in refused(loop_max_iterations=9)
    assert "learning_rate: Input should be greater than 0 (got -1.0)" in refused(student_learning_rate=-1.0)
    rest = read_settings_text(to_parameters(load_config("quickstart"))["settings"], "settings")

    def with_key(section: str, **keys: Any) -> dict[str, str]:
        return {"settings": settings_text({**rest, section: {**rest.get(section, {}), **keys}})}

    assert "compiled with 'out_of_fold'" in refused(**with_key("filter_errors", selection="wrong"))
    assert "set the parameter student_epochs instead" in refused(**with_key("train", epochs=3))
    assert "did you mean 'near_copy'" in refused(**with_key("dedupe", near_copie=0.9))


def test_a_distillation_needs_a_pretrained_student_and_its_teacher_is_a_model_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="student 'scratch' learns one from the seeds"):
        load_config("quickstart", ["train.distill.model=org/teacher"])
    (tmp_path / "teacher").mkdir()
    for folder, expected in (("./teacher", str(tmp_path / "teacher")), ("org/teacher", "org/teacher")):
        values = {
            "base": "snips",
            "name": "mine",
            "train": {"method": "lora", "distill": {"model": folder}},
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        loaded = load_config(str(tmp_path / "mine.yaml"), resolve=True)
        assert loaded.train.distill.model == expected
    refuse_local_data(loaded)
    local = load_config("snips", [f"train.distill.model={tmp_path / 'teacher'}"])
    with pytest.raises(UserError, match=r"train\.distill\.model \(.*teacher\): on this machine"):
        refuse_local_data(local)
