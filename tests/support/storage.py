"""Fixtures for storage: a place on this machine, and one on a server."""

import os
from pathlib import Path

import pytest


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a folder in which nothing is yet: once a path, once on the server."""
    if request.param == "local":
        return str(tmp_path / "place")
    server = request.getfixturevalue("s3_server")
    server.use(monkeypatch)
    return f"s3://{server.bucket()}/place"


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no server and no credentials, and is not slow to say so."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "LLM2LLM_S3_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
