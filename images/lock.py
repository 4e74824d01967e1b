"""Writes images/cpu.txt and images/train.txt: what an image installs, pinned by version and by the hashes of the index.

    make locks

Versions are those of constraints.txt. PyTorch is left out: its CPU and CUDA builds are different files that need
different packages, so the Dockerfile installs it first, pinned by version.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# What the image `{extra}` installs, pinned by version and hash. Written by images/lock.py from pyproject.toml and
# constraints.txt: do not edit.
"""
# A package and the lines of its hashes; `extra` needs this project itself, which the Dockerfile installs last.
LEFT_OUT = re.compile(r"^(torch==|llm2llm @ ).*\n(?:    .*\n)*|^# .*\n", re.MULTILINE)


def main() -> None:
    """Locks every image whose packages constraints.txt pins."""
    for extra in ("cpu", "train"):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "locked.txt"
            command = [
                sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras",
                "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
                "--constraint", "constraints.txt", "--extra", extra, "--output-file", str(output), "pyproject.toml",
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
            text = LEFT_OUT.sub("", output.read_text(encoding="utf-8"))
        path = ROOT / "images" / f"{extra}.txt"
        path.write_text(HEADER.format(extra=extra) + text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}: {text.count('==')} packages")


if __name__ == "__main__":
    main()
