"""A preference step: TRL's DPO on pairs of a right completion and a wrong one, with TRL's `sft` term beside it.

    loss = -log sigmoid(beta * ((log p/p0)(chosen) - (log p/p0)(rejected))) + nll * mean(-log p(chosen's tokens))

p0 is the student before the step (Rafailov et al. 2023, arXiv:2305.18290). The second term keeps the right completion
likely, which DPO alone may not (Pang et al. 2024, arXiv:2404.19733).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.load import load_config, load_tokenizer
from llm2llm.components.shared.models.student_folder import carry_over
from llm2llm.components.shared.training.devices import share, this_process
from llm2llm.components.shared.training.fine_tune import (
    ShowProgress,
    common_arguments,
    load_for_training,
    longest_row,
)
from llm2llm.components.shared.training.job_folder import Pair, TrainingJob
from llm2llm.components.shared.training.methods import prepare, recomputes
from llm2llm.components.shared.training.second_step import CheckedTrainer, run_step, save_step
from llm2llm.components.shared.training.training_log import TrainingLog


class PreferenceTrainer(CheckedTrainer, DPOTrainer):
    """TRL's trainer on pairs in token ids: encoded as `fine_tune` encodes rows, not as TRL would encode texts."""

    hint = "the preference step; lower train.preference.learning_rate"

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The log-likelihoods under the student before the step, kept in memory: TRL's file is in a temporary folder of
        the first process, where others do not find it."""
        found: list[list[float]] = [[], []]
        for start in range(0, len(dataset), batch_size):
            batch = self.data_collator([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
            batch = {key: value.to(self.args.device) for key, value in batch.items()}
            for side, values in zip(found, self.compute_ref_log_probs(self.model, batch), strict=True):
                side += values.tolist()
        return dataset.add_column("ref_chosen_logps", found[0]).add_column("ref_rejected_logps", found[1])


def fitting(pairs: list[Pair], limit: int) -> list[Pair]:
    """The pairs of which both sides have at most `limit` tokens."""
    return [one for one in pairs if len(one.prompt) + max(len(one.chosen), len(one.rejected)) <= limit]


def prefer(job: TrainingJob, output: Path) -> TrainingLog:
    """Trains a student on a job's pairs and saves it to the empty folder `output`, with its log brought up to date.

    Args:
        job: Its student is a folder that `fine_tune` saved; its method trains the same weights here. Pairs that do not
            fit into `train.max_length` or the student's context are left out.
        output: An existing empty folder.

    In one of several processes it trains with the others; the first saves.

    Raises:
        UserError: No pair fits, a student that cannot be loaded, a loss that is not a number.
    """
    assert job.pairs is not None, "a preference job has pairs"
    settings, wanted = job.settings, job.settings.preference
    here = this_process()
    part = share(settings, here.num_processes, job.rows_in_one_pass)
    set_seed(job.random_seed)
    tokenizer = load_tokenizer(job.student, settings.trust_remote_code)
    pairs = fitting(job.pairs, longest_row(load_config(job.student, settings.trust_remote_code), settings))
    if not pairs:
        raise UserError(
            f"train: none of {len(job.pairs)} pairs has at most train.max_length {settings.max_length} tokens; raise it"
        )
    # What was merged is a whole model again, and an adapter that is saved alone is trained further.
    model = load_for_training(job.student, settings)
    model.config.use_cache = False
    recompute = recomputes(model, settings, job.recompute)
    model, adapter = prepare(model, settings, job.random_seed, job.iteration, recompute)
    with TemporaryDirectory(prefix="llm2llm-preference-") as folder:
        arguments = DPOConfig(
            **common_arguments(settings, part, job.random_seed, folder, recompute),
            max_length=None,
            loss_type=["sigmoid", "sft"] if wanted.nll else ["sigmoid"],
            loss_weights=[1.0, wanted.nll] if wanted.nll else [1.0],
            beta=wanted.beta,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=part.rows,
            num_train_epochs=wanted.epochs,
            learning_rate=settings.learning_rate * wanted.learning_rate,
            report_to="none",
        )
        rows = [{"prompt_ids": one.prompt, "chosen_ids": one.chosen, "rejected_ids": one.rejected} for one in pairs]
        trainer = PreferenceTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[ShowProgress()],
        )
        log = run_step(
            trainer,
            part,
            recompute,
            rows=len(pairs),
            left_out=len(job.pairs) - len(pairs),
            sequences=2 * len(pairs),
            lengths=[2 * len(one.prompt) + len(one.chosen) + len(one.rejected) for one in pairs],
        )
    if here.is_main_process:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if adapter is None and settings.adapts:
            trained.delete_adapter("ref")  # TRL's copy of the adapter as it was
        save_step(trained, tokenizer, job, output)
        curve = {"preference_pairs": log.rows, "preference_loss_curve": log.loss_curve}
        carry_over(Path(job.student), output, log.steps, **curve)
    return log
