"""A student for other runtimes: whole weights, int8 by torchao, GGUF by llama.cpp's own script.

student (full weights, or an adapter, which is merged) -> its files in a format -> a folder that transformers loads

The last step is for asking it again. For GGUF the weights are read back and put into a plain model, so what was lost by
rounding is in them; llama.cpp's own kernels and tokenizer are not tried.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.load import (
    AUTO,
    HeadName,
    base_name,
    is_classifier,
    load_config,
    load_model,
    load_tokenizer,
    precision,
    refuse_other_weights,
)
from llm2llm.components.shared.models.memory import out_of_memory
from llm2llm.components.shared.models.student_folder import TRAINING_FILE
from llm2llm.components.shared.models.weight_files import ADAPTER_CONFIG

SCRIPT = "convert_hf_to_gguf.py"
SCRIPT_VARIABLE = "LLAMA_CPP"
_BESIDE = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template", "spiece", "sentencepiece",
           "generation_config")  # fmt: skip
"""How the names of files begin that a model needs beside its weights and its config."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A format."""

    about: str
    check: Callable[[str], str]
    """From where the user says that the converter is (empty: nothing said) to the converter; a UserError where what the
    format needs is not installed."""
    write: Callable[[Path, Path, str], str]
    """From a folder of full weights, the folder to write to, and the converter to the tool and its version."""
    asked: Callable[[Path, Path, Path], Path]
    """From the written folder, the one of full weights and an empty one to a folder that can be asked."""
    classifiers: bool = True
    """Whether it has a head that scores labels."""
    whole_weights: bool = False
    """Whether only an adapter can be converted to it: of full weights there is nothing to convert."""


def check_format(student: Path, name: str, converter: str = "") -> str:
    """Refuses what cannot be converted, before anybody is asked anything.

    Args:
        student: Its folder.
        name: A key of `FORMATS`.
        converter: Where llama.cpp's script is: the file, or llama.cpp's folder; empty: as `find_script` looks.

    Returns:
        The converter.

    Raises:
        UserError: A tool is missing; the format is not for such a student.
    """
    found = FORMATS[name]
    is_adapter = (student / ADAPTER_CONFIG).is_file()
    if found.whole_weights and not is_adapter:
        raise UserError(f"--format {name}: the student {student} has full weights already; copy the folder")
    if not is_adapter:
        if not found.classifiers and is_classifier(student):
            raise UserError(f"--format {name}: the student is a classifier, which llama.cpp has no head for; use int8")
        if method := (getattr(load_config(student), "quantization_config", None) or {}):
            kind = method.get("quant_method", "") if isinstance(method, dict) else ""
            raise UserError(
                f"--format {name}: the student {student} is quantised already{f' ({kind})' if kind else ''}; convert "
                "the one that it was made from"
            )
    return found.check(converter)


def whole_student(student: Path, scratch: Path) -> Path:
    """A folder of a student's full weights: its own, or a new one with the adapter merged into its base.

    Merged in float32, kept in what the base keeps.
    """
    if not (student / ADAPTER_CONFIG).is_file():
        return student
    dtype = getattr(load_config(base_name(student)), "dtype", None) or precision()
    model = load_model(student, dtype=torch.float32).merge_and_unload().to(dtype)
    model.save_pretrained(scratch)
    load_tokenizer(student).save_pretrained(scratch)
    if (student / TRAINING_FILE).is_file():
        shutil.copy(student / TRAINING_FILE, scratch)
    return scratch


def convert(whole: Path, name: str, target: Path, converter: str) -> str:
    """Writes a student in a format.

    Args:
        whole: A folder of full weights.
        name: A key of `FORMATS`.
        target: An empty folder.
        converter: As `check_format` gave it.

    Returns:
        The tool and its version.

    Raises:
        UserError: It cannot be converted.
    """
    try:
        return FORMATS[name].write(whole, target, converter)
    except UserError:
        raise
    except Exception as problem:  # the tools are others', and raise what they like
        if out_of_memory(problem):
            raise
        raise UserError(f"--format {name}: {_first_line(problem)}") from problem


def weight_bytes(folder: Path) -> int:
    """The size of a folder's weights."""
    return sum(path.stat().st_size for pattern in ("*.safetensors", "*.gguf") for path in folder.glob(pattern))


def find_script(given: str) -> str:
    """llama.cpp's script: the given file, or in the given folder, that of $LLAMA_CPP, or on the PATH.

    Raises:
        UserError: There is none, or gguf is not installed, which reads its files again.
    """
    place = given or os.environ.get(SCRIPT_VARIABLE, "")
    found = shutil.which(SCRIPT) if not place else None
    if place:
        path = Path(place).expanduser()
        path = path / SCRIPT if path.is_dir() else path
        found = str(path) if path.is_file() else None
    if found is None:
        where = f"in {place}" if place else "on the PATH"
        raise UserError(
            f"--format gguf: there is no {SCRIPT} {where}: get llama.cpp, and give its folder by --converter or "
            f"{SCRIPT_VARIABLE}"
        )
    if find_spec("gguf") is None:
        raise UserError("--format gguf: this needs the package gguf, to read the file again: pip install gguf")
    return found


def _needs_torchao(converter: str) -> str:
    _no_converter(converter)
    if find_spec("torchao") is None:
        raise UserError("--format int8: this needs the package torchao: pip install 'torchao>=0.15'")
    return ""


def _no_converter(converter: str) -> str:
    if converter:
        raise UserError("--converter: only for GGUF; remove it")
    return ""


def _elsewhere(name: str) -> Conversion:
    def check(_: str) -> str:
        raise UserError(
            f"--format {name}: llm2llm does not run such tools, which need calibration rows and other versions of "
            "transformers; use int8 or GGUF, or quantise the student's folder with llm-compressor (an adapter's after "
            "--format merged), and ask the result with llm2llm predict"
        )

    def never(*_: Any) -> Any:
        raise AssertionError(name)

    return Conversion("Refused, with what to do instead.", check, never, never)


def _write_merged(whole: Path, target: Path, _: str) -> str:
    for path in whole.iterdir():
        shutil.copy(path, target)
    return f"peft {version('peft')}"


def _write_int8(whole: Path, target: Path, _: str) -> str:
    from transformers import TorchAoConfig

    # By its name, as type checkers find no such package where nobody uses it.
    weights_only = import_module("torchao.quantization").Int8WeightOnlyConfig()
    head: HeadName = "classifier" if is_classifier(whole) else "language_model"
    model = AUTO[head].from_pretrained(
        whole, quantization_config=TorchAoConfig(weights_only), dtype=precision(), use_safetensors=True
    )
    model.save_pretrained(target)
    _copy_beside(whole, target)
    return f"torchao {version('torchao')}, int8 weights, one scale for each row"


def _to_gguf(kind: str) -> Callable[[Path, Path, str], str]:
    def write(whole: Path, target: Path, converter: str) -> str:
        name = f"model-{kind.upper()}.gguf"
        with _without_code(whole, target) as plain:
            done = subprocess.run(  # noqa: S603  # this Python, a script that the user names
                [sys.executable, converter, str(plain), "--outfile", str(target / name), "--outtype", kind],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        if done.returncode or not (target / name).is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise UserError(f"{SCRIPT} cannot convert this student (exit code {done.returncode}): {said[-1][:300]}")
        if (whole / TRAINING_FILE).is_file():
            shutil.copy(whole / TRAINING_FILE, target)
        digest = hashlib.sha256(Path(converter).read_bytes()).hexdigest()[:12]
        return f"llama.cpp's {SCRIPT} (SHA-256 {digest}...), {kind}"

    return write


@contextmanager
def _without_code(whole: Path, target: Path) -> Iterator[Path]:
    """A folder with links to a model's files, without what the script would run: it trusts remote code."""
    folder = target / ".plain"
    folder.mkdir()
    try:
        for path in whole.iterdir():
            if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json") or _is_beside(path.name):
                (folder / path.name).symlink_to(path.resolve())
        for name in ("config.json", "tokenizer_config.json"):
            if (whole / name).is_file():
                values = json.loads((whole / name).read_text(encoding="utf-8"))
                (folder / name).unlink(missing_ok=True)
                kept = {key: value for key, value in values.items() if key != "auto_map"}
                (folder / name).write_text(json.dumps(kept), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_it_is(target: Path, _: Path, __: Path) -> Path:
    return target


def _read_back(target: Path, whole: Path, scratch: Path) -> Path:
    """The weights of a GGUF file in a plain model, with the student's own tokenizer."""
    (file,) = target.glob("*.gguf")
    try:
        loaded, found = AUTO["language_model"].from_pretrained(
            target, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
    except Exception as problem:
        if out_of_memory(problem):
            raise
        raise UserError(
            f"--format gguf: written, but transformers cannot read the file again, so nothing can say how good it is: "
            f"{_first_line(problem)}"
        ) from problem
    refuse_other_weights(f"{file.name}", found["missing_keys"], found["unexpected_keys"], found["mismatched_keys"])
    config = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    plain = type(loaded)(type(loaded.config).from_dict(config))
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.to(torch.float32).save_pretrained(scratch)
    _copy_beside(whole, scratch)
    return scratch


def _copy_beside(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and (_is_beside(path.name) or path.name == TRAINING_FILE):
            shutil.copy(path, target)


def _is_beside(name: str) -> bool:
    return name.startswith(_BESIDE) and not name.endswith(".py")


def _first_line(problem: Exception) -> str:
    first = str(problem).strip().split("\n", 1)[0]
    return f"{type(problem).__name__}: {first[:300]}" if first else type(problem).__name__


FORMATS: dict[str, Conversion] = {
    "int8": Conversion(
        "int8 weights by torchao; vLLM and transformers load it", _needs_torchao, _write_int8, _as_it_is
    ),
    "gguf-q8_0": Conversion("8-bit GGUF for llama.cpp", find_script, _to_gguf("q8_0"), _read_back, classifiers=False),
    "gguf-f16": Conversion("float16 GGUF for llama.cpp", find_script, _to_gguf("f16"), _read_back, classifiers=False),
    "merged": Conversion(
        "an adapter merged into its base", _no_converter, _write_merged, _as_it_is, whole_weights=True
    ),
    "awq": _elsewhere("awq"),
    "gptq": _elsewhere("gptq"),
}
