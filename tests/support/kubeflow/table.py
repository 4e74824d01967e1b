"""Prints what each shipped config costs on Kubeflow: python -m tests.support.kubeflow.table"""

from collections.abc import Iterable

from llm2llm.pipelines.kubeflow.workflow_size import workflow_size
from tests.support.kubeflow.compiled import EVERYTHING, compiled_config

SHIPPED = ("quickstart", "quickstart-random", "snips", "trec", "gsm8k", "casehold", "sst2")


def row(title: str, name: str, overrides: Iterable[str] = ()) -> str:
    """A line of the table for a config."""
    documents = compiled_config(name, overrides)
    before, size = (workflow_size(documents, version=version) for version in ("2.16", "2.17"))
    numbers = [
        f"{size.iterations}",
        f"{size.pods}",
        f"{size.pods_in_a_row}",
        f"{size.per_iteration / 1024:.0f}",
        f"{before.stored.total / 1024:.0f}",
        f"{size.stored.total / 1024:.0f}",
    ]
    return f"| {title} | {' | '.join(numbers)} |"


def main() -> None:
    """Prints the table as Markdown."""
    print(
        "| config | iterations | pods | pods in a row | KB an iteration | Workflow KB on 2.16 | Workflow KB on 2.17 |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in SHIPPED:
        print(row(name, name))
    print(row("quickstart, 10 iterations", "quickstart", ["max_iterations=10"]))
    print(row("everything", "quickstart", EVERYTHING))


if __name__ == "__main__":
    main()
