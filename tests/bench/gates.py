"""How often the gates of promotion let pass whom, by simulation.

    make bench-gates        or        python -m tests.bench.gates --output build/bench/gates

Students answer the same rows as `tests.support.paired_students` draws them. Of each scenario it says how often the
run's best passes the check `better`, as it is and as if it had been its only one, and how often a student is refused
for its slices, as they are and by the fall alone (`slice_level: 1`). "Known" is how often McNemar's test alone, at 1.2
times the level, would let the truly best student pass if somebody knew beforehand which it is. About three minutes of
one core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from llm2llm.components.promote.compare import checks, compare
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.tasks import Task
from tests.support.builders import example
from tests.support.paired_students import known_best_passes, paired_students

PLATEAU = (0.0, 0.02, 0.04, *8 * (0.05,))
"""What a run of 11 students gains over production, iteration by iteration."""


def better(rows: int, incumbent: float, gains: tuple[float, ...], between: float, within: float, runs: int) -> str:
    """One line of the table: how often the best of a run's students passes, and differs on how many rows."""
    task, settings = Task(name="numbers", form="numeric"), PromoteSettings(slices=[])
    validation = [example(f"row {i}", "1") for i in range(rows)]
    random = np.random.default_rng(0)
    passed = alone = known = 0
    differ = []
    for seed in range(runs):
        drawn = paired_students(random, rows, incumbent, [incumbent + one for one in gains], between, within)
        before, *students = (dict(zip((row.id for row in validation), map(bool, one), strict=True)) for one in drawn)
        best = max(students, key=lambda one: sum(one.values()))
        found = compare(before, best, validation, task, settings, seed, students)
        passed += checks(found, settings)[0].passed
        alone += checks(replace(found, p_best=None), settings)[0].passed
        known += known_best_passes(drawn[0], drawn[1 + int(np.argmax(gains))], 1.2 * settings.level / 2)
        differ.append((found.only_candidate + found.only_incumbent) / rows)
    shown = f"{100 * max(gains):+.0f} points" if any(gains) else "none better"
    return (
        f"| {rows} | {len(gains)} | {incumbent:.0%} | {shown} | {np.mean(differ):.1%} | {alone / runs:.1%} | "
        f"{passed / runs:.1%} | {known / runs:.1%} |"
    )


def slices(labels: int, each: int, gain: float, between: float, runs: int) -> str:
    """One line of the table: how often a student is refused for its slices."""
    names = [f"label {i:02}" for i in range(labels)]
    task = Task(name="labels", form="classification", labels=names)
    validation = [example(f"row {i}", names[i % labels]) for i in range(labels * each)]
    settings = PromoteSettings()
    by_fall = settings.model_copy(update={"slice_level": 1.0})
    random = np.random.default_rng(0)
    refused = fell = 0
    for seed in range(runs):
        drawn = paired_students(random, len(validation), 0.85, [0.85 + gain], between, between)
        before, after = (dict(zip((row.id for row in validation), map(bool, one), strict=True)) for one in drawn)
        found = compare(before, after, validation, task, settings, seed)
        refused += not checks(found, settings)[2].passed
        fell += not checks(found, by_fall)[2].passed
    return f"| {labels} x {each} | {100 * gain:+.0f} points | {fell / runs:.1%} | {refused / runs:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/bench/gates"))
    parser.add_argument("--runs", type=int, default=2000, help="how many runs of each scenario")
    options = parser.parse_args()
    lines = [
        "| Rows | Students | In production | Truly | Rows they differ on | Passes, as the only one | Passes | Known |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in (100, 300, 1000):
        for students in (1, 4, 11):
            lines.append(better(rows, 0.85, students * (0.0,), 0.8, 0.9, options.runs))
            print(lines[-1], flush=True)
    alike = ((300, 0.85, 0.8, 0.9), (300, 0.9, 0.8, 0.9), (300, 0.85, 0.9, 0.95), (500, 0.85, 0.8, 0.9))
    for rows, incumbent, between, within in alike:
        for gains in ((0.05,), PLATEAU[:4], PLATEAU):
            lines.append(better(rows, incumbent, gains, between, within, options.runs))
            print(lines[-1], flush=True)
    lines += ["", "| Slices | Truly | Refused by the fall alone | Refused |", "|---|---|---|---|"]
    for labels, each in ((7, 30), (77, 20)):
        for gain in (0.0, 0.05):
            lines.append(slices(labels, each, gain, 0.8, options.runs // 4))
            print(lines[-1], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(str(options.output / "gates.md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
