"""YAML that a person wrote, or that was damaged, or meant to do harm: read in bounded time and memory, or refused.

PyYAML's safe loader builds plain values only. It does not bound what comes out: a few lines of aliases stand for
billions of values, thousands of brackets exhaust the stack, and a number of thousands of digits is no YAMLError.
"""

from typing import Any

import yaml

MOST_BYTES = 1_000_000
"""Of a config. More is rows, a grammar or prompts, which have files of their own."""
MOST_VALUES = 1_000_000
"""Values with every alias written out."""
MOST_DEPTH = 100
MOST_BITS = 1024
"""Of a whole number: as many as a float reaches."""


def load_yaml(text: str, keys_once: bool = False) -> Any:
    """The value of a YAML text.

    Args:
        text: One document.
        keys_once: Whether to refuse a key that stands twice in one mapping: the last would win, and a budget in the
            first be lost.

    Raises:
        yaml.YAMLError: Not YAML, nested more than `MOST_DEPTH` deep, or more than `MOST_VALUES` values.
    """
    loader = _Bounded(text)
    loader.keys_once = keys_once
    try:
        return loader.get_single_data()
    except (ValueError, OverflowError) as problem:  # a number or a date that Python has not
        raise yaml.YAMLError(str(problem)) from None
    except RecursionError:
        raise yaml.YAMLError("nested too deep to be read") from None
    finally:
        loader.dispose()


class _Bounded(yaml.SafeLoader):
    keys_once = False
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"nested more than {MOST_DEPTH} deep", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if self.keys_once and isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _size(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"holds more than {MOST_VALUES:,} values, its aliases written out")
        return node


def _construct_int(loader: _Bounded, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if value.bit_length() > MOST_BITS:  # Python shows none of more than 4,300 digits
        raise yaml.constructor.ConstructorError(None, None, f"a number of {len(node.value):,} digits", node.start_mark)
    return value


_Bounded.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How many values a node stands for, its aliases written out; each node is counted once."""
    place = id(node)
    if place in known:
        if (size := known[place]) is None:
            raise yaml.composer.ComposerError(None, None, "holds an alias of itself", node.start_mark)
        return size
    known[place] = None
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_size(one, known) for one in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_size(key, known) + _size(value, known) for key, value in node.value)
    known[place] = size
    return size
