"""Command groups: panels in the help, a suggestion for a mistyped command, examples, and old names that still work."""

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import click

from llm2llm.components.shared.base.errors import did_you_mean


class NamedGroup(click.Group):
    """Suggests the nearest command for a mistyped one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = [
                name for name in self.list_commands(ctx) if not getattr(self.get_command(ctx, name), "hidden", False)
            ]
            ctx.fail(f"no command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


class PanelGroup(NamedGroup):
    """Shows its commands in panels; `panels` has the names of each in order, and what none names is shown last."""

    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                shown[name] = command
        placed = {name for names in self.panels.values() for name in names}
        rest = tuple(name for name in shown if name not in placed)
        for title, names in [*self.panels.items(), ("Other", rest)]:
            lines = [(name, shown[name].get_short_help_str(limit=90)) for name in names if name in shown]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


def add_examples(group: click.Group, examples: Mapping[str, Iterable[str]]) -> None:
    """Puts examples below the help of commands.

    Args:
        group: The whole command line.
        examples: The words of a command, such as `schedule set`, to lines without `llm2llm`.
    """
    for words, lines in examples.items():
        command: click.Command = group
        for word in words.split():
            assert isinstance(command, click.Group), words
            command = command.commands[word]
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  llm2llm {line}" for line in lines)


def old_name(command: click.Command, name: str, new: str) -> click.Command:
    """A command under the name that it had before: hidden, and it says what to write instead."""
    found = copy.copy(command)
    found.name, found.hidden, found.deprecated = name, True, f"use `llm2llm {new}`"
    return found
