"""Teachers without a language model: a grammar, a pool of labelled rows.

An offline teacher is a file here that makes an `OfflineTeacher`, and a line in `OFFLINE`.
"""

from llm2llm.components.teacher_augment.offline import grammar, pool
from llm2llm.components.teacher_augment.offline.base import OfflineTeacher

OFFLINE: dict[str, OfflineTeacher] = {
    "pool": pool.TEACHER,
    "grammar": grammar.TEACHER,
}
"""Name, as `teacher` has it in a config -> teacher. Edits of the text need no teacher at all: the strategy `eda`."""
