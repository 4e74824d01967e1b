"""Files of this machine are refused before anything is sent."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.pipelines.config import load_config, to_parameters
from llm2llm.pipelines.kubeflow.local_data import refuse_local_data
from tests.support.cluster import Run
from tests.support.kfp_server import KfpServer


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.seeds", "/home/me/seeds.jsonl"),
        ("data.seeds", "./seeds"),
        ("data.validation", "../validation.csv"),
        ("data.test", "test.jsonl"),
        ("data.pool", "~/pool"),
        ("student", "/srv/models/student"),
        ("student", "./student"),
        ("teacher_augment.grammar", "grammar.yaml"),
        ("teacher_augment.ledger", "/tmp/ledger"),
        ("train.checkpoint_uri", "./checkpoints"),
        ("promote.registry", "/srv/registry"),
    ],
)
@pytest.mark.parametrize("command", ["submit", "schedule set"])
def test_a_path_is_refused_by_name_and_nothing_is_sent(
    command: str, key: str, value: str, kfp_server: KfpServer, run: Run
) -> None:
    cron = ("--cron", "0 2 * * 0") if command == "schedule set" else ()
    code, out, err = run(*command.split(), "quickstart", *cron, "--host", kfp_server.url, "--set", f"{key}={value}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {key} ({value}): on this machine, and no pod of a cluster sees it; ")
    assert "s3://bucket/" in err
    assert len(err.splitlines()) == 1
    assert kfp_server.requests == []


def test_compile_warns_of_a_path_since_the_form_can_name_another(run: Run, tmp_path: Path) -> None:
    written = tmp_path / "pipeline.yaml"
    code, out, err = run("compile", "quickstart", "-o", str(written), "--set", "data.seeds=seeds.csv")
    assert (code, out.startswith("wrote "), written.is_file()) == (0, True, True)
    assert err.startswith("warning: data.seeds (seeds.csv): on this machine, and no pod of a cluster sees it; ")


def test_a_name_that_is_a_folder_beside_the_config_is_one(kfp_server: KfpServer, run: Run, tmp_path: Path) -> None:
    config = yaml.safe_load(Path("pipelines/configs/quickstart.yaml").read_text())
    config["student"] = "my-student"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(config))
    arguments = ("submit", str(file), "--host", kfp_server.url)
    assert run(*arguments)[0] == 0  # a name on the hub
    (tmp_path / "my-student").mkdir()
    assert "student (my-student): on this machine" in run(*arguments)[2]


def test_several_are_named_together_and_a_parameter_is_looked_at_too(run: Run) -> None:
    two = ("--set", "data.seeds=/a.jsonl", "--set", "data.test=/b.jsonl")
    assert "data.seeds (/a.jsonl), data.test (/b.jsonl): " in run("submit", "quickstart", "--dry-run", *two)[2]
    seeds = next(name for name in to_parameters(load_config("quickstart")) if name.endswith("seeds"))
    code, _, err = run("submit", "quickstart", "--dry-run", "--parameter", f"{seeds}=/mine/rows.jsonl")
    assert code == 2
    assert "data.seeds (/mine/rows.jsonl): " in err


@pytest.mark.parametrize(
    "value",
    ["s3://bucket/seeds.jsonl", "minio://b/seeds.jsonl", "builtin:support_tickets/seeds.jsonl", "snips", "org/set-v1.5",
     "org/set:config#train"],
)  # fmt: skip
def test_what_a_pod_can_read_is_not_refused(value: str, run: Run) -> None:
    assert run("submit", "quickstart", "--dry-run", "--set", f"data.seeds={value}")[0] == 0


def test_a_model_on_the_mounted_cache_is_a_pods_own_and_data_are_not(run: Run) -> None:
    on_gke = ("submit", "quickstart", "--dry-run", "--set", "placement.profile=gke", "--set", "train.method=full")
    assert run(*on_gke, "--set", "student=/models/mine")[0] == 0
    err = run(*on_gke, "--set", "student=/models/../etc/mine")[2]
    assert "student (/models/../etc/mine): " in err
    assert "the volume that stages have at /models" in err
    assert run(*on_gke, "--set", "student=/modelsX/mine")[0] == 2
    # The stages that read data do not mount it.
    assert "data.seeds (/models/seeds.jsonl): " in run(*on_gke, "--set", "data.seeds=/models/seeds.jsonl")[2]


def test_models_that_a_stage_loads_are_looked_at_and_names_at_an_endpoint_are_not(run: Run) -> None:
    dry = ("submit", "quickstart", "--dry-run", "--set")
    teacher = "teacher_augment={teacher: %s, model: /srv/big, url: 'https://x.example/v1', strategy: llm2llm}"
    code, _, err = run(*dry, teacher.replace(" url: 'https://x.example/v1',", "") % "transformers")
    assert code == 2
    assert "teacher_augment.model (/srv/big): on this machine" in err
    assert run(*dry, teacher % "openai")[0] == 0
    semantic = "dedupe={semantic: {model: ./embedder}}"
    assert "dedupe.semantic.model (./embedder): on this machine" in run(*dry, semantic)[2]
    coverage = "dedupe={coverage: {keep: 9, model: ./embedder}}"
    assert "dedupe.coverage.model (./embedder): on this machine" in run(*dry, coverage)[2]


@given(st.from_regex(r"[A-Za-z0-9]+(/[A-Za-z0-9][A-Za-z0-9._-]*)?", fullmatch=True))
def test_names_on_the_hub_are_taken_for_names_unless_they_end_like_a_file(name: str) -> None:
    if not name.lower().endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".txt", ".gz", ".zip",
                                  ".xlsx", ".safetensors")):  # fmt: skip
        config = load_config("quickstart").model_copy(update={"student": name})
        refuse_local_data(config)
