"""Of more new rows than are wanted, those that cover most."""

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

from llm2llm.components.dedupe.settings import CoverageSettings
from llm2llm.components.shared.data.schemas import Example, StudentError
from llm2llm.components.shared.similarity import text_of
from llm2llm.components.shared.similarity.diversity import facility_location, k_center_of, most_alike, tf_idf

CHOOSE = {"facility_location": facility_location, "k_center": k_center_of}
"""`dedupe.coverage.by`"""


def covering(
    new: Sequence[Example],
    training_set: Sequence[Example],
    settings: CoverageSettings,
    hardness: Mapping[str, float],
) -> dict[int, tuple[float, Example]]:
    """The places of the new rows to drop, each with its cosine to the row that covers it best, and that row; none where
    there are not more than `keep`.

    Args:
        new: Rows that are no copies, in the order of their ids.
        training_set: What is there, and covers too.
        settings: How many, and how they are chosen.
        hardness: Id of a seed -> how hard it is; used with `weigh_by_hardness`.

    Raises:
        UserError: The embedding model cannot be used.
    """
    if len(new) <= settings.keep:
        return {}
    known, rows = len(training_set), [*training_set, *new]
    vectors = _vectors([text_of(row) for row in rows], settings.model)
    weights = [1.0] * known + _weights(new, hardness) if settings.weigh_by_hardness else None
    kept = [*range(known), *sorted(CHOOSE[settings.by](vectors, settings.keep, known, weights))]
    dropped = {}
    for place in sorted(set(range(len(rows))) - set(kept)):
        score, nearest = most_alike(vectors, place, kept)
        dropped[place - known] = score, rows[nearest]
    return dropped


def hardness_by_seed(errors: Sequence[StudentError], iteration: int) -> dict[str, float]:
    """The hardness of the rows that an iteration's rows were written for: what was found in the one before."""
    found = [error for error in errors if error.iteration == iteration - 1]
    return {error.example_id: error.hardness for error in found if error.hardness is not None}


def _vectors(texts: Sequence[str], model: str) -> Any:
    if not model:
        return tf_idf(texts)
    from llm2llm.components.shared.similarity.embeddings import embed

    return embed(texts, model, "dedupe.coverage.model")


def _weights(new: Sequence[Example], hardness: Mapping[str, float]) -> list[float]:
    """Above 0, 1 on the average of the rows that have one; 1 for the others."""
    found = {row.id: hardness.get(row.written_from or "") for row in new}
    known = {row: max(value, 1e-6) for row, value in found.items() if value is not None}
    if not known:
        return [1.0] * len(new)
    mean = fsum(known.values()) / len(known)
    return [known.get(row.id, mean) / mean for row in new]
