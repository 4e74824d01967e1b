"""What a config's sections mean for its placement: tokens and caches go where models are loaded, volumes are large
enough."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.prepare.settings import DataSettings
from llm2llm.components.shared.ingest.sources import is_file_source
from llm2llm.components.shared.training.settings import ScratchSettings
from llm2llm.pipelines.checks.student_memory import scratch_shape
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.placement import shipped_profiles
from llm2llm.pipelines.config.placement_parts import GRADING
from llm2llm.pipelines.config.placement_settings import PlacementSettings
from llm2llm.pipelines.config.placement_values import quantity_bytes
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement, reads_hub
from llm2llm.pipelines.kubeflow.student_disk import GIB, named_parameters, scratch_parameters, training_disk

ALWAYS = ["tune", "train", "predict", "evaluate", "out_of_fold", "controls", "promote"]


def fitted(*overrides: str, config: str = "quickstart", profile: str = "gke") -> PlacementSettings:
    return fit_placement(load_config(config, [f"placement.profile={profile}", *overrides]))


def token(placement: PlacementSettings) -> list[str]:
    (secret,) = (one for one in placement.secrets if one.env == "HF_TOKEN")
    assert isinstance(secret.stages, list)
    return secret.stages


@pytest.mark.parametrize(
    ("overrides", "models"),
    [
        ((), ALWAYS),
        (("evaluate.shards=4",), [one for one in ALWAYS if one != "evaluate"]),
        (("teacher_augment={teacher: transformers, model: Qwen/Qwen2.5-7B}",), [*ALWAYS, "teacher_augment"]),
        (("teacher_augment={teacher: openai, model: m}",), ALWAYS),
        (("dedupe.semantic={model: /models/embeddings}",), [*ALWAYS, "dedupe"]),
        (("dedupe.leak={semantic: {model: /models/embeddings}}",), [*ALWAYS, "dedupe"]),
        (("dedupe.coverage={keep: 9, model: /models/embeddings}",), [*ALWAYS, "dedupe"]),
        (("dedupe.coverage={keep: 9}",), ALWAYS),
        (("placement.model_stages=[train]",), ["train"]),
    ],
)
def test_the_hubs_token_and_the_cache_go_to_the_stages_that_load_models(
    overrides: tuple[str, ...], models: list[str]
) -> None:
    placement = fitted(*overrides)
    assert placement.model_stages == models
    assert token(placement) == models, "the quickstart's data are shipped"


def test_stages_that_read_data_from_the_hub_get_its_token_and_not_the_cache() -> None:
    placement = fitted(config="snips")
    assert token(placement) == [*ALWAYS, "configure", "prepare"]
    assert placement.model_stages == ALWAYS


@given(
    st.sampled_from(["", "builtin:", "s3://b/", "minio://b/", "/", "./", "../", "~/", "org/", "a.b/"]),
    st.sampled_from(["rows", "gsm8k:main#train", "rows@1"]),
    st.sampled_from(["", ".jsonl", ".ndjson", ".JSON", ".csv", ".parquet", ".txt", ".jsonl.gz"]),
)
def test_what_is_on_the_hub_is_what_prepare_takes_for_it(start: str, middle: str, end: str) -> None:
    source = start + middle + end
    config = load_config("quickstart").model_copy(update={"data": DataSettings(seeds=source)})
    assert reads_hub(config) != is_file_source(source)


def test_fitting_imports_nothing_that_compiling_does_without() -> None:
    code = (
        "import sys; from llm2llm.pipelines.config import load_config; "
        "from llm2llm.pipelines.kubeflow.fit_placement import fit_placement; "
        "fit_placement(load_config('snips', ['placement.profile=gke'])); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "transformers", "pyarrow", "numpy", "datasets", "kfp"}.isdisjoint(modules)


def test_the_judges_key_goes_to_the_stages_that_grade() -> None:
    judge = "evaluate={judge: {model: m, api_key_env: OPENAI_API_KEY}}"
    task = "task={name: open, form: text, match: judge, rubric: same meaning}"
    rest = ("data={seeds: s3://bucket/rows.jsonl}", "prepare={}", "filter_errors={}", "teacher_augment={strategy: eda}")
    (key,) = (one for one in fitted(task, judge, *rest).secrets if one.env == "OPENAI_API_KEY")
    assert set(key.stages) == {"teacher_augment", *GRADING}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-1.5B", 1.5e9), ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6), ("meta-llama/Llama-3.1-8B", 8e9),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9), ("google/gemma-3-270m-it", 270e6), ("google/gemma-2-2b-it", 2e9),
        ("s3://bucket/3B/students/qwen-0.5b/", 0.5e9), ("EleutherAI/pythia-160m", 160e6), ("Qwen2.5_7B", 7e9),
        ("gpt2", 0), ("microsoft/phi-2", 0), ("google/gemma-3n-E2B", 0), ("/models/mine", 0), ("bert-4bit", 0),
        ("org/3B/mine", 0),
    ],
)  # fmt: skip
def test_a_models_name_tells_its_size_or_nothing(name: str, parameters: float) -> None:
    assert named_parameters(name) == parameters


@given(st.integers(260, 50_000), st.integers(1, 16), st.integers(1, 24))
def test_a_student_from_scratch_has_the_size_that_preflight_counts(vocabulary: int, width: int, layers: int) -> None:
    settings = ScratchSettings(vocabulary=vocabulary, hidden_size=16 * width, layers=layers)
    assert scratch_parameters(settings) == scratch_shape(settings).parameters


def gib(size: str) -> float:
    return quantity_bytes(size) / GIB


def sizes(placement: PlacementSettings, volume: str) -> dict[str, float]:
    return {name: gib(getattr(wanted, volume)) for name, wanted in placement.stages.items()}


@pytest.mark.parametrize("profile", list(shipped_profiles()))
def test_every_volume_has_a_size_and_none_is_below_the_floor(profile: str) -> None:
    placement = fitted(profile=profile)
    for volume in ("scratch", "downloads"):
        assert set(sizes(placement, volume).values()) == {10.0}, "the quickstart's student is tiny"


def test_volumes_grow_with_the_student_where_it_is_loaded_and_what_is_set_stands() -> None:
    before = None
    for student in ("a/b-135M", "a/b-1B", "a/b-8B", "a/b-70B"):
        placement = fitted(f"student={student}", "train.scratch={}", "placement.stages.evaluate.scratch=33Gi",
                           "promote.registry=s3://bucket/r", config="snips")  # fmt: skip
        now = sizes(placement, "scratch") | {f"{k} downloads": v for k, v in sizes(placement, "downloads").items()}
        assert now.pop("evaluate") == 33
        grown = {name for name in now if before and now[name] > before[name]}
        if before and student != "a/b-1B":
            assert grown >= {"train", "out_of_fold", "promote", "predict", "train downloads", "promote downloads"}
        assert all(now[name] == 10 for name in ("prepare", "report", "dedupe", "teacher_augment", "prepare downloads"))
        before = now
    need = training_disk(70 * 10**9, load_config("snips").train)
    assert before is not None
    assert before["train"] > need.scratch
    assert before["train downloads"] > need.downloads


def test_a_student_of_unknown_size_gets_room() -> None:
    placement = fitted("student=microsoft/phi-2", config="snips")
    assert placement.stages["train"].scratch == placement.stages["train"].downloads == "100Gi"
    assert placement.stages["report"].scratch == "10Gi"


@pytest.mark.parametrize(
    ("teacher", "scratch"),
    [
        ("{teacher: transformers, model: a/b-7B}", 70),
        ("{teacher: transformers, model: a/b}", 100),
        ("{strategy: eda}", 10),
    ],
)
def test_a_teacher_in_the_pod_has_room_for_its_weights(teacher: str, scratch: int) -> None:
    placement = fitted(f"teacher_augment={teacher}")
    assert gib(placement.stages["teacher_augment"].scratch) == scratch


def test_adapters_and_runs_without_checkpoints_need_less() -> None:
    def need(**values: Any) -> float:
        settings = load_config(
            "snips", [f"train.{key}={value}" for key, value in {"method": "full", **values}.items()]
        ).train
        return training_disk(10**9, settings).scratch

    assert need(method="lora") < need() / 3
    assert need(checkpoint_minutes=0) < need() / 3
    assert need(bf16_weights="true") < need() * 0.6
    assert need(checkpoint_minutes=0, checkpoint_steps=5) == need()
