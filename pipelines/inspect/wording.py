"""Renders the findings of `why` and `diff` for a terminal.

Rows and models' answers may hold anything: what is printed of them can neither move the cursor nor colour the screen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.report.verdict import count

CUT = 600  # characters of one text
INDENT = "    "


def why_text(facts: Mapping[str, Any]) -> str:
    """The facts of one row."""
    row = facts["row"]
    lines = [f"{facts['id']}  {_title(facts)}", *_quoted("question", row["question"])]
    for number, choice in enumerate(row["choices"]):
        lines.append(f"{INDENT}{chr(ord('A') + number)}. {printable(choice)}")
    if row["rationale"]:
        lines += _quoted("rationale", row["rationale"])
    lines += _quoted("answer", row["answer"])
    if row.get("source_id"):
        lines.append(f"  own id     {printable(row['source_id'])}")
    if row.get("source") and not row["parent_id"]:
        lines.append(f"  source     {printable(row['source'])}")
    lines += _rejections(facts["rejected"])
    if row["parent_id"] is None and facts["checks"]:
        lines.append(f"checks     {printable(', '.join(facts['checks']))}")
    if row["parent_id"] is not None:
        lines += _origin_lines(facts)
    if facts["history"]:
        lines += _history_lines(facts["history"], facts["what"])
    if facts["neighbours"]:
        lines.append("nearest rows of the last training set (ROUGE-L)")
        for one in facts["neighbours"]:
            origin = "generated" if one["parent_id"] else "seed"
            lines.append(f"{INDENT}{one['score']:.3f}  {one['id']}  {origin}: {_short(one['question'])}")
    if facts["collided"]:
        reasons = _counted(one["reason"] for one in facts["collided"])
        lines.append(f"kept away by it: {len(facts['collided']):,} generated rows ({reasons})")
        lines += [
            f"{INDENT}{one['id']}  iteration {one['iteration']}, {one['reason']}" for one in facts["collided"][:5]
        ]
    if facts["used"]:
        lines += _used_lines(facts["used"])
    return "\n".join(lines)


def printable(text: str) -> str:
    """A text without characters that a terminal obeys; line feeds and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _title(facts: Mapping[str, Any]) -> str:
    row, what = facts["row"], facts["what"]
    if what == "generated":
        return f"a generated row, kept in iteration {row['iteration']}"
    if what == "rejected":
        last = facts["rejected"][-1]
        return f"a rejected row: {last['reason']} ({last['stage']}, iteration {last['iteration']})"
    if what == "candidate":
        return f"a generated row of iteration {row['iteration']} that dedupe has not seen"
    return {"seed": "a seed row", "pool": "a row of the pool"}.get(what, f"a {what} row, kept from the training set")


def _rejections(rejected: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in rejected:
        score = "" if one["score"] is None else f", score {one['score']:.3f}"
        detail = f": {_short(one['detail'])}" if one["detail"] else ""
        lines.append(f"rejected   by {one['stage']} in iteration {one['iteration']}: {one['reason']}{score}{detail}")
        if one["neighbour_id"]:
            lines.append(f"  neighbour  {one['neighbour_id']}: {_short(one['neighbour'] or '')}")
    return lines


def _origin_lines(facts: Mapping[str, Any]) -> list[str]:
    row, seed, student, teacher = facts["row"], facts["seed"], facts["student"], facts["teacher"]
    lines = [f"seed       {row['parent_id']}" + ("" if seed else " (not in the run's seeds)")]
    if seed:
        lines += [f"  source     {printable(seed['source'])}"] if seed["source"] else []
        lines += _quoted("question", seed["question"]) + _quoted("answer", seed["answer"])
    which = "row" if facts["by_way_of"] else "seed"
    for depth, one in enumerate(facts["by_way_of"], 1):
        lines.append(f"by way of  {one['id']}  written in iteration {one['iteration']}, at depth {depth}")
        lines += _quoted("question", one["question"]) + _quoted("answer", one["answer"])
    if student:
        fold = "" if student["fold"] is None else f", fold {student['fold']}"
        lines.append(
            f"student    of iteration {student['iteration']}{fold}: {student['outcome']}, {student['difficulty']}"
        )
        lines += _quoted("answered", student["completion"])
        if student["model"]:
            digest = f"  sha256 {student['model']['sha256'][:12]}" if student["model"]["sha256"] else ""
            lines.append(f"  model      {student['model']['uri']}{digest}")
    else:
        lines.append(f"student    no answer of the iteration before is recorded for this {which}")
    call = teacher["call"]
    if call:
        tokens = "tokens not known"
        if call["input_tokens"] is not None and call["output_tokens"] is not None:
            tokens = f"{call['input_tokens']:,} tokens in, {call['output_tokens']:,} out"
        cost = "price not known" if call["usd"] is None else f"${call['usd']:.6f}"
        lines.append(f"teacher    {call['teacher']}, {printable(call['model']) or 'no model'}: {call['purpose']}, "
                     f"{call['outcome']}; {tokens}, {cost}")  # fmt: skip
        lines.append(f"  call       {call['key']}")
    if teacher["ledger"]:
        entry = teacher["ledger"]
        lines.append(f"  ledger     {entry['uri']}, paid by run {printable(entry['run'])} at {entry['written_at']}")
        for message in entry["messages"]:
            lines += _quoted(message["role"], message["content"])
        lines += _quoted("wrote", entry["text"] or entry["refusal"])
    else:
        lines.append(f"  ledger     {printable(teacher['note'])}")
    if teacher["other_calls"]:
        lines.append(
            f"  and        {_counted(one['purpose'] for one in teacher['other_calls'])} about the same {which}"
        )
    if facts["checks"]:
        lines.append(f"checks     {printable(', '.join(facts['checks']))}")
    if facts["confidence"] is not None:
        lines.append(f"confidence {facts['confidence']:.3f}")
    return lines


def _history_lines(history: Mapping[str, Any], what: str) -> list[str]:
    lines = ["answers"] if history["answers"] else ["answers    none are recorded"]
    for one in history["answers"]:
        fold = "" if one["fold"] is None else f", fold {one['fold']}"
        drawn = f", {one['samples_correct']} of {one['samples']} right" if one["samples"] > 1 else ""
        said = _short(one["completion"])
        lines.append(f"{INDENT}iteration {one['iteration']}{fold}: {one['outcome']}{drawn}: {said}")
    if what not in ("seed", "generated"):
        return lines
    for one in history["errors"]:
        hardness = "" if one["hardness"] is None else f", hardness {one['hardness']:.3f}"
        apart = ", set apart: its label is likely wrong" if one["suspect"] else ""
        lines.append(f"error      in iteration {one['iteration']}: {one['difficulty']}{hardness}{apart}")
    if history["retired"]:
        lines.append("retired    the teacher has failed on it again and again")
    calls = history["calls"]
    if calls["number"]:
        cost = "" if calls["usd"] is None else f", ${calls['usd']:.6f}"
        lines.append(f"calls      {calls['number']:,}: {calls['input_tokens']:,} tokens in, {calls['output_tokens']:,} "
                     f"out{cost}")  # fmt: skip
    lines.append(f"written    {count(len(history['written']), 'row')} kept")
    lines += [
        f"{INDENT}{one['id']}  iteration {one['iteration']}{_between(one)}: {_short(one['question'])}"
        for one in history["written"]
    ]
    if history["rejected"]:
        reasons = _counted(o["reason"] for o in history["rejected"])
        lines.append(f"rejected   {count(len(history['rejected']), 'row')} ({reasons})")
        lines += [
            f"{INDENT}{o['id']}  iteration {o['iteration']}, {o['stage']}: {o['reason']}" for o in history["rejected"]
        ]
    return lines


def _between(row: Mapping[str, Any]) -> str:
    return f", by way of {row['by_way_of']}" if row["by_way_of"] else ""


def _used_lines(used: Mapping[str, Any]) -> list[str]:
    sets = used["training_sets"]
    where = f"sets of iterations {', '.join(map(str, sets))}" if len(sets) > 1 else f"set of iteration {sets[0]}"
    lines = [f"used       {f'in the training {where}' if sets else 'in no training set'}"]
    if used["best_iteration"] is not None:
        verb = "was" if used["in_best"] else "was not"
        lines.append(f"{INDENT}the best student (iteration {used['best_iteration']}) {verb} trained on it")
    if used["version"]:
        verb = "was" if used["in_version"] else "was not"
        lines.append(f"{INDENT}{printable(str(used['version']))} ({used['outcome']}) {verb} trained on it")
    return lines


def diff_text(found: Mapping[str, Any]) -> str:
    """What differs between two runs."""
    one, other = found["runs"]
    lines = [f"A  {one}", f"B  {other}", ""]
    lines += _section("config", [f"{d['key']}: {_value(d['a'])} -> {_value(d['b'])}" for d in found["config"]])
    data = []
    for name, sides in found["data"].items():
        counts = " -> ".join("-" if side is None else f"{side['rows']:,} rows" for side in (sides["a"], sides["b"]))
        only = f"; {sides['only_a']:,} only in A, {sides['only_b']:,} only in B" if not sides["same"] else ", the same"
        data.append(f"{name}: {counts}{only}")
    lines += _section("data", data)
    lines += _section("code", [f"{d['key']}: {_value(d['a'])} -> {_value(d['b'])}" for d in found["code"]])
    lines.append("scores of the best iterations" + _best_of(found["best"]))
    for split, score in found["scores"].items():
        lines.append(f"{INDENT}{split:<11}{_score(score)}")
    if not found["scores"]:
        lines.append(f"{INDENT}none in both")
    rows = found["training_rows"]
    lines.append(
        f"training rows of the best iterations: {rows['both']:,} in both, {rows['only_a']:,} only in A, "
        f"{rows['only_b']:,} only in B"
    )
    for side in ("a", "b"):
        for example in rows[f"examples_{side}"]:
            lines.append(f"{INDENT}only {side.upper()}  {example['id']}  {_short(example['question'])}")
    return "\n".join(lines)


def _section(name: str, lines: Sequence[str]) -> list[str]:
    return [name, *(INDENT + printable(line) for line in lines)] if lines else [f"{name}: the same"]


def _best_of(best: Mapping[str, Any]) -> str:
    return f" (A: {best['a']}, B: {best['b']})"


def _score(score: Mapping[str, Any]) -> str:
    text = f"{score['a']:.1%} -> {score['b']:.1%}"
    if score["rows"] == 0:
        return f"{text}; no rows in common to compare on"
    return (
        f"{text}; on {score['rows']:,} common rows {score['common_a']:.1%} -> {score['common_b']:.1%}, "
        f"{100 * score['difference']:+.1f} points ({100 * score['low']:+.1f} to {100 * score['high']:+.1f}), "
        f"McNemar p = {score['p']:.2g}"
    )


def _value(value: Any) -> str:
    return "-" if value is None else _short(str(value)) or "''"


def _counted(words: Any) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in sorted(Counter(words).items()))


def _quoted(name: str, text: str) -> list[str]:
    """A name and a text beside it, its further lines below."""
    first, *rest = _cut(printable(text)).split("\n")
    return [f"  {name:<10} {first}", *(f"  {'':<10} {line}" for line in rest)]


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}... ({len(text) - CUT:,} more characters; --json has all)"


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= 100 else line[:97] + "..."
