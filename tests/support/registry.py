"""A registry on this machine, and one on a server; the tests of promotion use it too."""

from pathlib import Path

import pytest


@pytest.fixture
def registry(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a registry in which nothing is yet."""
    monkeypatch.setenv("LLM2LLM_CACHE", str(tmp_path / "cache"))
    return f"{place}/models/registry"
