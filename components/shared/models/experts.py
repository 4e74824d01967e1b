"""Mixtures of experts: whether a student is one, and which of its weights are the experts'."""

from typing import Any


def experts_of(model: Any) -> dict[str, Any]:
    """The modules that hold experts, by name; none for a dense student.

    transformers calls them `experts`, or by a class such as `GraniteMoeParallelExperts`. Of nested ones the outermost.
    """
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        holds = name.rpartition(".")[2] == "experts" or type(module).__name__.endswith("Experts")
        if holds and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found
