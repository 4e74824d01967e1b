"""What can be set about fine-tuning and answering; `train`, `evaluate` and `out_of_fold` share these."""

from typing import Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.settings import Settings

SCRATCH = "scratch"
"""The name of the student that is built from `ScratchSettings` instead of loaded."""

TRAINING_FILE = "training.json"
"""What `train` leaves in a model's folder about how it was trained."""

LOSSES_FILE = "seed_losses.json"
"""What `train` leaves there with `record_losses`: `{"base": {example id: loss}, "early": {example id: loss}}`."""


class ScratchSettings(Settings):
    """A small Llama with random weights and a byte-level BPE tokenizer learnt from the seeds: for a laptop."""

    vocabulary: int = Field(1024, ge=260)
    """Tokens, the 256 bytes included: no text is unknown to it."""
    hidden_size: int = Field(128, ge=8)
    """Width; a multiple of `heads`."""
    layers: int = Field(4, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    context: int = Field(512, ge=16)
    """Longest prompt and completion together, in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of twice heads ({2 * self.heads}), as rotary "
                "position embeddings need"
            )
        return self


class FineTuneSettings(Settings):
    """The `train` section of a config. The defaults are those of the paper (Lee et al. 2024) where it names one."""

    method: Literal["full", "lora"] = "full"
    """`full` trains every weight; `lora` a low-rank adapter on all linear layers (Hu et al. 2021)."""
    start_from: Literal["base", "previous"] = "base"
    """`base`: each iteration trains the base model afresh (the paper); `previous`: it goes on with the last student."""
    epochs: float = Field(3, gt=0)
    """Passes over the training set."""
    max_steps: int = Field(0, ge=0)
    """When above 0: this many optimiser steps instead of `epochs`, so that a larger training set costs no more."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    batch_size: int = Field(8, ge=1)
    """Rows in one forward pass."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes in one optimiser step."""
    max_length: int = Field(1024, ge=16)
    """Rows with more tokens are left out, counted and listed in the log."""
    lora_rank: int = Field(16, ge=1)
    """LoRA only: rank of the update."""
    lora_alpha: int = Field(32, ge=1)
    """LoRA only: the update is scaled by alpha / rank."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """LoRA only: dropout before the adapter."""
    record_losses: bool = False
    """Whether to measure each seed's loss before training and after the first epoch (or at the end of a shorter
    training), for the selections `learnable` and `hard` by `learning_percentage`. Two passes over the seeds; the
    training stays the same."""
    scratch: ScratchSettings = ScratchSettings()
    """Only for `student: scratch`."""
    trust_remote_code: bool = False
    """Whether to run code that a model repository brings along. Off: such a model is refused."""


class AnswerSettings(Settings):
    """The `evaluate` section of a config: greedy answers, unless more samples of the seeds are asked for."""

    batch_size: int = Field(32, ge=1)
    """Rows answered at once."""
    max_new_tokens: int = Field(0, ge=0)
    """The longest completion in tokens; 0: as long as the task says."""
    samples: int = Field(1, ge=1, le=1000)
    """Answers to each seed. 1: the greedy one. More: that many are drawn at `temperature`, and each seed has an error
    rate; their score is then that of the first samples. Validation and test are always answered once, greedily."""
    temperature: float = Field(0.8, gt=0, le=2)
    """`samples` above 1 only: sampling temperature."""
    sampling_seed: int = 0
    """`samples` above 1 only: decides what is drawn, row by row, whatever the batches."""
    hardness: bool = False
    """Whether to measure each seed's loss and, where the task has labels or choices, the probability of each label
    with margin and EL2N: one forward pass for each label. The selections `hard` and `learnable` need it, and so does
    the search for wrong labels."""
    trust_remote_code: bool = False
    """Whether to run code that a model repository brings along. Off: such a model is refused."""
