"""What differs between two runs: settings, data, code, scores, rows.

Scores are compared on the rows that both runs asked their students, by the paired test; rows by their ids, which are
hashes of their content and so agree between runs and machines.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llm2llm.components.shared.base.statistics import mcnemar_p, paired_difference
from llm2llm.components.shared.data.schemas import SPLITS
from llm2llm.pipelines.inspect.run_files import Run, RunFile

SCHEMA_VERSION = 1
EXAMPLES = 3  # rows shown of those that are in one run only
PLACES = ("data.", "teacher_augment.ledger", "teacher_augment.grammar", "train.checkpoint_uri", "evaluate.judge.ledger")
"""Settings that name a place: the same file lies elsewhere in each run's folder."""
SETS = ("seeds_set", "validation_set", "test_set", "pool_set")


def diff(a: Run, b: Run) -> dict[str, Any]:
    """What differs, ready for JSON.

    Returns:
        schema_version  1
        runs            the two URIs
        config          the settings that differ: key, a, b; null where a run has no such setting
        data            by set (seeds, validation, test, pool): a and b (rows, sha256), same, only_a, only_b (rows)
        code            what of code and library versions differs: key, a, b
        best            the iterations with the best validation accuracy: a, b
        scores          by split, of the best iterations: a, b (accuracies), and on the rows that both were asked: rows,
                        common_a, common_b, difference with its 95% interval low and high, p (McNemar, exact)
        training_rows   of the best iterations: both, only_a, only_b, and a few rows of either side: examples_a,
                        examples_b (id, question, answer)

    Raises:
        UserError: A file is damaged.
    """
    best = {"a": a.best_iteration(), "b": b.best_iteration()}
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": [a.uri, b.uri],
        "config": [one for one in _differences(a.config(), b.config()) if not _is_place(one)],
        "data": _data(a, b),
        "code": _differences(_versions(a), _versions(b)),
        "best": best,
        "scores": _scores(a, b, best),
        "training_rows": _training_rows(a, b, best),
    }


def _versions(run: Run) -> dict[str, Any]:
    manifest = run.manifest()
    return {key: manifest.get(key) for key in ("code", "libraries")}


def _differences(a: Any, b: Any, path: str = "") -> list[dict[str, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        pairs = ((f"{path}.{key}" if path else key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()))
        return list(itertools.chain.from_iterable(_differences(one, other, key) for key, one, other in pairs))
    return [] if a == b else [{"key": path, "a": a, "b": b}]


def _is_place(difference: Mapping[str, Any]) -> bool:
    """Whether two settings name two places of files of one name; what is in them, `data` tells."""
    names = [str(difference[side] or "").rstrip("/").rsplit("/", 1)[-1] for side in ("a", "b")]
    return difference["key"].startswith(PLACES) and names[0] == names[1]


def _data(a: Run, b: Run) -> dict[str, Any]:
    found = {}
    for name in SETS:
        files = a.last("prepare", name), b.last("prepare", name)
        ids = [None if file is None else _ids(run, file) for run, file in zip((a, b), files, strict=True)]
        if not any(ids):
            continue
        sides = [
            None if file is None else {"rows": len(some or ()), "sha256": file.sha256}
            for file, some in zip(files, ids, strict=True)
        ]
        one, other = (some or set() for some in ids)
        found[name.removesuffix("_set")] = {
            "a": sides[0],
            "b": sides[1],
            "same": one == other,
            "only_a": len(one - other),
            "only_b": len(other - one),
        }
    return found


def _ids(run: Run, file: RunFile) -> set[str]:
    return set(run.table(file, "examples", ["id"]).column("id").to_pylist())


def _scores(a: Run, b: Run, best: Mapping[str, int | None]) -> dict[str, Any]:
    answers = [_answers(run, iteration) for run, iteration in ((a, best["a"]), (b, best["b"]))]
    found: dict[str, Any] = {}
    for split in SPLITS:
        one, other = (some.get(split, {}) for some in answers)
        if not one or not other:
            continue
        common = sorted(one.keys() & other.keys())
        right = [one[row] for row in common], [other[row] for row in common]
        found[split] = {
            "a": sum(one.values()) / len(one),
            "b": sum(other.values()) / len(other),
            "rows": len(common),
            **dict.fromkeys(("common_a", "common_b", "difference", "low", "high", "p")),
        }
        if common:
            difference = paired_difference(*right)
            found[split] |= {
                "common_a": sum(right[0]) / len(common),
                "common_b": sum(right[1]) / len(common),
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "p": mcnemar_p(*right),
            }
    return found


def _answers(run: Run, iteration: int | None) -> dict[str, dict[str, bool]]:
    """Whether each row was answered right, by split and id."""
    file = None if iteration is None else run.at("evaluate", "predictions", iteration)
    found: dict[str, dict[str, bool]] = {}
    if file is not None:
        table = run.table(file, "predictions", ["split", "example_id", "outcome"])
        columns = (table.column(name).to_pylist() for name in table.column_names)
        for split, row, outcome in zip(*columns, strict=True):
            found.setdefault(split, {})[row] = outcome == "correct"
    return found


def _training_rows(a: Run, b: Run, best: Mapping[str, int | None]) -> dict[str, Any]:
    tables = [_training_set(run, iteration) for run, iteration in ((a, best["a"]), (b, best["b"]))]
    ids = [set(table.column("id").to_pylist()) for table in tables]
    return {
        "both": len(ids[0] & ids[1]),
        "only_a": len(ids[0] - ids[1]),
        "only_b": len(ids[1] - ids[0]),
        "examples_a": _some(tables[0], ids[0] - ids[1]),
        "examples_b": _some(tables[1], ids[1] - ids[0]),
    }


def _training_set(run: Run, iteration: int | None) -> pa.Table:
    columns = ["id", "question", "answer"]
    file = next((one for one in run.training_sets() if (one.iteration or 0) == iteration), None)
    if file is None:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return run.table(file, "examples", columns)


def _some(table: pa.Table, ids: set[str]) -> list[dict[str, Any]]:
    wanted = pa.array(sorted(ids)[:EXAMPLES], pa.string())
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table.column("id"), value_set=wanted)).to_pylist()
    return rows
