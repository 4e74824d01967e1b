"""`llm2llm inspect why` on a run of many rows: the time of the whole command, imports included.

    python -m tests.bench.why --rows 100000

Makes a run's files (`tests.support.made_run`), so that the last training set has about as many rows as asked for and
the predictions of each iteration as many as there are seeds; then asks for a kept, a rejected and a seed row, five
times each, in processes of their own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.made_run import generated, make_run, seed

TIMES = 5


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="in the last training set, about")
    parser.add_argument("--iterations", type=int, default=4)
    given = parser.parse_args()
    seeds = round(given.rows / (1 + given.iterations / 4))  # of a third of the seeds, three quarters are kept
    with TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", seeds=seeds, iterations=given.iterations, held_out=1000, ledger=False)
        size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        place = seeds // 24 * 12  # its row is kept; that of the place three on is rejected
        rows = {
            "kept": generated(place, 2).id,
            "rejected": generated(place + 3, 2).id,
            "seed": seed(place).id,
        }
        print(f"a run of {given.rows:,} training rows, {given.iterations} iterations, {size / 1e6:,.0f} MB")
        for name, row in rows.items():
            command = [sys.executable, "-m", "llm2llm.pipelines", "inspect", "why", row, "--run", str(run), "--json"]
            seconds = []
            for _ in range(TIMES):
                began = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds.append(time.perf_counter() - began)
            facts = json.loads(done.stdout)
            print(f"{name:<9}{facts['what']:<10} {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
