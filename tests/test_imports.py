"""The command line and the faces stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

from llm2llm.components.stages import STAGES

HEAVY = {"torch", "transformers", "trl", "datasets", "peft", "vllm"}
# What a base install has not: compiling and submitting must do without.
EXTRAS = HEAVY | {
    "pyarrow",
    "numpy",
    "scipy",
    "rensa",
    "rapidfuzz",
    "jinja2",
    "openai",
    "boto3",
    "safetensors",
    "tokenizers",
    "accelerate",
}


def imported(*arguments: str) -> set[str]:
    """The top-level modules that a Python process imports."""
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    return {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in run.stderr.splitlines()
        if line.startswith("import time:")
    }


def test_the_command_line_imports_nothing_heavy() -> None:
    assert not imported("-c", "import llm2llm.pipelines") & HEAVY
    assert not imported("-m", "llm2llm.pipelines", "--help") & (EXTRAS | {"kfp"})
    assert not imported("-m", "llm2llm.pipelines", "stage", "--help") & (EXTRAS | {"kfp"})


def test_compiling_needs_the_base_install_only(tmp_path: Path) -> None:
    assert not imported("-m", "llm2llm.pipelines", "compile", "snips", "--output", str(tmp_path / "p.yaml")) & EXTRAS


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "configure"])
def test_the_faces_import_nothing_heavy(stage: str) -> None:
    assert not imported("-c", f"import llm2llm.components.{stage}.component") & EXTRAS


def test_pure_rooms_import_nothing_heavy() -> None:
    modules = [
        "evaluate.evaluate",
        "shared.base.hashing",
        "shared.base.settings",
        "shared.base.settings_text",
        "shared.base.statistics",
        "shared.data.jsonl",
        "shared.data.schemas",
        "shared.models.label_scoring",
        "shared.inference.questions",
        "shared.inference.settings",
        "shared.inference.vllm_answers",
        "shared.ingest.grade_file",
        "shared.ingest.sources",
        "shared.judge.judge",
        "shared.judge.settings",
        "shared.leakage.settings",
        "shared.lineage.manifest",
        "shared.lineage.records",
        "shared.llm.backends.in_process",
        "shared.llm.backends.openai_batch",
        "shared.llm.backends.transformers",
        "shared.llm.backends.vllm",
        "shared.llm.budget",
        "shared.llm.client",
        "shared.llm.ledger",
        "shared.llm.settings",
        "shared.registry",
        "shared.registry.overview",
        "shared.registry.settings",
        "shared.storage",
        "shared.stage",
        "shared.tasks",
        "shared.training.settings",
        "shared.models.student_folder",
    ]
    modules += [f"{stage}.settings" for stage in STAGES if stage != "configure"]
    code = "; ".join(f"import llm2llm.components.{module}" for module in modules)
    assert not imported("-c", code) & (EXTRAS | {"kfp"})


def test_the_table_of_stages_imports_nothing_of_ours() -> None:
    code = "import sys, llm2llm.components.stages; print(*[m for m in sys.modules if m.startswith('llm2llm.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"llm2llm.components", "llm2llm.components.stages"}
