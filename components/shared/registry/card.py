"""The model card: a Hugging Face README with metadata, the same for the same student.

The promotion that brought a version to production is the pointer's to tell, as it can happen more than once; a card
that leaves the registry (`with_promotion`) takes it along.
"""

import html
import re
from typing import Any

import yaml

from llm2llm.components.shared.base.text import code_span
from llm2llm.components.shared.registry.production import Generation
from llm2llm.components.shared.registry.records import Accuracy, Record

SPLITS = ("validation", "test", "seeds")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATASET = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:[^#]*)?(#.*)?")
_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet)(\.gz)?$", re.IGNORECASE)


_KINDS = {"language_model": "text-generation", "classifier": "text-classification"}
"""What the Hub calls the task of each head."""
_USE = """## How to use it

It scores the labels and writes nothing: it is given the text alone, without a prompt around it.

```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER")
classify("a text", truncation=True, top_k=None)  # every label with its probability
```

"""


def render_card(record: Record) -> str:
    """The model card of a student."""
    parts = [
        "---",
        yaml.safe_dump(_metadata(record), sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {record.name}",
        "",
        f"A student for the task {code_span(record.task)} ({record.form.replace('_', ' ')}), fine-tuned from "
        f"{code_span(record.student)} with LLM2LLM: error-driven fine-tuning (Lee et al., Findings of ACL 2024). "
        f"It is the student of iteration {record.iteration}"
        + (", trained on the seeds alone." if record.iteration == 0 else ", after a teacher wrote new examples from "
           "what its predecessors got wrong."),
        "",
        *_meant_for(record),
        *(_USE.splitlines() if record.head == "classifier" else []),
        "## How good it is",
        "",
        *_scores(record),
        "",
        "## Data",
        "",
        *_data(record),
        "",
        "## Where it comes from",
        "",
        "| | |",
        "|---|---|",
        f"| Fine-tuned from | {code_span(record.student)} |",
        f"| Weights | {'a PEFT adapter; load it onto its base' if record.adapter else 'full'} |",
        f"| Iteration | {record.iteration} |",
        f"| Random seed | {record.random_seed} |",
        f"| llm2llm | {code_span(record.code)} |",
        f"| Config, SHA-256 of what decides | {code_span(record.config_digest)} |",
        "",
        "Which run made it, when it was promoted and why: `llm2llm registry show`.",
        "",
        "## Limits",
        "",
        *_limits(record),
        "",
    ]  # fmt: skip
    return "\n".join(parts)


def _meant_for(record: Record) -> list[str]:
    said = {"Intended use": record.said.intended_use, "Out of scope": record.said.out_of_scope}
    return [line for title, text in said.items() if text.strip() for line in (f"## {title}", "", _prose(text), "")]


def _prose(text: str) -> str:
    """A person's text as paragraphs: what would be HTML, a heading or a rule is shown as it stands."""
    lines = html.escape(text.strip(), quote=False).splitlines()
    return "\n".join(re.sub(r"^(\s*)([#=~`-])", r"\1\\\2", line) for line in lines)


def with_promotion(card: str, version: str, generation: Generation) -> str:
    """A card with what its version's promotion has to say, for a copy outside the registry."""
    verdict = generation.verdict or {}
    lines = [
        "## Promotion",
        "",
        f"Version {code_span(version)}, in production since {generation.at}"
        + (f", from run {code_span(generation.run)}" if generation.run else "")
        + (f", in place of {code_span(generation.previous)}" if generation.previous else "")
        + ".",
    ]
    if verdict.get("reason"):
        lines += ["", str(verdict["reason"])]
    if verdict.get("checks"):
        lines += ["", *(f"- {check['text']}" for check in verdict["checks"])]
    return card.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def _metadata(record: Record) -> dict[str, Any]:
    # A line of three dashes would end the metadata.
    task = " ".join(record.task.split()) or "-"
    values: dict[str, Any] = {}
    if record.said.license:
        values["license"] = record.said.license
    if record.said.language:
        values["language"] = list(record.said.language)
    if is_hub_name(record.student):
        values["base_model"] = record.student
    values["library_name"] = "peft" if record.adapter else "transformers"
    values["pipeline_tag"] = _KINDS[record.head]
    values["tags"] = ["llm2llm", "error-driven-fine-tuning", *([task] if task != "llm2llm" else [])]
    if names := sorted({found[1] for source in record.data.values() if (found := _hub_dataset(source))}):
        values["datasets"] = names
    values["metrics"] = ["accuracy"]
    results = [
        {
            "task": {"type": _KINDS[record.head], "name": record.form.replace("_", " ")},
            "dataset": {
                "name": task,
                "type": found[1] if (found := _hub_dataset(record.data.get(split, ""))) else task,
                "split": split,
            },
            "metrics": [{"type": "accuracy", "value": round(score.accuracy, 4), "name": f"Accuracy ({split})"}],
        }
        for split in ("test", "validation")
        if (score := record.accuracy.get(split))
    ]
    if results:
        values["model-index"] = [{"name": record.name, "results": results}]
    return values


def is_hub_name(student: str) -> bool:
    """Whether a student is a name on the Hugging Face Hub, and not a folder or `scratch`."""
    return student != "scratch" and _HUB_NAME.fullmatch(student) is not None


def _hub_dataset(source: str) -> re.Match[str] | None:
    return None if _FILE.search(source.partition("#")[0]) else _DATASET.fullmatch(source)


def _scores(record: Record) -> list[str]:
    found = [split for split in SPLITS if split in record.accuracy]
    if not found:
        return ["Nobody has asked it anything."]
    lines = [
        "| Rows | Accuracy | 95% interval | Questions | Unreadable answers | Iteration 0 |",
        "|---|---|---|---|---|---|",
    ]
    for split in found:
        score = record.accuracy[split]
        lines.append(
            f"| {split} | {score.accuracy:.1%} | {score.low:.1%} to {score.high:.1%} | {score.n:,} | "
            f"{score.unparseable:,} | {_share(record.baseline.get(split))} |"
        )
    if (at := record.threshold) and at.recall is not None:
        lines += [
            "",
            f"Flag a row as {code_span(at.label)} when that label's probability is at least {at.threshold:.4f}: on "
            f"validation this finds {at.recall:.1%} of them and flags {at.false_positive_rate or 0:.1%} of the others, "
            f"of at most {at.max_false_positive_rate:.1%} that were allowed. It was chosen on these rows.",
        ]
    return [
        *lines,
        "",
        "Intervals are Wilson's. The iteration was chosen by the validation rows, which flatters their figure; the "
        "test rows decided nothing. It was trained on the seeds, so their figure says how well it has learnt them.",
    ]


def _share(score: Accuracy | None) -> str:
    return f"{score.accuracy:.1%}" if score else ""


def _data(record: Record) -> list[str]:
    written = record.training.generated
    lines = [
        "| Rows | Number | From | SHA-256 of their ids |",
        "|---|---|---|---|",
        f"| seeds | {record.seeds.n:,} | {_source(record, 'seeds')} | {code_span(record.seeds.digest)} |",
        f"| training | {record.training.n:,} | {record.training.n - written:,} seeds, {written:,} generated | "
        f"{code_span(record.training.digest)} |",
        f"| validation | {record.validation.n:,} | {_source(record, 'validation')} | "
        f"{code_span(record.validation.digest)} |",
    ]
    if record.teaching:
        lines += ["", "Who wrote and checked the generated rows:", ""]
        lines += [
            f"- {code_span(one.model or one.teacher)} ({one.teacher}): {one.calls:,} call{'s' * (one.calls != 1)}, "
            f"{one.input_tokens:,} tokens in"
            f", {one.output_tokens:,} out" + (f", {one.usd:,.2f} USD" if one.usd is not None else "")
            for one in record.teaching
        ]
    return lines


def _source(record: Record, split: str) -> str:
    source = record.data.get(split, "")
    return (
        code_span(source.rsplit("/", 1)[-1] if source.startswith("/") else source) if source else "split off the seeds"
    )


def _limits(record: Record) -> list[str]:
    lines = [
        f"- It was trained for one task, {code_span(record.task)}, with one form of "
        f"{'text' if record.head == 'classifier' else 'prompt'}; nothing is known of others.",
        f"- The {'' if record.said.license else 'licence and the '}limits of the model that it was fine-tuned from are "
        "its own.",
    ]
    if record.training.generated:
        share = record.training.generated / record.training.n
        lines.append(
            f"- {share:.0%} of its training rows were written by a model, and can carry that model's errors and biases."
        )
    if "test" not in record.accuracy:
        lines.append("- There was no test split: every figure above is of rows that had a say in what it became.")
    return lines
