"""One point of a sweep in a process of its own.

python -m llm2llm.pipelines.sweep.point CONFIG OUTPUT RUNNER SHARED [KEY=VALUE ...]

SHARED is a folder of points that begin alike. What other code has left half done is begun anew; answers that were paid
for are kept. It ends when the sweep that started it is gone. Exit codes as `llm2llm run`; the last line of the output
says what was wrong.
"""

import sys
from pathlib import Path
from typing import cast

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.process import EXIT_USER_ERROR, end_with_parent
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import RunFailed, Runner, of_other_code, run_local


def main(source: str, output: str, runner: str, shared: str, *overrides: str) -> int:
    """Runs the config into the folder; an interrupted run there goes on."""
    end_with_parent()
    folder = Path(output)
    if fresh := of_other_code(folder):
        print("begun by another version of llm2llm: begins anew", flush=True)
    try:
        run_local(load_config(source, overrides, resolve=True), folder, cast(Runner, runner), fresh, Path(shared))
    except UserError as problem:
        print(f"error: {problem}", flush=True)
        return EXIT_USER_ERROR
    except RunFailed as problem:
        print(f"error: {problem}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
