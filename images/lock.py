"""Writes images/cpu.txt, images/train.txt and images/vllm.txt: what an image installs, pinned by version and by the
hashes of the index.

    make locks

Versions are those of constraints.txt. PyTorch is left out of `train`: its CPU and CUDA builds are different files that
need different packages, so the Dockerfile installs it first, pinned by version. vLLM is built against one PyTorch with
its CUDA libraries, which are locked with it; where it cannot work with a version of constraints.txt it gets another.
Nothing is downloaded but what the index says about the packages.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# What the image `{image}` installs, pinned by version and hash. Written by images/lock.py from pyproject.toml and
# constraints.txt: do not edit.
"""
PYTHON = "3.11"
PYTORCH = re.compile(r"^(torch|triton|cuda-[\w-]+|nvidia-[\w-]+)==.*\n(?:    .*\n)*", re.MULTILINE)
"""PyTorch and what its CUDA build needs: a package with the lines of its hashes."""
EXTRAS = {"cpu": ["cpu"], "train": ["train", "qlora", "publish"], "vllm": ["vllm"]}
"""The extras of pyproject.toml that each image has, so that no setting of a config needs an image of one's own."""
VLLM = "vllm==0.32.0"
"""The version that the tests marked `vllm` run, by its CPU build (tests/vllm-requirements.txt)."""
VLLM_DECIDES = {"numpy"}
"""What vLLM needs in another version than constraints.txt has."""


def main() -> None:
    """Locks every image."""
    for image, extras in EXTRAS.items():
        with tempfile.TemporaryDirectory() as folder:
            constraints, output = Path(folder) / "constraints.txt", Path(folder) / "locked.txt"
            constraints.write_text(_for_vllm() if image == "vllm" else _read("constraints.txt"), encoding="utf-8")
            command = [
                sys.executable, "-m", "uv", "--quiet", "--no-config", "pip", "compile", "--generate-hashes",
                "--no-header", "--no-annotate", "--python-version", PYTHON,
                "--python-platform", "x86_64-manylinux_2_28", "--constraint", str(constraints),
                "--output-file", str(output), *(f"--extra={extra}" for extra in extras), "pyproject.toml",
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # its parts are those above
            text = output.read_text(encoding="utf-8")
            if image == "train":
                text = PYTORCH.sub("", text)
        path = ROOT / "images" / f"{image}.txt"
        path.write_text(HEADER.format(image=image) + text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}: {text.count('==')} packages")


def _for_vllm() -> str:
    """Constraints for the image `vllm`: what it shares with `cpu` in the same versions, but for what vLLM decides."""
    lines = re.findall(r"^([A-Za-z0-9_.-]+)(==[^\s\\;]+)", _read("images/cpu.txt"), re.MULTILINE)
    return "\n".join([VLLM, *(name + version for name, version in lines if name not in VLLM_DECIDES)]) + "\n"


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
