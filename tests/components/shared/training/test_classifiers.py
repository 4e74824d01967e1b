"""Students that classify: trained, saved for plain transformers, asked, and nothing random among their weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.predict import predict, predict_share
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.classifier import losses
from llm2llm.components.shared.models.load import load_model, load_reader, load_tokenizer
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.encoding import encode_classified
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.row_weights import weighted
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.shared.training.training_log import TrainingLog
from llm2llm.components.train.train import train
from tests.support.tiny_models import ENCODERS, save_encoder, save_tiny

Weights = dict[str, torch.Tensor]


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def trained(
    folder: Path, rows: list[Example], task: Task, student: Path | str, settings: FineTuneSettings, **others: Any
) -> tuple[TrainingLog, Weights]:
    folder.mkdir()
    log = fine_tune(rows, task, str(student), settings, others.pop("random_seed", 0), folder, **others)
    return log, weights(folder)


def answers(student: Path, rows: list[Example], task: Task, **settings: Any) -> dict[str, Prediction]:
    asked = predict(student, {"seeds": rows}, 0, None, task, AnswerSettings(mode="score", **settings))
    return {one.example_id: one for one in asked}


def changed(settings: FineTuneSettings, **values: Any) -> FineTuneSettings:
    return FineTuneSettings.load({**settings.model_dump(), **values}, "train")


def learnt(log: TrainingLog) -> bool:
    """Whether the last steps' loss is well below the first ones'."""
    curve = [loss for _, loss in log.loss_curve]
    return sum(curve[-10:]) < 0.7 * sum(curve[:10])


def as_plain_transformers(student: Path, rows: list[Example], task: Task) -> None:
    """Whoever loads the student without llm2llm gets the same labels with the same probabilities."""
    classify = pipeline("text-classification", model=str(student), device="cpu")
    said = classify([row.question for row in rows], truncation=True, top_k=None)
    known = answers(student, rows, task)
    for row, scores in zip(rows, said, strict=True):
        assert sum(one["score"] for one in scores) == pytest.approx(1, abs=1e-5)
        assert {one["label"] for one in scores} == set(task.labels)
        assert scores[0]["label"] == known[row.id].parsed
        assert scores[0]["score"] == pytest.approx(known[row.id].confidence, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [*ENCODERS, "llama", "qwen3", "gpt2"])
def test_every_weight_is_trained_and_plain_transformers_loads_the_student(
    architecture: str,
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    quick_classifier: FineTuneSettings,
) -> None:
    save = save_encoder if architecture in ENCODERS else save_tiny
    base = save(architecture, load_tokenizer(tiny_student), tmp_path / "base")
    log, after = trained(tmp_path / "model", rows, colours, base, quick_classifier)
    assert learnt(log)
    before = weights(base)
    kept = before.keys() & after.keys()
    assert len(kept) > 10
    assert not [name for name in kept if torch.equal(before[name], after[name])]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "red", "1": "green", "2": "blue"}
    assert config["label2id"] == {"red": 0, "green": 1, "blue": 2}
    assert config["problem_type"] == "single_label_classification"
    as_plain_transformers(tmp_path / "model", rows, colours)


def test_answers_come_with_probabilities_and_hardness(
    taught_classifier: Path, rows: list[Example], colours: Task
) -> None:
    """Also where the mode of a run says `generate`, as of one whose predecessor in production classifies."""
    settings = AnswerSettings(mode="generate", samples=3, hardness=True, batch_size=7)
    asked = predict(taught_classifier, {"seeds": rows, "test": rows[:3]}, 0, None, colours, settings)
    assert len(asked) == 27
    model = AutoModelForSequenceClassification.from_pretrained(taught_classifier)
    tokenizer = AutoTokenizer.from_pretrained(taught_classifier)
    texts = {row.id: row for row in rows}
    for one in asked:
        row = texts[one.example_id]
        with torch.no_grad():
            shares = model(**tokenizer(row.question, return_tensors="pt")).logits[0].softmax(-1)
        right = colours.labels.index(row.answer)
        wrong = torch.tensor([float(place == right) for place in range(3)])
        assert one.parsed == colours.labels[int(shares.argmax())]
        assert (one.completion, one.truncated, one.samples) == (one.parsed, False, 1)
        assert one.confidence == pytest.approx(float(shares.max()), abs=1e-5)
        assert one.label_probability == pytest.approx(float(shares[right]), abs=1e-5)
        assert one.loss == pytest.approx(-float(shares[right].log()), abs=1e-4)
        assert one.el2n == pytest.approx(float((shares - wrong).norm()), abs=1e-5)
    parts = [
        one
        for shard in (0, 1)
        for one in predict_share(taught_classifier, {"seeds": rows}, 0, None, colours, settings, shard, 2)[0]
    ]
    known = {one.example_id: one.confidence for one in asked if one.split == "seeds"}
    assert {one.example_id: one.confidence for one in parts} == pytest.approx(known, abs=1e-5)
    assert len(parts) == 24


@pytest.mark.slow
def test_an_adapter_is_merged_and_its_head_is_trained(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_student: Path, quick_classifier: FineTuneSettings
) -> None:
    settings = changed(quick_classifier, method="lora", merge=True, learning_rate=5e-3)
    log, after = trained(tmp_path / "model", rows, colours, tiny_student, settings)
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert not [name for name in after if "lora" in name or "modules_to_save" in name]
    before = weights(tiny_student)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    torch.manual_seed(0)
    fresh = load_model(tiny_student, head="classifier", labels=colours.labels)
    assert not torch.equal(fresh.get_parameter("score.weight"), after["score.weight"])
    assert learnt(log)
    as_plain_transformers(tmp_path / "model", rows, colours)


@pytest.mark.slow
def test_the_seed_decides_the_head_and_the_rest(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_bert: Path, quick_classifier: FineTuneSettings
) -> None:
    settings = changed(quick_classifier, epochs=1)
    found = [
        trained(tmp_path / str(place), rows, colours, tiny_bert, settings, random_seed=seed)
        for place, seed in enumerate((0, 0, 1))
    ]
    (one, same, other) = (model for _, model in found)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
    assert found[0][0].loss_curve == found[1][0].loss_curve


@pytest.mark.slow
def test_a_step_is_the_same_in_several_passes_and_on_several_devices(
    tmp_path: Path, rows: list[Example], colours: Task, quick_classifier: FineTuneSettings
) -> None:
    """22 rows: the last batch is short, and is filled up where devices share it."""
    base = changed(quick_classifier, epochs=2, class_weights="balanced")
    curves = []
    for place, (batch, passes, gpus) in enumerate([(8, 1, 1), (2, 4, 1), (4, 2, 2)]):
        settings = changed(base, batch_size=batch, gradient_accumulation=passes, gpus=gpus)
        folder = tmp_path / str(place)
        folder.mkdir()
        log = train_on_devices(TrainingJob(rows[:22], colours, "scratch", settings, 0), folder)
        curves.append([loss for _, loss in log.loss_curve])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0] == pytest.approx(curves[2], abs=1e-4)


@pytest.mark.slow
def test_going_on_from_the_previous_student_keeps_its_head(
    tmp_path: Path,
    rows: list[Example],
    colours: Task,
    tiny_bert: Path,
    taught_classifier: Path,
    quick_classifier: FineTuneSettings,
) -> None:
    settings = changed(quick_classifier, start_from="previous", max_steps=2, learning_rate=1e-5)
    going_on = train(rows, colours, str(tiny_bert), taught_classifier, settings, 0, tmp_path / "on")
    afresh = train(rows, colours, str(tiny_bert), None, settings, 0, tmp_path / "afresh")
    assert going_on.loss_curve[0][1] < 0.3 * afresh.loss_curve[0][1]


@pytest.mark.slow
def test_a_training_that_was_cut_off_ends_with_the_same_weights(
    tmp_path: Path, rows: list[Example], colours: Task, tiny_bert: Path, quick_classifier: FineTuneSettings
) -> None:
    settings = changed(quick_classifier, epochs=2, checkpoint_steps=4, record_losses=True)
    _, whole = trained(tmp_path / "whole", rows, colours, tiny_bert, settings)
    kept = str(tmp_path / "kept")
    first, _ = trained(tmp_path / "first", rows, colours, tiny_bert, settings, checkpoints=kept)
    second, again = trained(tmp_path / "second", rows, colours, tiny_bert, settings, checkpoints=kept)
    assert (first.checkpoints, second.resumed_from_step) == (2, 8)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    one, other = ((tmp_path / name / "seed_losses.json").read_text() for name in ("whole", "second"))
    assert one == other
    base, early = json.loads(one)["base"], json.loads(one)["early"]
    assert base.keys() == early.keys() == {row.id for row in rows}


def test_rows_weigh_as_they_are_to(
    rows: list[Example], colours: Task, tiny_bert: Path, quick_classifier: FineTuneSettings
) -> None:
    tokenizer = load_reader(tiny_bert)
    few = [row for row in rows if row.answer == "red"][:1] + [row for row in rows if row.answer == "blue"][:3]
    settings = changed(quick_classifier, class_weights="balanced")
    encoding = encode_classified(tokenizer, colours, few, [], 64, settings)
    assert [row.labels for row in encoding.rows] == [[0], [2], [2], [2]]
    assert [row.weight for row in encoding.rows] == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    voted = dataclasses.replace(few[0], votes=["red", "green"], vote_shares=[0.75, 0.25])
    soft = encode_classified(tokenizer, colours, [voted], [], 64, changed(quick_classifier, soft_labels=True))
    assert [(row.labels, row.weight) for row in soft.rows] == [([0], 0.75), ([1], 0.25)]
    assert soft.soft == 1
    dynamic = encode_classified(
        tokenizer, colours, few, [], 64, changed(quick_classifier, row_weights="dimp"), {few[1].id: 0.5}
    )
    assert [(row.weight, row.floor) for row in dynamic.rows] == [(1, 0), (0.5, 1 / 3), (1, 0), (1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["imp", "dimp"])
def test_checkers_that_classify_weigh_a_wrong_label_little(
    kind: str,
    tmp_path: Path,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    tiny_bert: Path,
    quick_classifier: FineTuneSettings,
) -> None:
    generated = [
        dataclasses.replace(row, parent_id=rows[0].id, iteration=1, strategy="llm2llm", id=f"g{place}")
        for place, row in enumerate([rows[3], other_rows[4]])
    ]
    settings = changed(quick_classifier, row_weights=kind)
    job = TrainingJob([*rows, *generated], colours, str(tiny_bert), settings, 0)
    found = weighted(job, str(tiny_bert), train_on_devices).weights
    assert found is not None
    assert found["g1"] < 0.2 * found["g0"]
    log, _ = trained(
        tmp_path / "model", job.training_set, colours, tiny_bert, changed(settings, epochs=2), weights=found
    )
    assert log.rows == 26


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_long_texts(
    too_long: str,
    rows: list[Example],
    colours: Task,
    tiny_bert: Path,
    quick_classifier: FineTuneSettings,
) -> None:
    tokenizer = load_reader(tiny_bert)
    sizes = sorted(len(tokenizer(row.question)["input_ids"]) for row in rows)
    limit = sizes[5]
    tokenizer.model_max_length = limit
    expected = sum(size <= limit for size in sizes)
    settings = changed(quick_classifier, too_long=too_long)
    found = encode_classified(tokenizer, colours, rows, [], limit, settings)
    kept = expected if too_long == "drop" else 24
    assert (len(found.rows), found.left_out) == (kept, 24 - kept)
    assert found.truncated == (0 if too_long == "drop" else 24 - expected)
    assert max(len(row.tokens) for row in found.rows) == limit
    assert all(row.tokens[-1] == tokenizer.sep_token_id for row in found.rows)
    with pytest.raises(UserError, match=f"{24 - expected} of 24 rows have more than {limit} tokens"):
        encode_classified(tokenizer, colours, rows, [], limit, changed(settings, too_long="refuse"))


def test_a_text_that_is_too_long_is_cut_where_the_training_cut_it(
    taught_classifier: Path, rows: list[Example], colours: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [dataclasses.replace(row, question=row.question + " and so on" * 60) for row in rows[:2]]
    as_plain_transformers(taught_classifier, long, colours)
    assert "2 texts have more than 64 tokens, of which the student reads the first" in capsys.readouterr().out


def test_a_special_tokens_name_is_text_to_whoever_loads_the_student(
    taught_classifier: Path, rows: list[Example], colours: Task
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(taught_classifier)
    ids = tokenizer("a </s> red <pad> ball")["input_ids"]
    assert ids.count(tokenizer.sep_token_id) == 1
    assert tokenizer.pad_token_id not in ids
    odd = [dataclasses.replace(row, question=f"<s> {row.question} </s> <pad>") for row in rows]
    as_plain_transformers(taught_classifier, odd, colours)


def test_labels_in_another_order_are_the_same_labels(
    taught_classifier: Path, rows: list[Example], colours: Task
) -> None:
    turned = colours.model_copy(update={"labels": colours.labels[::-1]})
    before, after = (answers(taught_classifier, rows, task) for task in (colours, turned))
    assert {row: one.parsed for row, one in before.items()} == {row: one.parsed for row, one in after.items()}
    other = colours.model_copy(update={"labels": ["red", "green", "black"]})
    with pytest.raises(UserError, match=r"a classifier of the labels \['red', 'green', 'blue'\], and task 'colours'"):
        answers(taught_classifier, [], other)


def test_vllm_is_refused_by_name(taught_classifier: Path, rows: list[Example], colours: Task) -> None:
    with pytest.raises(UserError, match=r"evaluate\.backend: 'vllm' runs language models.*set backend: transformers"):
        answers(taught_classifier, rows, colours, backend="vllm")


def lost(part: str) -> Any:
    return lambda whole: {name: weight for name, weight in whole.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lost("layer.0."), r"16 missing \(bert\.encoder\.layer\.0"),
        (lost("word_embeddings"), r"1 missing \(bert\.embeddings\.word_embeddings"),
        (lambda whole: {f"_orig_mod.{name}": weight for name, weight in whole.items()}, r"torch\.compile"),
        (lambda whole: {**whole, "v_head.weight": torch.zeros(2)}, r"1 not of its architecture \(v_head\.weight\)"),
        (
            lambda whole: {
                name: weight[:, 1:].contiguous() if "layer.1.output.dense.weight" in name else weight
                for name, weight in whole.items()
            },
            r"1 of another shape \(bert\.encoder\.layer\.1\.output",
        ),
    ],
)
def test_only_the_head_may_be_new(change: Any, message: str, tmp_path: Path, tiny_bert: Path, colours: Task) -> None:
    folder = copied(tiny_bert, tmp_path / "base", change)
    with pytest.raises(UserError, match=f"its weights are not those that its config.json describes: .*{message}"):
        load_model(folder, head="classifier", labels=colours.labels)
    load_model(tiny_bert, head="classifier", labels=colours.labels)


@pytest.mark.parametrize("part", ["classifier.weight", "pooler.dense", "layer.1."])
def test_a_delivered_student_without_all_its_weights_is_refused(
    part: str, tmp_path: Path, taught_classifier: Path, rows: list[Example], colours: Task
) -> None:
    folder = copied(taught_classifier, tmp_path / "student", lost(part))
    for load in (
        lambda: load_model(folder, head="classifier"),
        lambda: load_model(folder, head="classifier", labels=colours.labels),
        lambda: answers(folder, rows, colours),
    ):
        with pytest.raises(UserError, match=rf"\d missing \(\S*{part.rstrip('.')}"):
            load()


def copied(source: Path, folder: Path, change: Any) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(change(weights(source)), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_classifier_of_other_labels_is_no_base(taught_classifier: Path, colours: Task) -> None:
    with pytest.raises(UserError, match=r"of the labels \['red', 'green', 'blue'\], and the task has \['a', 'b'\]"):
        load_model(taught_classifier, head="classifier", labels=["a", "b"])
    with pytest.raises(UserError, match=r"not those that its config\.json describes"):
        load_model(taught_classifier)  # as a language model


def test_losses_are_cross_entropies(taught_classifier: Path, rows: list[Example], colours: Task) -> None:
    model, tokenizer = load_model(taught_classifier, head="classifier"), load_reader(taught_classifier)
    known = answers(taught_classifier, rows, colours)
    for batch in (1, 24):
        assert losses(model, tokenizer, rows, colours, batch) == pytest.approx(
            [known[row.id].loss for row in rows], abs=1e-5
        )
