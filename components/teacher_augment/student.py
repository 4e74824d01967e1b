"""The student of the iteration before as a teacher: strategies `star` and `self`."""

from pathlib import Path

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.hashing import files_of, hash_of_files
from llm2llm.components.shared.lineage.embedded import FOLDER_FILE
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.models.student_folder import TRAINING_FILE

STUDENT = "student"
"""What rows call its model, wherever its folder is."""


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
    """32 hexadecimal digits of the hash of a student's folder, without the training log and the record of its making:
    the same student, made again elsewhere, is the same teacher."""
    try:
        files = files_of(folder) if folder.is_dir() else {}
        if not files:
            raise UserError(f"teacher_augment: the student's folder {folder} is not there, or is empty")
        about = (TRAINING_FILE, FOLDER_FILE)
        return hash_of_files({name: path for name, path in files.items() if path.name not in about})[:32]
    except OSError as problem:
        raise UserError(f"teacher_augment: cannot read the student's folder {folder}: {problem.strerror}") from problem
