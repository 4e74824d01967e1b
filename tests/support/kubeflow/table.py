"""Prints what each shipped config costs on Kubeflow: python -m tests.support.kubeflow.table"""

from collections.abc import Iterable

from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.kubeflow.expected_size import expected_size
from llm2llm.pipelines.kubeflow.workflow_spec import Version
from tests.support.kubeflow.compiled import EVERYTHING, compiled_text

VERSIONS: tuple[Version, ...] = ("2.16", "2.17")

SHIPPED = ("quickstart", "quickstart-random", "snips", "trec", "gsm8k", "casehold", "sst2")


def row(title: str, name: str, overrides: Iterable[str] = ()) -> str:
    """A line of the table for a config."""
    overrides = list(overrides)
    config, text = load_config(name, overrides), compiled_text(name, tuple(overrides))
    before, size = (expected_size(config, text, version) for version in VERSIONS)
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
    ten = ["max_iterations=10"]
    print(row("quickstart", "quickstart", ten))
    print(row("the same without its control (`controls.steps: false`)", "quickstart", [*ten, "controls.steps=false"]))
    print(row("with three folds", "quickstart", [*ten, "filter_errors.folds=3"]))
    both, once = [*ten, "filter_errors.folds=3", "evaluate.shards=4"], "report.each_iteration=false"
    print(row("with three folds, four shards (`report.each_iteration: true`)", "quickstart", both))
    print(row("the same as it is compiled where that is not set, with one report", "quickstart", [*both, once]))
    everything = "three folds, four shards, a registry, replay rows and `only_if_new`"
    print(row(everything, "quickstart", [*EVERYTHING, "max_iterations=9"]))
    print(row("the same with one report", "quickstart", [*EVERYTHING, once]))
    print(row("quickstart with the profile `gke`", "quickstart", [*ten, "placement.profile=gke"]))


if __name__ == "__main__":
    main()
