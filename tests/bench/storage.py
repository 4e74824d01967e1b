"""A folder up to a real S3 server and down again, beside `aws s3 sync` on the same server and files; prints the ratios.

    python -m tests.bench.storage --mib 1024 --aws /path/to/a/venv/bin/aws

Each side has as many requests under way as it has by default. Ours also hashes every file, writes the manifest and
checks it after the way back. Needs what the tests marked `s3` need, and awscli in a venv of its own.
The server keeps everything in memory: at most 4 GiB.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llm2llm.components.shared.storage import delete_folder, download_folder, upload_folder
from tests.support.rgw import S3Server, free_ports


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="size of the folder")
    parser.add_argument("--files", type=int, default=200, help="number of files in it")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side goes each way, in turns")
    parser.add_argument("--aws", default="aws", help="the AWS command line")
    given = parser.parse_args()

    scratch = Path(tempfile.mkdtemp(prefix="bench-storage-"))
    server = S3Server(Path(tempfile.mkdtemp(prefix="s3-")), *free_ports(2))
    try:
        server.start()
        os.environ.update(server.environment())
        source = scratch / "source"
        source.mkdir()
        for number in range(given.files):
            (source / f"{number:04d}").write_bytes(random.Random(number).randbytes(given.mib * 2**20 // given.files))
        bucket = server.bucket()

        def aws(*arguments: str) -> None:
            subprocess.run([given.aws, "s3", "sync", "--only-show-errors", *map(str, arguments)], check=True)

        # The command takes a while to start; that is not its throughput.
        (scratch / "nothing").mkdir()
        start = min(seconds(lambda: aws(str(scratch / "nothing"), f"s3://{bucket}/nothing")) for _ in range(3))
        back = scratch / "back"
        taken: dict[str, list[float]] = {"ours up": [], "ours down": [], "aws up": [], "aws down": []}
        for number in range(given.rounds):
            for side in ("ours", "aws") if number % 2 else ("aws", "ours"):
                uri = f"s3://{bucket}/{side}"
                if side == "ours":
                    taken["ours up"].append(seconds(partial(upload_folder, source, uri)))
                    taken["ours down"].append(seconds(partial(download_folder, uri, back)))
                else:
                    taken["aws up"].append(seconds(partial(aws, str(source), uri)) - start)
                    taken["aws down"].append(seconds(partial(aws, uri, str(back))) - start)
                assert sorted(p.name for p in back.iterdir()) == sorted(p.name for p in source.iterdir())
                shutil.rmtree(back)
                delete_folder(uri)
        print(f"{given.mib} MiB in {given.files} files, {given.rounds} rounds in turns, medians")
        for way in ("up", "down"):
            ours, theirs = (statistics.median(taken[f"{side} {way}"]) for side in ("ours", "aws"))
            rates = f"ours {given.mib / ours:,.0f} MiB/s, aws s3 sync {given.mib / theirs:,.0f} MiB/s"
            print(f"{way:>5}: {rates}: {theirs / ours:.2f}x")
    finally:
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
