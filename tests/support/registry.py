"""A registry on this machine, and one on a server; the tests of promotion use it too."""

from pathlib import Path

import pytest


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def registry(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a registry in which nothing is yet."""
    if request.param == "local":
        return str(tmp_path / "registry")
    server = request.getfixturevalue("s3_server")
    server.use(monkeypatch)
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    return f"s3://{server.bucket()}/models/registry"
