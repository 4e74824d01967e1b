"""Who may import whom: a module imports from the layers below its own, and none needs itself to be imported.

For the layers imports inside functions count as well: they are dependencies, only later ones.
"""

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "llm2llm"

LAYERS = (
    {"pipelines.__main__"},
    {"pipelines.cli"},
    # Many runs, on this machine or in a cluster.
    {"pipelines.sweep"},
    # Both start from what Kubeflow gets: `llm2llm run` compiles the pipeline, `preflight` reads its placement.
    {"pipelines.local", "pipelines.checks"},
    {"pipelines.kubeflow"},
    # Reads what a run has left, and is read from by all that show it.
    {"pipelines.inspect"},
    {"pipelines.loop"},
    {"pipelines.config"},
    {"components.<stage>"},
    {"components.shared.stage"},
    {"components.shared.inference", "components.shared.training", "components.shared.registry"},
    {"components.shared.judge"},
    {"components.shared.llm"},
    {"components.shared.models", "components.shared.leakage"},
    {"components.shared.similarity", "components.shared.lineage"},
    # Below lineage, which hashes what a config names as its sources, as they are found.
    {"components.shared.ingest"},
    {"components.shared.tasks"},
    {"components.shared.data"},
    {"components.shared.storage"},
    {"components.shared.base"},
    # Data, and nothing imported: what is known of the stages without importing them.
    {"components.stages", "components.images"},
    {"components", "components.shared", "pipelines"},
)
"""From the top to the bottom, by folder or module below `llm2llm`. Those of one layer do not import each other."""

KFP_IN = ("components.*.component", "pipelines.kubeflow.*", "pipelines.local.run", "pipelines.local.kfp_cache",
          "pipelines.cli.*")  # fmt: skip
"""Where Kubeflow's SDK is imported: the rest of the code runs without it."""

Edges = Mapping[str, Iterable[str]]


def modules_of(root: Path) -> dict[str, str]:
    """The source of every module of `components/` and `pipelines/`, by its name below `llm2llm`."""
    found = {}
    for top in ("components", "pipelines"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imports_of(
    sources: Mapping[str, str], only_when_imported: bool = False
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """What each module imports of ours, by name below `llm2llm`, and of other packages, by their first name.

    `only_when_imported` leaves out what is imported later, in functions, or for the type checker alone.
    """
    ours: dict[str, set[str]] = {name: set() for name in sources}
    others: dict[str, set[str]] = {name: set() for name in sources}
    for name, source in sources.items():
        tree = ast.parse(source)
        for node in _run_at_import(tree) if only_when_imported else ast.walk(tree):
            for target in _targets(node, sources):
                if target == PACKAGE or target.startswith(f"{PACKAGE}."):
                    ours[name].add(target.removeprefix(PACKAGE).lstrip("."))
                else:
                    others[name].add(target.split(".")[0])
    return ours, others


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_later and not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _run_at_import(child)


def _targets(node: ast.AST, sources: Mapping[str, str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports name their module in full"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        return [one if one.removeprefix(f"{PACKAGE}.") in sources else str(node.module) for one in whole]
    return []


def room_of(module: str) -> str:
    """The folder or module of `LAYERS` that a module belongs to."""
    rooms = {room for layer in LAYERS for room in layer}
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (room := ".".join(parts[:end])) in rooms and (end == len(parts) or end > 1) and room != "components.shared":
            return room
    if parts[0] == "components" and len(parts) > 1 and parts[1] != "shared":
        return "components.<stage>"
    return module


def wrong_imports(ours: Edges) -> dict[tuple[str, str], str]:
    """(importing, imported) of what goes against the layers, and in which way."""
    rank = {room: len(LAYERS) - number for number, layer in enumerate(LAYERS) for room in layer}
    wrong = {}
    for module, imported in ours.items():
        room = room_of(module)
        if room not in rank:
            wrong[module, ""] = f"{room} is in no layer: give it a place in LAYERS"
            continue
        for target in sorted(imported):
            other = room_of(target)
            if room == other == "components.<stage>":
                if module.split(".")[1] != target.split(".")[1]:
                    wrong[module, target] = "a stage imports another; what both need belongs to shared"
            elif room != other and rank.get(other, 0) >= rank[room]:
                wrong[module, target] = f"{other} is not below {room}"
    return wrong


def circles(ours: Edges) -> list[list[str]]:
    """The groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(ours.get(module, ())):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in ours.get(module, ()):
                found.append(sorted(group))

    for module in sorted(ours):
        if module not in index:
            visit(module)
    return found


def where_kfp_is_not_allowed(others: Edges) -> list[str]:
    return [
        module
        for module, packages in others.items()
        if "kfp" in packages and not any(fnmatch(module, allowed) for allowed in KFP_IN)
    ]


SOURCES = modules_of(ROOT)


def test_every_module_imports_from_the_layers_below() -> None:
    ours, _ = imports_of(SOURCES)
    assert wrong_imports(ours) == {}


def test_no_modules_need_each_other_to_be_imported() -> None:
    ours, _ = imports_of(SOURCES, only_when_imported=True)
    assert circles(ours) == []


def test_kfp_is_imported_by_components_and_runners_alone() -> None:
    _, others = imports_of(SOURCES)
    assert where_kfp_is_not_allowed(others) == []


@pytest.mark.parametrize(
    ("module", "line", "imported"),
    [
        ("components.shared.base.text", "from llm2llm.components.shared.data.schemas import Example", "shared.data"),
        ("components.shared.data.parquet", "import llm2llm.components.shared.lineage.records", "shared.lineage"),
        ("components.shared.data.parquet", "def f():\n    from llm2llm.components.shared import stage", "shared.stage"),
        ("components.train.train", "from llm2llm.components.prepare.prepare import prepare", "components.prepare"),
        ("components.shared.judge.judge", "from llm2llm.components.report import report", "components.report"),
        ("components.prepare.prepare", "from llm2llm.pipelines.config import Config", "pipelines.config"),
        ("components.shared.leakage.ngrams", "import llm2llm.components.shared.models.load", "shared.models"),
        ("pipelines.config.config", "def f():\n    import llm2llm.pipelines.kubeflow.compile", "pipelines.kubeflow"),
        ("pipelines.inspect.why", "from llm2llm.pipelines.kubeflow.compile import compile_config", "kubeflow"),
    ],
)
def test_a_planted_wrong_import_is_found(module: str, line: str, imported: str) -> None:
    before, _ = imports_of(SOURCES)
    assert module in SOURCES
    planted, _ = imports_of({**SOURCES, module: f"{SOURCES[module]}\n{line}\n"})
    ((found, target),) = wrong_imports(planted).keys() - wrong_imports(before).keys()
    assert found == module
    assert imported in target


def test_a_planted_circle_is_found() -> None:
    module = "components.shared.data.schemas"
    line = "from llm2llm.components.shared.data.parquet import read_rows\n"
    ours, _ = imports_of({**SOURCES, module: f"{SOURCES[module]}\n{line}"}, only_when_imported=True)
    (circle,) = circles(ours)
    assert {module, "components.shared.data.parquet"} <= set(circle)


@pytest.mark.parametrize("module", ["components.train.train", "components.shared.stage", "pipelines.config.config"])
def test_a_planted_import_of_kfp_is_found(module: str) -> None:
    _, others = imports_of({**SOURCES, module: f"{SOURCES[module]}\ndef f():\n    from kfp import dsl\n"})
    assert where_kfp_is_not_allowed(others) == [module]


def test_a_new_room_needs_a_place() -> None:
    ours, _ = imports_of({**SOURCES, "components.shared.novelty.thing": "", "pipelines.attic": ""})
    assert {("components.shared.novelty.thing", ""), ("pipelines.attic", "")} <= wrong_imports(ours).keys()


def test_every_package_is_installed() -> None:
    """The list is kept by hand: a package that is not in it is missing from the images."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {
        path.parent.relative_to(ROOT) for top in ("components", "pipelines") for path in ROOT.glob(f"{top}/**/*.py")
    }
    assert sorted(listed) == sorted(".".join((PACKAGE, *folder.parts)) for folder in there)


def test_relative_imports_are_not_used() -> None:
    with pytest.raises(AssertionError, match="in full"):
        imports_of({"components.train.train": "from . import component"})
