"""Files that a config names: prompts become their texts, relative paths absolute ones."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.settings import IN_POD
from llm2llm.components.shared.training.settings import SCRATCH


def inline_prompts(values: dict[str, Any], folder: Path) -> None:
    """Puts the texts of prompts in the place of their files' names: a cluster has no such files, and a changed prompt
    is another config."""
    augment = values.get("teacher_augment")
    prompts = augment.get("prompts") if isinstance(augment, dict) else None
    if not isinstance(prompts, dict):
        return
    for name, prompt in prompts.items():
        if not isinstance(prompt, str) or "\n" in prompt:
            continue
        try:
            prompts[name] = (folder / Path(prompt).expanduser()).read_text(encoding="utf-8")
        except OSError as problem:
            raise UserError(f"teacher_augment.prompts.{name}: cannot read {prompt}: {problem.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"teacher_augment.prompts.{name}: {prompt} is not UTF-8 text") from None


_FILES = (("data", "seeds"), ("data", "validation"), ("data", "test"), ("data", "pool"), ("data", "replay"),
          ("teacher_augment", "grammar"), ("teacher_augment", "eda_synonyms"))  # fmt: skip
"""Files, or names of data sets."""
_ASKED = (("teacher_augment",), ("teacher_augment", "verification", "by"), ("evaluate", "judge"))
"""Models that are asked, beside those in `teacher_augment.teachers`."""
_PLACES = (("teacher_augment", "ledger"), ("train", "checkpoint_uri"), ("promote", "registry"),
           ("evaluate", "judge", "ledger"), ("prepare", "leak", "semantic", "model"),
           ("dedupe", "leak", "semantic", "model"), ("dedupe", "semantic", "model"),
           ("dedupe", "coverage", "model"))  # fmt: skip
"""Folders, or places in object storage."""


def resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Makes relative paths absolute; a name on the hub, which has no such file here, stays."""

    def resolve(within: Any, key: str, is_file: bool = False) -> None:
        value = within.get(key) if isinstance(within, dict) else None
        if isinstance(value, str) and value.startswith("~"):
            within[key] = os.path.expanduser(value)
        elif isinstance(value, str) and value and not value.startswith(("builtin:", "/")) and "://" not in value:
            path = folder / value
            is_split = (folder / value.partition("#")[0]).is_dir()  # a saved data set's, `folder#test`
            if path.exists() or is_split or value.startswith(("./", "../")) or (is_file and path.suffix):
                within[key] = str(path)

    for *sections, key in _FILES:
        resolve(_within(values, sections), key, is_file=True)
    guards = _within(values, ["promote", "guards"])
    for guard in guards if isinstance(guards, list) else []:
        resolve(guard, "file", is_file=True)
        if isinstance(guard, dict) and str(guard.get("lm_eval")).endswith((".yaml", ".yml")):
            resolve(guard, "lm_eval", is_file=True)
    if values.get("student") != SCRATCH:
        resolve(values, "student")
    resolve(_within(values, ["train", "distill"]), "model")
    several = _within(values, ["teacher_augment", "teachers"])
    for asked in [*(_within(values, where) for where in _ASKED), *(several if isinstance(several, list) else [])]:
        if isinstance(asked, dict) and asked.get("teacher") in IN_POD:  # at an endpoint it is a name, not a folder
            named = asked.get("model")
            resolve(asked, "model")
            for prices in (_within(values, (*_ASKED[0], "prices")), _within(values, (*_ASKED[-1], "prices"))):
                if isinstance(prices, dict) and isinstance(named, str) and named in prices:
                    prices.setdefault(asked["model"], prices[named])
    for *sections, key in _PLACES:
        within = _within(values, sections)
        uri = within.get(key) if isinstance(within, dict) else None
        if isinstance(uri, str) and uri and "://" not in uri:
            within[key] = str(folder / Path(uri).expanduser())


def _within(values: Any, sections: Iterable[str]) -> Any:
    """The value of a key inside sections; None where one of them is no mapping."""
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
    return values
