"""Loading a student: a Hugging Face name, a folder of safetensors, or a PEFT adapter with its base named."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.memory import out_of_memory
from llm2llm.components.shared.models.student_folder import CLASSIFIES
from llm2llm.components.shared.models.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_weight_files,
    read_header,
)
from llm2llm.components.shared.storage import fetched, is_remote

SHOWN_WEIGHTS = 2

HeadName = Literal["language_model", "classifier"]

AUTO: dict[HeadName, Any] = {
    "language_model": AutoModelForCausalLM,
    "classifier": AutoModelForSequenceClassification,
}
"""transformers' class for each head."""

OTHER_HEADS = {
    *("lm_head", "cls", "decoder", "head", "embed_out", "predictions", "generator_lm_head", "lm_predictions"),
    *("mask_predictions", "discriminator_predictions", "vocab_transform", "vocab_layer_norm", "vocab_projector"),
}
"""What pretrained models have beside their blocks, by the first part of the weights' names: what a classifier that is
made of one has no use for."""

# Weights are read and written in seconds: bars would be noise in a log. A download keeps its bar.
disable_progress_bar()
enable_progress_bars()


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> torch.dtype:
    """bfloat16 on GPUs that have it, float16 on those that only emulate it (compute capability below 8.0: V100, T4),
    float32 on a CPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_tokenizer(student: str | Path, trust_remote_code: bool = False) -> Any:
    """The student's tokenizer, with a padding token and padding on the left, as generation needs.

    An adapter that was saved without one has its base's.

    Raises:
        UserError: No such folder or model.
    """
    name, tokenizer = _tokenizer(student, trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UserError(f"student {name}: its tokenizer has no end-of-sequence token; choose another student")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_reader(student: str | Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a classifier, with a padding token and padding on the right, to which a special token's name in
    a text is text: whoever loads the saved student reads texts the same way.

    Raises:
        UserError: No such folder or model.
    """
    name, tokenizer = _tokenizer(student, trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"student {name}: its tokenizer has no padding token; choose another student")
        tokenizer.pad_token = tokenizer.eos_token
    return as_reader(tokenizer)


def as_reader(tokenizer: Any) -> Any:
    """A tokenizer, changed to what `load_reader` gives."""
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True  # the latter is saved
    tokenizer.chat_template = None
    return tokenizer


def _tokenizer(student: str | Path, trust_remote_code: bool) -> tuple[str, Any]:
    name = local_name(student)
    if _is_adapter(name) and not (Path(name) / "tokenizer_config.json").is_file():
        name = local_name(base_name(name))
    try:
        return name, AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as problem:  # the tokenizers library raises plain exceptions
        raise _not_loadable(name, problem, "its tokenizer ") from problem


def load_config(student: str | Path, trust_remote_code: bool = False) -> Any:
    """The config of the student, or of an adapter's base.

    Raises:
        UserError: No such folder or model.
    """
    name = local_name(base_name(student))
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as problem:  # anything may be raised by what a folder holds
        raise _not_loadable(name, problem) from problem


def load_model(
    student: str | Path,
    trust_remote_code: bool = False,
    train_adapter: bool = False,
    dtype: torch.dtype | None = None,
    four_bit: bool = False,
    attention: str | None = None,
    place: str | None = None,
    head: HeadName = "language_model",
    labels: Sequence[str] = (),
) -> Any:
    """The student's weights on the best device, an adapter put onto its base; never from a pickle.

    Args:
        student: A Hugging Face name, a folder, or a folder in object storage (s3://).
        trust_remote_code: Whether to run code that comes with the model.
        train_adapter: Whether an adapter's weights are to be trained; frozen otherwise.
        dtype: What the weights are kept in; default: `precision()`.
        four_bit: Whether to round the linear layers to 4-bit NormalFloat, with rounded scales, as QLoRA does.
        attention: Which implementation of attention; None: the model's own default.
        place: Where to put it; `empty`: no weights are read, there is only room for them. None: on the best device.
        head: What it ends in.
        labels: Of a classifier that is to be trained: what a student that is none yet gets a new head for, with weights
            from torch's generator. Without, all weights must be there.

    Raises:
        UserError: No such folder or model, no safetensors in it, an adapter that does not fit its base, a classifier of
            other labels, or no bitsandbytes for `four_bit`.
    """
    name = local_name(student)
    if head == "classifier" and _is_adapter(name):
        raise UserError(
            f"student {student}: an adapter, and a classifier is made of a whole model; name its base, or merge it"
        )
    dtype = dtype or precision()
    if _is_adapter(name):
        from peft import PeftModel

        base = base_name(name)
        if Path(name).is_dir():
            check_weight_files(Path(name), f"student {name}")
        try:
            whole = load_model(
                base, trust_remote_code, dtype=dtype, four_bit=four_bit, attention=attention, place=place
            )
        except UserError as problem:
            raise UserError(f"student {name}: an adapter whose base cannot be had: {problem}") from problem
        try:
            model = PeftModel.from_pretrained(whole, name, is_trainable=train_adapter)
        except Exception as problem:
            if out_of_memory(problem):
                raise
            raise UserError(
                f"student {name}: the adapter does not fit the base that it names, {base}: {_first_line(problem)}; "
                "is there another model under that name now?"
            ) from problem
        _check_adapter(model, Path(name), base)
        return model if four_bit else model.to("cpu" if place else device())
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": trust_remote_code}
    if attention is not None:
        options |= {"attn_implementation": attention}
    if four_bit:
        # By its number: each of several processes has a GPU of its own, and accelerate refuses a base on another one.
        gpu = torch.cuda.current_device() if torch.cuda.is_available() else device()
        options |= {"quantization_config": _four_bits(), "device_map": {"": gpu}}
    if place == "empty":
        return _without_weights(name, options)
    if four_bit:
        return _load(name, options)
    return _load(name, options, head, labels).to("cpu" if place else device())


def check_loadable(
    student: str | Path,
    trust_remote_code: bool = False,
    head: HeadName = "language_model",
    labels: Sequence[str] = (),
) -> Any:
    """Checks a student without reading its weights: the tokenizer, the files, and the names and shapes of the weights.

    Args:
        student, trust_remote_code, head, labels: See `load_model`.

    Returns:
        The tokenizer.

    Raises:
        UserError: What `load_tokenizer` and `load_model` would raise, memory aside.
    """
    tokenizer = (load_reader if head == "classifier" else load_tokenizer)(student, trust_remote_code)
    name = local_name(student)
    if _is_adapter(name) and head == "language_model":
        check_weight_files(Path(name), f"student {name}")
        check_loadable(base_name(name), trust_remote_code)
    else:
        options = {"device_map": "meta", "use_safetensors": True, "trust_remote_code": trust_remote_code}
        _load(name, options, head, labels)
    return tokenizer


def is_classifier(student: str | Path, trust_remote_code: bool = False) -> bool:
    """Whether a model on this machine, on the hub or in object storage has a head that scores labels.

    Raises:
        UserError: No such folder or model.
    """
    if _is_adapter(local_name(student)):
        return False
    return _classifies(load_config(student, trust_remote_code))


def _classifies(config: Any) -> bool:
    return any(name.endswith(CLASSIFIES) for name in config.architectures or [])


def labels_by_place(config: Any) -> list[str]:
    """A classifier's labels, in the order of its scores."""
    return [str(config.id2label[place]) for place in range(config.num_labels)]


def labelled(config: Any, labels: Sequence[str]) -> Any:
    """A config, changed to that of a classifier of these labels."""
    config.id2label = dict(enumerate(labels))  # which says how many there are, too
    config.label2id = {label: place for place, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    return config


def _for_labels(name: str, trust_remote_code: bool, labels: Sequence[str]) -> tuple[Any, bool]:
    """(a classifier's config with these labels, whether its head is a new one)."""
    config = load_config(name, trust_remote_code)
    if not _classifies(config):
        return labelled(config, labels), True
    if (found := labels_by_place(config)) != list(labels):
        raise UserError(
            f"student {name}: a classifier of the labels {found}, and the task has {list(labels)}; name the model that "
            "it was fine-tuned from"
        )
    return config, False


def _load(name: str, options: dict[str, Any], head: HeadName = "language_model", labels: Sequence[str] = ()) -> Any:
    """The model, every weight of which was in the files, and nothing else; but for a head that is new.

    transformers itself fills in random weights for those that it does not find.
    """
    if Path(name).is_dir():
        check_weight_files(Path(name), f"student {name}")
    new_head = False
    if labels:
        config, new_head = _for_labels(name, options["trust_remote_code"], labels)
        options = {**options, "config": config}
    try:
        with _quiet() if new_head else nullcontext():
            model, found = AUTO[head].from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as problem:  # anything may be raised by what a folder holds
        if out_of_memory(problem):
            raise
        wanted = options.get("attn_implementation")
        if wanted is not None and isinstance(problem, ValueError | ImportError) and "attention" in str(problem).lower():
            raise UserError(
                f"train.attention: {wanted!r} is not for student {name}: {_first_line(problem)}; set train.attention: "
                "auto"
            ) from problem
        raise _not_loadable(name, problem) from problem
    shapes = [one[0] if isinstance(one, tuple) else one for one in found["mismatched_keys"]]
    missing, strange = found["missing_keys"], found["unexpected_keys"]
    if new_head:
        missing = [weight for weight in missing if not _of_head(model, weight)]
        strange = [weight for weight in strange if not _of_other_head(model, weight)]
    refuse_other_weights(f"student {name}", missing, strange, shapes)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its report of a head's weights that are new, as they are to be."""
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)


def head_modules(model: Any) -> list[str]:
    """What of a classifier stands after its blocks, by name: what has weights beside the base model, and a pooler in
    it, which makes one vector of a text and which many pretrained models come without."""
    base = model.base_model_prefix
    found = [name for name, module in model.named_children() if name != base and any(True for _ in module.parameters())]
    pooler = getattr(getattr(model, base, None), "pooler", None)
    return [*found, *([f"{base}.pooler"] if pooler is not None else [])]


def _of_head(model: Any, weight: str) -> bool:
    return weight.startswith(tuple(f"{name}." for name in head_modules(model)))


def _of_other_head(model: Any, weight: str) -> bool:
    """Whether a weight that a classifier lacks is of the head that its model was pretrained with."""
    own = weight.removeprefix(f"{model.base_model_prefix}.")
    return weight.split(".")[0] in OTHER_HEADS or own.startswith("pooler.") or own.endswith(".position_ids")


def _without_weights(name: str, options: Mapping[str, Any]) -> Any:
    """The model with weights that were never written, and so take no memory yet. Buffers are there: those that no file
    holds are computed, and nobody sends them.

    Weights on the device `meta` would do, but that accelerate finds an optimiser's weights again by their addresses.
    """
    from accelerate import init_empty_weights

    trust = options["trust_remote_code"]
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust)
    attention = {key: options[key] for key in ("attn_implementation",) if key in options}
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=options["dtype"], trust_remote_code=trust, **attention)
    for module in model.modules():
        for key, weight in module.named_parameters(recurse=False):
            setattr(module, key, torch.nn.Parameter(torch.empty_like(weight, device="cpu"), weight.requires_grad))
    model.tie_weights()
    return model


def refuse_other_weights(who: str, missing: Iterable[str], unexpected: Iterable[str], shapes: Iterable[str]) -> None:
    """Checks that files hold the weights of an architecture.

    Args:
        who: What to call the model, such as `student path/to/it`.
        missing: Weights that were not found, by name.
        unexpected: Weights that the architecture does not have.
        shapes: Weights of another shape.

    Raises:
        UserError: They do not.
    """
    strange = sorted(unexpected)
    kinds = {"missing": sorted(missing), "not of its architecture": strange, "of another shape": sorted(shapes)}
    found = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN_WEIGHTS])}{', ...' if len(names) > SHOWN_WEIGHTS else ''})"
        for what, names in kinds.items()
        if names
    ]
    if not found:
        return
    fix = "save the model again with save_pretrained, or correct its config.json"
    if strange and all(name.startswith("_orig_mod.") for name in strange):
        fix = "it was saved under torch.compile: save the model inside it (model._orig_mod.save_pretrained)"
    elif strange and all(name.startswith("base_model.model.") for name in strange):
        fix = "it was saved inside a PEFT model: merge the adapter, or save it as an adapter"
    raise UserError(f"{who}: its weights are not those that its config.json describes: {'; '.join(found)}; {fix}")


def _check_adapter(model: Any, folder: Path, base: str) -> None:
    """Checks that every weight of an adapter was in its file, and nothing else."""
    from peft import get_peft_model_state_dict

    who = f"student {folder}"
    if not (folder / ADAPTER_WEIGHTS).is_file():  # one on the hub
        return
    # Whole layers of the base beside the adapter, such as embeddings, are loaded over the base's own.
    states = get_peft_model_state_dict(model, save_embedding_layers=False)
    wanted = {name: list(weight.shape) for name, weight in states.items()}
    header = read_header(folder / ADAPTER_WEIGHTS, who)
    of_base = {
        f"base_model.model.{name}".replace(".base_layer", "") for name, _ in model.get_base_model().named_parameters()
    }
    found = {name: list(of["shape"]) for name, of in header.items() if name in wanted or name not in of_base}
    both = wanted.keys() & found.keys()
    refuse_other_weights(
        f"{who}, an adapter of {base}",
        wanted.keys() - both,
        found.keys() - both,
        [name for name in both if wanted[name] != found[name]],
    )


def end_tokens(tokenizer_end: int, model_ends: int | list[int] | None) -> list[int]:
    """Every token that ends an answer: the tokenizer's and the model's."""
    ends = [model_ends] if isinstance(model_ends, int) else list(model_ends or [])
    return sorted({tokenizer_end, *ends})


def base_name(student: str | Path) -> str:
    """The model that a student is an adapter of, as the adapter names it; of any other model its own name.

    Raises:
        UserError: No such folder, or an adapter that names no base.
    """
    name = local_name(student)
    if not _is_adapter(name):
        return str(student)
    try:
        base = json.loads((Path(name) / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as problem:
        raise UserError(f"student {name}: {ADAPTER_CONFIG} is damaged: {problem!r}") from problem
    if not isinstance(base, str) or not base:
        raise UserError(f"student {name}: {ADAPTER_CONFIG} names no base model; save the adapter with its base named")
    return base


def refuse_other_base(previous: str | Path, student: str) -> None:
    """Checks that a student to go on from, where it is an adapter, is one of the config's student.

    Raises:
        UserError: Its base is another model.
    """
    if not _is_adapter(local_name(previous)):
        return
    base, wanted = base_name(previous), base_name(student)
    if _same_model(base) != _same_model(wanted):
        raise UserError(
            f"train: the previous student {previous} is an adapter of {base}, and the config's student is {wanted}; "
            "start from the base (train.start_from: base), or name the same student"
        )


def _same_model(name: str) -> str:
    """A name under which two ways to write one folder are the same."""
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name


def _is_adapter(name: str) -> bool:
    return (Path(name) / ADAPTER_CONFIG).is_file()


def _four_bits() -> Any:
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "train.method: 'qlora' needs bitsandbytes, and it is not installed; install llm2llm[qlora], or set "
            "train.method: lora"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision(),
    )


def local_name(student: str | Path) -> str:
    """The student as transformers takes it: something that looks like a folder must be one with a model in it."""
    name = str(student)
    if is_remote(name):
        name = str(fetched(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not _is_adapter(str(folder)):
            raise UserError(f"student {student}: the folder holds no model (neither config.json nor {ADAPTER_CONFIG})")
        return str(folder)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"student {student}: no such folder")
    return name


def _not_loadable(name: str, problem: Exception, what: str = "") -> UserError:
    return UserError(
        f"student {name}: {what}cannot be loaded: {_first_line(problem)} "
        "(a student is a Hugging Face model name, a folder with safetensors, or 'scratch')"
    )


def _first_line(problem: Exception) -> str:
    first = str(problem).strip().split("\n", 1)[0] or type(problem).__name__
    if "untagged enum" in first or "did not match any variant" in first:
        return "tokenizer.json was written by a newer version of the package tokenizers; upgrade it"
    return first if isinstance(problem, OSError | ValueError) else f"{type(problem).__name__}: {first}"
