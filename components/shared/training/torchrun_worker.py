"""One process of a training on several devices: `python -m llm2llm.components.shared.training.torchrun_worker JOB`.

torchrun, accelerate or a Kubeflow TrainJob starts it once for each device, with their usual environment variables
(RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). JOB is a folder that `write_job` stored, local or `s3://`. The
first process stores the student there; whichever fails says why there.

Workers exit when the launching stage stops sending heartbeats. A stage that is killed, such as in a terminated run,
cannot delete its TrainJob; without heartbeats its workers would go on and cost GPU time for a student nobody takes.

Exit codes: 0; 2 for a user's mistake; 3 when a device is out of memory; 143 on SIGTERM; 1 else.
"""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from llm2llm.components.shared.base.errors import CONNECTION_ERRORS, UserError, cannot_write
from llm2llm.components.shared.base.process import EXIT_TERMINATED, EXIT_USER_ERROR, end_with_parent
from llm2llm.components.shared.models.memory import out_of_memory
from llm2llm.components.shared.storage import is_remote
from llm2llm.components.shared.training.devices import this_process
from llm2llm.components.shared.training.job_folder import (
    abandon,
    fetch_job,
    is_abandoned,
    last_followed,
    read_job,
    run_job,
    write_failure,
    write_result,
)

EXIT_OUT_OF_MEMORY = 3
ABANDONED_SECONDS = 1800.0
"""How long workers go on while nobody follows them: time for a stage whose node was lost to be started elsewhere."""
LOOK_SECONDS = 60.0


def main(uri: str) -> int:
    """Trains on this process's device and returns the exit code."""
    end_with_parent()
    # Who started it says why it ends, on Ctrl-C too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        if is_remote(uri):
            if is_abandoned(uri):
                print("train: nobody follows this job any more", flush=True)
                return 1
            if os.environ.get("RANK", "0") == "0":
                threading.Thread(
                    target=_end_when_abandoned, args=(uri,), daemon=True, name="end-when-abandoned"
                ).start()
        _train(uri)
    except UserError as problem:
        return _mistake(uri, problem)
    except Exception as problem:
        if isinstance(problem, OSError) and not isinstance(problem, CONNECTION_ERRORS):
            # A full disk is the user's to mend, as `atomic_folder` has it where one process trains.
            return _mistake(uri, cannot_write(problem.filename or _folder(uri), problem))
        if out_of_memory(problem):
            write_failure(uri, "out_of_memory", str(problem).split("\n", 1)[0])
            return EXIT_OUT_OF_MEMORY
        write_failure(uri, "error", f"{type(problem).__name__}: {problem}")
        raise
    return 0


def _mistake(uri: str, problem: UserError) -> int:
    write_failure(uri, "user_error", str(problem))
    print(f"error: {problem}", file=sys.stderr, flush=True)
    return EXIT_USER_ERROR


def _train(uri: str) -> None:
    state = this_process()
    if not state.is_main_process:
        # What the first process says is enough.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open for as long as the process lives
    here = _folder(uri)
    if is_remote(uri) and state.is_local_main_process:
        here.mkdir(mode=0o700, exist_ok=True)
        fetch_job(uri, here)
    state.wait_for_everyone()
    job = read_job(here)
    # Beside the job: of a local one on the disk of the output, and removed with it should this process be killed.
    with tempfile.TemporaryDirectory(prefix="llm2llm-train-", dir=here) as folder:
        log = run_job(job, Path(folder))
        if state.is_main_process:
            write_result(uri, Path(folder), log)
        # Who leaves earlier takes the others' connection with it.
        state.wait_for_everyone()
    if is_remote(uri) and state.is_local_main_process:
        shutil.rmtree(here, ignore_errors=True)
    state.destroy_process_group()


def _end_when_abandoned(uri: str) -> None:
    """Ends this process, and so the others, which cannot go on without it, when nobody follows the job any more."""
    last: bytes | None = None
    since = time.monotonic()
    while True:
        try:
            now = last_followed(uri)
        except UserError:
            now = None  # storage that does not answer says nothing of who is there
        if now is None or now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > ABANDONED_SECONDS:
            minutes = ABANDONED_SECONDS / 60
            print(f"train: nobody has followed this job for {minutes:.0f} minutes; it ends", flush=True)
            with suppress(UserError):
                abandon(uri, now)
            os._exit(1)  # the main thread may wait for other devices, where no signal reaches it
        time.sleep(LOOK_SECONDS)


def _folder(uri: str) -> Path:
    """Where on this machine the job is, the same for every process of one start of it."""
    if not is_remote(uri):
        return Path(uri)
    name = hashlib.sha256(f"{uri} {os.environ.get('TORCHELASTIC_RUN_ID', '')}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"llm2llm-job-{os.getuid()}-{name}"


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m llm2llm.components.shared.training.torchrun_worker JOB", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR)
    raise SystemExit(main(sys.argv[1]))
