"""What generated rows weigh: planted wrong labels get less, and the loss is that of the paper."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.likelihood import log_likelihoods
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.training.checkpoints import checkpoints_uri
from llm2llm.components.shared.training.encoding import encode_rows
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob, read_job, write_job
from llm2llm.components.shared.training.row_weights import weighted
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices
from llm2llm.components.shared.training.training_log import TrainingLog
from llm2llm.components.train.train import train


def never(job: TrainingJob, output: Path) -> TrainingLog:
    raise AssertionError("nothing is to be trained")


@pytest.fixture
def generated(example: Callable[..., Example], rows: list[Example]) -> list[Example]:
    """Twelve rows as a teacher writes them, of which the first three have a wrong label."""
    following = {"red": "green", "green": "blue", "blue": "red"}
    made = []
    for number, shape in enumerate(("one {} day", "{} sky", "it was {}", "that {} car")):
        for colour in ("red", "green", "blue"):
            answer = following[colour] if number == 0 else colour
            made.append(example(shape.format(colour), answer, parent_id=rows[0].id, iteration=1))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("how", ["imp", "dimp"])
def test_planted_wrong_labels_weigh_less(
    how: str,
    quick: FineTuneSettings,
    rows: list[Example],
    generated: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = quick.model_copy(update={"row_weights": how})
    train([*rows, *generated], colours, str(tiny_student), None, settings, 0, tmp_path / "model", iteration=1)
    weights = json.loads((tmp_path / "model" / "training.json").read_text())["row_weights"]
    assert weights.keys() == {row.id for row in generated}
    wrong, right = [weights[row.id] for row in generated[:3]], [weights[row.id] for row in generated[3:]]
    assert sum(wrong) / 3 < 0.5 * sum(right) / 9
    assert all(0 <= weight <= len(colours.labels) for weight in weights.values())
    said = capsys.readouterr().out
    assert f"train: a checker of generated rows, on {len(rows)} rows" in said
    assert (f"train: a checker of generated rows, on {len(generated)} rows" in said) == (how == "imp")
    assert f"12 generated rows weigh {min(weights.values()):.3g} to {max(weights.values()):.3g}" in said


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_a_dimp_step_is_what_the_paper_says(
    packing: bool,
    quick: FineTuneSettings,
    rows: list[Example],
    generated: list[Example],
    colours: Task,
    taught_student: Path,
    tmp_path: Path,
) -> None:
    """Of one batch: the sum of P(y|x) / max(P_student(y|x), 1/3) times the log-likelihood, over the tokens."""
    quality = {row.id: (place + 1) / 20 for place, row in enumerate(generated)}
    settings = quick.model_copy(update={"row_weights": "dimp", "max_steps": 1, "batch_size": 36, "packing": packing})
    log = fine_tune([*rows, *generated], colours, str(taught_student), settings, 0, tmp_path, weights=quality)
    tokenizer, model = load_tokenizer(taught_student), load_model(taught_student)
    encoded = [encode(tokenizer, colours, row) for row in [*rows, *generated]]
    found = log_likelihoods(model, tokenizer, encoded, 8)
    own = torch.tensor(found, dtype=torch.float64)
    weight = torch.tensor([quality.get(row.id, 0.0) for row in [*rows, *generated]], dtype=torch.float64)
    weight = torch.where(weight > 0, weight / own.exp().clamp_min(1 / 3), 1.0)
    expected = float((-own * weight).sum()) / sum(len(row.completion) for row in encoded)
    assert log.loss_curve[0][1] == pytest.approx(expected, rel=1e-4)
    plain = float(-own.sum()) / sum(len(row.completion) for row in encoded)
    assert expected != pytest.approx(plain, rel=0.01)


def test_confidence_weighs_rows_without_a_checker(
    quick: FineTuneSettings, rows: list[Example], generated: list[Example], colours: Task, tiny_student: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    sure = [dataclasses.replace(generated[0], confidence=0.25), *generated[1:]]
    settings = quick.model_copy(update={"row_weights": "confidence"})
    job = TrainingJob([*rows, *sure], colours, str(tiny_student), settings, 0)
    found = weighted(job, str(tiny_student), never)
    assert found.weights == {row.id: 0.25 if row is sure[0] else 1.0 for row in sure}
    tokens = encode_rows(load_tokenizer(tiny_student), colours, found.training_set, [], 64, settings, found.weights)
    assert [row.weight for row in tokens.rows] == [1.0] * len(rows) + [0.25] + [1.0] * 11
    assert {row.floor for row in tokens.rows} == {0.0}
    write_job(str(tmp_path / "job"), found)
    assert read_job(tmp_path / "job").weights == found.weights
    assert checkpoints_uri(found) != checkpoints_uri(job)


def test_what_cannot_be_weighed(
    quick: FineTuneSettings, rows: list[Example], generated: list[Example], colours: Task
) -> None:
    seeds_alone = TrainingJob(rows, colours, "scratch", quick.model_copy(update={"row_weights": "imp"}), 0)
    assert weighted(seeds_alone, "scratch", never) is seeds_alone
    with pytest.raises(UserError, match=r"train.row_weights: 'imp' trains a checker on the seeds, and .* has none"):
        weighted(dataclasses.replace(seeds_alone, training_set=generated), "scratch", never)
    with pytest.raises(UserError, match=r"train.row_weights: 'imp' asks for the probabilities of labels or choices"):
        weighted(dataclasses.replace(seeds_alone, task=TASKS["gsm8k"]), "scratch", never)


@pytest.mark.slow
def test_a_checker_starts_from_the_base_whatever_the_student_starts_from(
    quick: FineTuneSettings,
    rows: list[Example],
    generated: list[Example],
    colours: Task,
    tiny_student: Path,
) -> None:
    asked: list[TrainingJob] = []

    def noted(job: TrainingJob, output: Path) -> TrainingLog:
        asked.append(job)
        return train_on_devices(job, output)

    settings = quick.model_copy(update={"row_weights": "imp", "start_from": "previous", "max_steps": 1})
    job = TrainingJob([*rows, *generated], colours, "the/student/before", settings, 0, iteration=2)
    assert weighted(job, str(tiny_student), noted).student == "the/student/before"
    assert [one.student for one in asked] == [str(tiny_student)] * 2
    assert [one.training_set for one in asked] == [rows, generated]
