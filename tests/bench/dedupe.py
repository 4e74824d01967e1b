"""Near copies: how fast, beside `rouge_score`, `datasketch` and `text-dedup`, and how time and memory grow.

    pip install datasketch    # peers are installed for the benchmark only; text-dedup, with --no-deps, if wanted
    python -m tests.bench.dedupe --output build/bench-dedupe

The rows are GSM8K's training questions, each with a third of its words changed, so that rows from one question are no
copies of one another; one row in ten is then replaced by another row with one to three words swapped, inserted, deleted
or replaced. Leaves `dedupe.md` (tables) and `dedupe.svg` (growth) in the output folder.

All times are of the processor, not of the clock: other work on the machine does not count, and threads do not help.
`rouge_score` is given a sample of the pairs and its time for all is calculated.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from rouge_score import rouge_scorer, tokenize

from llm2llm.components.dedupe.dedupe import dedupe
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.similarity import rouge_l_of_pairs, spaced, words
from llm2llm.components.shared.similarity.minhash import bands_for
from llm2llm.components.shared.similarity.near import near_pairs
from llm2llm.components.shared.similarity.sketches import sketch
from tests.bench.data import add_data, real_rows

THRESHOLD = 0.95
JACCARD = THRESHOLD / (2 - THRESHOLD)  # of the words, for the peers: that of two texts at the threshold, at least
SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000]

Found = set[tuple[int, int]]


def texts_of(data: Path | None, count: int) -> list[str]:
    """`count` texts of GSM8K's length, one in ten of them an edit of another."""
    questions = [row.question for row in real_rows("gsm8k", "train", data)]
    vocabulary = sorted({word for question in questions for word in question.split()})
    draw = random.Random(count)

    def edited(text: str, edits: int) -> str:
        some = text.split()
        for _ in range(edits):
            place = draw.randrange(len(some) - 1)
            match draw.choice("sird"):
                case "s":
                    some[place], some[place + 1] = some[place + 1], some[place]
                case "i":
                    some.insert(place, draw.choice(vocabulary))
                case "r":
                    some[place] = draw.choice(vocabulary)
                case "d" if len(some) > 8:
                    del some[place]
        return " ".join(some)

    def another(text: str) -> str:
        some = text.split()
        for place in draw.sample(range(len(some)), len(some) // 3):
            some[place] = draw.choice(vocabulary)
        return " ".join(some)

    texts = [another(questions[n % len(questions)]) for n in range(count)]
    for place in draw.sample(range(count), count // 10):
        texts[place] = edited(texts[draw.randrange(count)], draw.randint(1, 3))
    return texts


def timed(work: Callable[[], Found]) -> tuple[float, Found]:
    """(seconds of the processor, what was found)."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def ours(texts: list[str], bands: tuple[int, int]) -> Found:
    """The pairs that are near, by bands or one by one."""
    sketches = sketch(map(spaced, texts), bands)
    pairs = near_pairs(sketches, sketches, lambda i: words(texts[i]), lambda i: words(texts[i]), THRESHOLD)
    return {(j, i) for i, j in zip(pairs.queries.tolist(), pairs.texts.tolist(), strict=True)}


def verified(texts: list[str], proposed: Found) -> Found:
    """Those of the proposed pairs that are near."""
    pairs = sorted(proposed)
    scores = rouge_l_of_pairs([words(texts[i]) for i, _ in pairs], [words(texts[j]) for _, j in pairs])
    return {pair for pair, score in zip(pairs, scores.tolist(), strict=True) if score >= THRESHOLD}


def with_datasketch(texts: list[str], bands: tuple[int, int] | None = None) -> Found:
    """The pairs that datasketch proposes: single words, 128 hashes (its default), its choice of bands or another."""
    from datasketch import MinHash, MinHashLSH

    hashed = bands[0] * bands[1] if bands else 128
    index = MinHashLSH(threshold=JACCARD, num_perm=hashed, params=bands)
    hashes = MinHash.bulk([[word.encode() for word in text.lower().split()] for text in texts], num_perm=hashed)
    found: Found = set()
    for place, one in enumerate(hashes):
        found |= {(other, place) for other in index.query(one)}
        index.insert(place, one)
    return found


def with_text_dedup(texts: list[str]) -> Found:
    """The pairs in a bucket of text-dedup: single words, 256 hashes (its default), the faster of its hash functions."""
    from text_dedup.minhash import embed_func
    from text_dedup.utils import optimal_param, xxh3_32hash

    bands, rows = optimal_param(JACCARD, 256, 0.5, 0.5)
    draw, prime = np.random.RandomState(1), np.uint64((1 << 61) - 1)
    permutations = (draw.randint(1, prime, 256, dtype=np.uint64), draw.randint(0, prime, 256, dtype=np.uint64))
    buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(bands)]
    for place, text in enumerate(texts):
        made = embed_func(
            text, place, num_perm=256, ngram_size=1, min_length=1, permutations=permutations, hash_func=xxh3_32hash,
            hashranges=[(band * rows, (band + 1) * rows) for band in range(bands)], dtype=np.uint64,
            max_hash=np.uint64((1 << 32) - 1), modulo_prime=prime,
        )  # fmt: skip
        for bucket, key in zip(buckets, made["__signatures__"], strict=True):
            bucket[key].append(place)
    return {pair for band in buckets for places in band.values() for pair in combinations(places, 2)}


def beside_rouge_score(data: Path | None, lines: list[str]) -> None:
    """Every pair of 10,000 texts."""
    texts = texts_of(data, 10_000)
    seconds, found = timed(lambda: ours(texts, (0, 0)))
    tokens = [tokenize.tokenize(text, None) for text in texts]
    draw = random.Random(0)
    pairs = [(draw.randrange(len(texts)), draw.randrange(len(texts))) for _ in range(5_000)]
    began = time.process_time()
    for i, j in pairs:
        rouge_scorer._score_lcs(tokens[i], tokens[j])
    theirs = (time.process_time() - began) / len(pairs) * len(texts) * (len(texts) - 1) / 2
    # What was found is right: the pairs, as rouge_score sees them.
    scores = [rouge_scorer._score_lcs(tokens[i], tokens[j]).fmeasure for i, j in sorted(found)]
    assert min(scores) >= THRESHOLD - 1e-9
    lines += [
        f"| 10,000 rows, all pairs, {len(found):,} near | seconds | times ours |",
        "| --- | ---: | ---: |",
        f"| ours | {seconds:.2f} | 1 |",
        f"| rouge_score, on tokens, without its process pool (calculated from {len(pairs):,} pairs) | {theirs:,.0f} | "
        f"{theirs / seconds:,.0f} |",
    ]


def beside_minhash(data: Path | None, lines: list[str], count: int) -> None:
    """Recall and precision are against what comparing all pairs finds."""
    texts = texts_of(data, count)
    exact_seconds, near = timed(lambda: ours(texts, (0, 0)))
    seconds, found = timed(lambda: ours(texts, bands_for(THRESHOLD)))
    lines += [
        "",
        f"| {count:,} rows, {len(near):,} near pairs | seconds | times ours | recall | precision |",
        "| --- | ---: | ---: | ---: | ---: |",
        _line("ours, by MinHash", seconds, seconds, found, near),
        _line("ours, all pairs", exact_seconds, seconds, near, near),
    ]
    peers: dict[str, Callable[[list[str]], Found]] = {
        "datasketch": with_datasketch,
        "datasketch with our bands": lambda texts: with_datasketch(texts, bands_for(THRESHOLD)),
        "text-dedup": with_text_dedup,
    }
    for name, peer in peers.items():
        try:
            theirs, proposed = timed(lambda peer=peer: peer(texts))
            lines.append(_line(f"{name}, as proposed", theirs, seconds, proposed, near))
            more, checked = timed(lambda proposed=proposed: verified(texts, proposed))
            lines.append(_line(f"{name}, each pair compared by rapidfuzz", theirs + more, seconds, checked, near))
        except ImportError as missing:
            lines.append(f"| {name}: not installed ({missing.name}) | | | | |")


def _line(name: str, seconds: float, of_ours: float, found: Found, near: Found) -> str:
    recall, precision = len(found & near) / len(near), len(found & near) / max(1, len(found))
    return f"| {name} | {seconds:.1f} | {seconds / of_ours:.1f} | {recall:.2%} | {precision:.1%} |"


def peak_memory() -> float:
    """GiB of this process, on Linux; `getrusage` would count what the process that started it had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 2**20 if found else float("nan")


def one_size(data: Path | None, count: int) -> dict[str, float]:
    """The whole of `dedupe`, without rows to protect, in this process."""
    rows = [
        Example(id=content_id(text, [], None, "1"), question=text, answer="1", parent_id="seed")
        for text in texts_of(data, count)
    ]
    began, clock = time.process_time(), time.perf_counter()
    done = dedupe(rows, [], [], [], DedupeSettings(), 1)
    return {
        "rows": count,
        "cpu": time.process_time() - began,
        "wall": time.perf_counter() - clock,
        "gib": peak_memory(),
        "rejected": len(done.rejects),
        "recall": 1.0 if done.recall is None else done.recall,
    }


def growth(data: Path | None, sizes: list[int], lines: list[str], output: Path) -> None:
    """Each size in a process of its own."""
    lines += [
        "",
        "| rows, through `dedupe` | seconds | microseconds a row | peak memory | rejected | recall, measured |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    measured = []
    for count in sizes:
        command = [
            sys.executable,
            "-m",
            "tests.bench.dedupe",
            "--one",
            str(count),
            *(["--data", str(data)] if data else []),
        ]
        measured.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        one = measured[-1]
        lines.append(
            f"| {count:,} | {one['cpu']:.1f} | {one['cpu'] / count * 1e6:.0f} | {one['gib']:.2f} GiB | "
            f"{one['rejected']:,} | {one['recall']:.2%} |"
        )
        print(lines[-1], flush=True)
    by_rows = {one["rows"]: one["cpu"] / one["rows"] for one in measured}
    for count in sizes:
        if 10 * count in by_rows:
            lines.append(f"\n{count:,} to {10 * count:,} rows: {by_rows[10 * count] / by_rows[count]:.2f} times linear")
    (output / "dedupe.svg").write_text(growth_chart([(one["rows"], one["cpu"]) for one in measured]), encoding="utf-8")


def growth_chart(points: list[tuple[float, float]]) -> str:
    """Seconds against rows, both logarithmic, beside a line that grows with the rows."""
    left, top, width, height = 70, 30, 520, 300
    xs, ys = np.log10([p[0] for p in points]), np.log10([p[1] for p in points])
    linear = ys[0] + xs - xs[0]
    low_x, high_x = xs[0], max(xs[-1], xs[0] + 0.1)
    low_y, high_y = np.floor(min(ys.min(), linear.min())), np.ceil(max(ys.max(), linear.max()))

    def at(x: float, y: float) -> str:
        return (
            f"{left + (x - low_x) / (high_x - low_x) * width:.1f},{top + (high_y - y) / (high_y - low_y) * height:.1f}"
        )

    def text(x: float, y: float, label: str, anchor: str) -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{label}</text>'

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 390" font-family="sans-serif" font-size="13">',
        '<rect width="620" height="390" fill="white"/>',
        text(left, 18, "Processor seconds of dedupe against rows (dashed: linear)", "start"),
        f'<polyline points="{" ".join(map(at, xs, linear))}" fill="none" stroke="#999" stroke-dasharray="5 4"/>',
        f'<polyline points="{" ".join(map(at, xs, ys))}" fill="none" stroke="#0b62a4" stroke-width="2"/>',
    ]
    for x, y, (rows, _) in zip(xs, ys, points, strict=True):
        across, down = at(x, y).split(",")
        parts.append(f'<circle cx="{across}" cy="{down}" r="4" fill="#0b62a4"/>')
        parts.append(text(float(across), top + height + 24, f"{rows:,}", "middle"))
    for y in range(int(low_y), int(high_y) + 1):
        down = float(at(low_x, y).split(",")[1])
        parts.append(f'<path d="M{left} {down:.1f}h{width}" stroke="#eee"/>')
        parts.append(text(left - 8, down + 4, f"{10.0**y:g} s", "end"))
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--output", type=Path, default=Path("build/bench-dedupe"))
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="for the growth; none: not measured")
    parser.add_argument("--rows", type=int, default=100_000, help="beside the other MinHashes; 0: not measured")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_size(given.data, given.one)))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    beside_rouge_score(given.data, lines)
    if given.rows:
        beside_minhash(given.data, lines, given.rows)
    print("\n".join(lines), flush=True)
    if given.sizes:
        growth(given.data, sorted(given.sizes), lines, given.output)
    (given.output / "dedupe.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
