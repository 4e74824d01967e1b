"""A real vLLM: its OpenAI-compatible server on loopback, and where its interpreter is.

vLLM pins a PyTorch of its own, so it lives in an environment of its own (tests/vllm-requirements.txt says how to make
it), whose Python the variable LLM2LLM_VLLM_PYTHON names.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PYTHON_VARIABLE = "LLM2LLM_VLLM_PYTHON"
START_SECONDS = 300.0


def vllm_python() -> str:
    """The interpreter that has vLLM; where none is named the test skips, and on CI it fails."""
    python = os.environ.get(PYTHON_VARIABLE, "")
    if not python:
        said = f"{PYTHON_VARIABLE} names no Python that has vLLM; tests/vllm-requirements.txt says how to make one"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return python


def vllm_environment() -> dict[str, str]:
    """The environment variables under which vLLM's CPU build starts on a small machine, and talks to nobody."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    }


@contextmanager
def vllm_server(model: Path, name: str, log: Path) -> Iterator[str]:
    """Serves a model folder under a name; gives the base URL, such as http://127.0.0.1:1234/v1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-num-seqs", "8"]
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=vllm_environment(), stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-4000:]}")


def requests_answered(url: str) -> int:
    """How many requests a server has finished, by its own count."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:request_success_total{")))
