"""Commands that are imported when they are asked for, and whose help is text of any width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

# What values are called, where the parser has names of its own; and bounds that say nothing.
_KINDS = {"str": "text", "float": "number", "int range": "int", "float range": "number"}
_RANGE = re.compile(r"; (\d+<=)?x<=\d+")


class Row(NamedTuple):
    """What is known of a command before it is imported.

    Attributes:
        module: the name of its module in ``elman.cli.commands``.
        help: what it does, in one line.
        below: the commands below it, where it has some that are imported one by one.
    """

    module: str
    help: str
    below: Mapping[str, Row] = {}


class Commands(Mapping[str, Any]):
    """Commands by name, each made when it is asked for.

    Args:
        panels: their rows by name, by the panels of the help.
        load: makes the command of a name and a row.
    """

    def __init__(self, panels: Mapping[str, Mapping[str, Row]], load: Callable[[str, Row], Any]):
        self.panels, self._load = panels, load
        self._rows = {name: row for rows in panels.values() for name, row in rows.items()}
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._load(name, self._rows[name])
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows  # which makes none

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Command(TyperCommand):
    """A command whose help shows its options by panels."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's name: options, and the arguments by name."""
        given = (p for p in self.get_params(ctx) if p.param_type_name == "argument")
        return ["[OPTIONS]", *map(_argument, given)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments and for each panel of options."""
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they stand."""
        _write_examples(self, formatter)


class Group(TyperGroup):
    """A command with others below it, which its help shows by panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the options, and one for each panel of commands."""
        _write_parameters(self, ctx, formatter)
        commands: Any = self.commands
        if isinstance(commands, Commands):
            panels = {panel: _helps(rows) for panel, rows in commands.panels.items()}
        else:
            panels = {"Commands": [(n, c.get_short_help_str(200)) for n, c in commands.items()]}
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they stand."""
        _write_examples(self, formatter)


def _helps(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    return [(name, row.help) for name, row in rows.items()]


def _write_parameters(command: Any, context: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record: tuple[str, str] = parameter.get_help_record(context)
        names, described = record
        panel = getattr(parameter, "rich_help_panel", None) or "Options"
        if parameter.param_type_name == "argument":
            panel, names, described = "Arguments", _argument(parameter), parameter.help
        else:
            for kind, shown in _KINDS.items():
                names = names.replace(f"<{kind}>", f"<{shown}>")
        sections.setdefault(panel, []).append((names, _RANGE.sub("", described)))
    for panel, records in sections.items():
        with formatter.section(panel):
            formatter.write_dl(records)


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _write_examples(command: Any, formatter: Any) -> None:
    if command.epilog:
        with formatter.section("Examples"):
            for line in command.epilog.splitlines():
                formatter.write(f"  {line}\n")


class App(typer.Typer):
    """A typer application with such commands."""

    def __init__(self, **options: Any):
        super().__init__(cls=Group, rich_markup_mode=None, add_completion=False, **options)

    def command(self, name: str | None = None, **options: Any) -> Any:
        """Add a command, as :meth:`typer.Typer.command` does."""
        return super().command(name, cls=Command, **options)
