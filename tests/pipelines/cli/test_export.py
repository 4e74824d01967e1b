"""`llm2llm export`: to files that a plain trainer takes, and to the Hub."""

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from llm2llm.components.shared.tasks import Task
from tests.support.chat_model import make_chat_model
from tests.support.command_line import Run
from tests.support.hub_server import TOKEN, Server
from tests.support.made_run import make_run


def task(**changes: object) -> dict[str, object]:
    given = Task(name="sums", form="text", match="exact", instruction="Answer.").model_dump(mode="json")
    return {"task": {**given, **changes}}


def test_a_training_set_is_pushed_with_its_card(run: Run, tmp_path: Path, hub: Server) -> None:
    output = make_run(tmp_path / "out", config=task(name="sums | `<b>`"))
    code, out, err = run("export", output, "--push", "me/rows", "--lineage")
    assert code == 0, err
    assert "rows to https://huggingface.co/datasets/me/rows (parquet)" in out
    created = dict(hub.posted)["/api/repos/create"]
    assert (created["name"], created["type"], created["visibility"]) == ("rows", "dataset", "private")
    assert hub.files.keys() == {"data/train.parquet", "README.md"}
    table = pq.read_table(io.BytesIO(hub.files["data/train.parquet"]))
    written = sum(parent is not None for parent in table.column("parent_id").to_pylist())
    card = hub.files["README.md"].decode()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["configs"][0]["data_files"] == [{"split": "train", "path": "data/train.parquet"}]
    assert metadata["tags"] == ["llm2llm", "synthetic"]
    assert f"{table.num_rows} rows of a run" in card
    assert f"{table.num_rows - written} seeds, {written} that a teacher wrote" in card
    assert "`sums / '<b>'`" in card
    assert all(f"| `{column}` |" in card for column in table.column_names)
    # Pushed again in another format, the split has one file, and the other splits stay.
    assert run("export", output, "--push", "me/rows", "--rows", "test", "--format", "messages")[0] == 0
    assert run("export", output, "--push", "me/rows", "--format", "messages")[0] == 0
    assert hub.files.keys() == {"data/train.jsonl", "data/test.jsonl", "README.md"}
    first = json.loads(hub.files["data/train.jsonl"].splitlines()[0])
    assert first["messages"][0]["content"].startswith("Answer.\nQuestion: ")


def test_a_push_that_cannot_be_is_one_line(
    run: Run, tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make_run(tmp_path / "out")
    code, _, err = run("export", output)
    assert (code, err) == (2, "error: export: neither --to nor --push says where the rows go; set one\n")
    code, _, err = run("export", output, "--push", "rows")
    assert (code, err.startswith("error: --push rows: not OWNER/NAME")) == (2, True)
    hub.broken = True
    code, _, err = run("export", output, "--push", "me/rows")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: --push: not pushed to me/rows on the Hub: ")
    assert err.endswith("; check the name and HF_TOKEN\n")
    assert TOKEN not in err
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = run("export", output, "--push", "me/rows")
    assert (code, err.startswith("error: --push: HF_TOKEN is not set")) == (2, True)
    assert hub.files == {}


@pytest.mark.parametrize("export_format", ["messages", "prompt_completion"])
def test_what_is_exported_trains_in_plain_trl(run: Run, tmp_path: Path, export_format: str) -> None:
    """Loaded with `datasets` and handed to TRL's own trainer: every weight moves, and the loss is of the answer."""
    import torch
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    output = make_run(tmp_path / "out", config=task())
    assert run("export", output, "--to", "train.jsonl", "--format", export_format, "--lineage")[0] == 0
    model = make_chat_model(tmp_path / "model")
    rows = load_dataset("json", data_files="train.jsonl", split="train", cache_dir=str(tmp_path / "cache"))
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=2,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = SFTTrainer(model=str(model), train_dataset=rows, args=arguments)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(loss > 0 for loss in losses)
    moved = [name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(moved) == len(before)


def test_a_run_of_before_a_column_was_there_is_exported(run: Run, tmp_path: Path) -> None:
    output = make_run(tmp_path / "out", config=task(), in_cluster=True)
    assert run("export", output, "--to", "now.jsonl", "--lineage")[0] == 0
    for report in output.glob("report*"):  # which has the files' hashes
        shutil.rmtree(report)
    lacking = 0
    for file in output.rglob("next_training_set"):
        table = pq.read_table(file)
        assert "by_way_of" in table.column_names
        pq.write_table(table.drop_columns(["by_way_of", "also_right"]), file)
        lacking += 1
    code, _, err = run("export", output, "--to", "before.jsonl", "--lineage")
    assert (code, lacking > 0) == (0, True), err
    assert (tmp_path / "before.jsonl").read_bytes() == (tmp_path / "now.jsonl").read_bytes()
