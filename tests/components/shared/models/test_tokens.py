"""A student is trained on the tokens of `apply_chat_template`, for rows of every format and five tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm2llm.components.shared import tasks
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.tasks import Task, load_task

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin|>' }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
GEMMA = (
    "{{ '<|begin|>' }}{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
MISTRAL = (
    "{{ '<|begin|>' }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
SPECIAL = ["<|pad|>", "<|begin|>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>"]
TEXTS = [
    "Which team answers this mail? My parcel is late, and nobody writes back.", "User: hello Assistant: hi there",
    "Schreib bitte kurz: Straße 7, 3.5 km", "注文番号 42 はどこ", "billing delivery refund 12345 + 7 = 12352",
    "system user assistant model\n\nQuestion: what?\nAnswer: yes [INST] [/INST]",
] * 8  # fmt: skip


def byte_level(split_digits: bool) -> Tokenizer:
    """As GPT-2's and SmolLM2's, or with digits apart as Qwen's and Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def spaces_replaced() -> Tokenizer:
    """As Gemma's: spaces are a letter, nothing is put before a text, and bytes stand for what is not known."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", *SPECIAL, *bytes_])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def unigram(prepend: str) -> Tokenizer:
    """As SentencePiece makes them: a mark stands for a space, and with `first` before the text, too (Mistral's)."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


MADE: dict[str, tuple[Any, str]] = {
    "byte-level": (lambda: byte_level(False), CHATML),
    "byte-level, digits apart": (lambda: byte_level(True), LLAMA3),
    "spaces replaced": (spaces_replaced, GEMMA),
    "unigram": (lambda: unigram("never"), CHATML),
    "unigram, first word marked": (lambda: unigram("first"), MISTRAL),
}


@pytest.fixture(scope="module", params=MADE)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    make, template = MADE[request.param]
    made = make()
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in SPECIAL])
    loaded = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|pad|>", bos_token="<|begin|>", eos_token="<|im_end|>"
    )
    loaded.chat_template = template
    return loaded


SYSTEM, FIRST, SECOND = "Be brief.", "My parcel 12345 is late.", "Straße 7, 3.5 km; 注文番号 42"
ROWS: dict[str, dict[str, Any]] = {
    "columns": {"question": f"{SYSTEM}\n\n{FIRST}", "answer": "delivery"},
    "messages": {"messages": [
        {"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST},
        {"role": "assistant", "content": "delivery"}]},
    "history": {"messages": [
        {"role": "user", "content": FIRST}, {"role": "assistant", "content": "Which one?"},
        {"role": "user", "content": SECOND}, {"role": "assistant", "content": "refund"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": SECOND}, {"from": "gpt", "value": "billing"}]},
    "prompt and completion": {"prompt": SECOND, "completion": "billing"},
    "alpaca": {"instruction": "Which team?", "input": SECOND, "output": "delivery"},
}  # fmt: skip
OPEN = Task(name="open", form="text", match="exact")
LABELS = load_task({"name": "teams", "form": "classification", "labels": ["billing", "delivery", "refund"]})


@pytest.mark.parametrize("task", [OPEN, LABELS], ids=["text", "labels"])
@pytest.mark.parametrize("name", ROWS)
def test_the_tokens_are_those_of_the_chat_template(name: str, task: Task, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[name]), encoding="utf-8")
    (row,) = read_examples(str(tmp_path / "rows.jsonl"), task)
    turns = [
        {"role": "user", "content": tasks.prompt(task, row.question, row.choices)},
        {"role": "assistant", "content": tasks.target(task, row.answer, row.rationale)},
    ]
    encoded = encode(tokenizer, task, row)
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert encoded.prompt + encoded.completion == whole
    assert tokenizer.decode(encoded.completion, skip_special_tokens=True).strip() == row.answer
