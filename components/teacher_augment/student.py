"""The student of the iteration before as a teacher: strategies `star` and `self`."""

import hashlib
from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.training.settings import TRAINING_FILE

STUDENT = "student"
"""What rows call its model, wherever its folder is."""
CHUNK = 1 << 20


class StudentSettings(ModelSettings):
    """A student's folder, known to the ledger by what is in it: the folder is another one in each run."""

    def identity(self, teacher: str) -> str:
        """Who answers, as part of a call's key."""
        return f"{teacher} {STUDENT}@{self.revision}"


def student_settings(folder: str, settings: ModelSettings) -> StudentSettings:
    """How the student in a folder is asked.

    Raises:
        UserError: The folder is not there, or cannot be read.
    """
    own = {key: getattr(settings, key) for key in ModelSettings.model_fields}
    return StudentSettings(**{**own, "model": folder, "revision": folder_digest(Path(folder))})


def folder_digest(folder: Path) -> str:
    """32 hexadecimal digits of the SHA-256 of the names and contents of a model's files, the training log left out."""
    digest = hashlib.sha256()
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != TRAINING_FILE)
        if not files:
            raise UserError(f"teacher_augment: the student's folder {folder} is not there, or is empty")
        for path in files:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    except OSError as problem:
        raise UserError(f"teacher_augment: cannot read the student's folder {folder}: {problem.strerror}") from problem
    return digest.hexdigest()[:32]
