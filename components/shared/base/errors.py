"""`UserError`, for what the user can fix: shown as one message, never as a traceback."""

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something outside this code is wrong: a row, a file, a setting, an endpoint, a disk.

    The message names the file, row, key or value, and what to do. Commands print it after `error: ` and exit with 2.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word closest to `word`, or an empty string when none is close."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


CONNECTION_ERRORS = (ConnectionError, TimeoutError)
"""Network errors that may succeed on retry."""


def cannot_write(path: str | os.PathLike[str], problem: OSError) -> UserError:
    """The UserError for a failed write, with the fix for the usual causes."""
    fix = {
        errno.ENOSPC: "the disk is full: free some space or choose another output folder",
        errno.EDQUOT: "the disk quota is used up: free some space or choose another output folder",
        errno.EROFS: "the file system is read-only: choose another output folder",
        errno.EACCES: "permission denied: choose another output folder or change its permissions",
        errno.EPERM: "not permitted: choose another output folder or change its permissions",
    }.get(problem.errno or 0, problem.strerror or str(problem))
    return UserError(f"cannot write {os.fspath(path)}: {fix}")
