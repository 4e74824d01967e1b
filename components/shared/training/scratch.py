"""A small Llama with random weights and a tokenizer learnt from the seeds: for laptops, tests and experiments."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import as_reader, labelled
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import CLASSIFIER, ScratchSettings

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]


def build_student(
    seeds: list[Example], task: Task, settings: ScratchSettings, random_seed: int, head: str = "language_model"
) -> tuple[Any, Any]:
    """(model, tokenizer), the same for the same seeds, settings, random seed and head.

    The tokenizer sees the seeds only, never generated, validation or test rows, so that every iteration and every
    strategy starts from the same base model.
    """
    classifies = head == CLASSIFIER
    texts = [
        seed.question
        if classifies
        else tasks.prompt(task, seed.question, seed.choices, seed.tools)
        + " "
        + tasks.target(task, seed.answer, seed.rationale)
        for seed in seeds
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL_TOKENS, strict=True)),
        padding_side="left",
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(random_seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 8 // 3 // 8 * 8,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    if classifies:
        config = labelled(config, task.labels)
        return LlamaForSequenceClassification(config), as_reader(fast)
    return LlamaForCausalLM(config), fast
