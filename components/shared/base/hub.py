"""The Hugging Face Hub as a place to push to: the token, and files put there in one commit.

The token comes from the environment alone, and no message quotes it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from llm2llm.components.shared.base.errors import UserError

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105  # the name of the variable


def check_hub(key: str) -> None:
    """Refuses a push that could not be made.

    Args:
        key: The setting or option that asks for it, for the message.

    Raises:
        UserError: The package is missing, or a token.
    """
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{key}: this needs the package huggingface_hub: pip install 'llm2llm[train]', or remove it")
    if not (token := hub_token()):
        raise UserError(f"{key}: {TOKEN_VARIABLE} is not set: mount a token that may write, or remove it")
    if not (token.isascii() and token.isprintable()):  # the client would quote it in its error
        raise UserError(f"{key}: {TOKEN_VARIABLE} holds what no token can: copy the token again")


def is_hub_repo(name: str) -> bool:
    """Whether a name can be a repository's on the Hub: `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name) is not None


def hub_token() -> str:
    """Without the line break that a secret made from a file ends in."""
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def push_files(
    repo: str,
    files: Mapping[str, Path],
    message: str,
    kind: Literal["model", "dataset"],
    private: bool,
    tag: str | None = None,
    replaces: Sequence[str] = (),
) -> None:
    """Puts files into a repository of the Hub, which is made if it is not there, in one commit.

    Args:
        repo: `owner/name`.
        files: Where they lie, by their path in the repository.
        message: Of the commit.
        kind: Of the repository.
        private: Whether one that is made is private.
        tag: A name for the commit.
        replaces: What names in the repository begin with that are removed, unless they are among `files`.

    Raises:
        UserError: It could not be done: the first line of what the client says.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=hub_token())
    try:
        api.create_repo(repo, private=private, exist_ok=True, repo_type=kind)
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())
        ]
        if replaces:
            there = api.list_repo_files(repo, repo_type=kind)
            gone = sorted(name for name in there if name.startswith(tuple(replaces)) and name not in files)
            changes += [CommitOperationDelete(name) for name in gone]
        commit = api.create_commit(repo, changes, commit_message=message, repo_type=kind)
        if tag is not None:
            api.create_tag(repo, tag=tag, revision=commit.oid, exist_ok=True, repo_type=kind)
    except Exception as problem:
        # The Hub's client speaks through requests, httpx or httpx2, by its version: what they raise has no common
        # ancestor. The first line only: what follows can quote the request.
        first = str(problem).strip().partition("\n")[0] or type(problem).__name__
        raise UserError(f"not pushed to {repo} on the Hub: {first}") from None
