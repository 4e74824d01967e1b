"""A run's folder that may be moved: what is kept in it about finished stages names places in it by a mark.

/home/ann/out/artifacts/train-1/model   is kept as   {output}/artifacts/train-1/model
"""

from typing import Any

from llm2llm.components.shared.base.settings_text import settings_text

OUTPUT = "\uf8ff{llm2llm output}"
"""Stands for the output folder; its first character is one of Unicode's for private use."""


def moved(value: Any, old: str, new: str) -> Any:
    """A plain value with one folder in the place of another, in texts that are or begin with its path, and in JSON
    texts. Other texts stay: a prompt may talk of any path.

    >>> moved(["/out/a", "/outer", '{"ledger":"/out/ledger"}'], "/out", "/new")
    ['/new/a', '/outer', '{"ledger":"/new/ledger"}']
    """
    if isinstance(value, str):
        if value == old or value.startswith(f"{old}/"):
            return new + value[len(old) :]
        if value[:1] in ("{", "[", '"') and _within(old) in value:
            return value.replace(f'"{_within(old)}/', f'"{_within(new)}/').replace(
                f'"{_within(old)}"', f'"{_within(new)}"'
            )
        return value
    if isinstance(value, dict):
        return {key: moved(one, old, new) for key, one in value.items()}
    if isinstance(value, (list, tuple)):  # JSON has no tuples
        return [moved(one, old, new) for one in value]
    return value


def _within(path: str) -> str:
    """A path as it stands inside a settings text, which escapes braces and all that is not ASCII."""
    return settings_text({"": path}).removeprefix('{"":"').removesuffix('"}')
