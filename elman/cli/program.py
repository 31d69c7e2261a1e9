"""The program: its commands, and the one call that runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer

from elman.cli.app import App, Commands, Group, Row
from elman.cli.commands import panels
from elman.cli.errors import exit_code
from elman.cli.interruption import importing, terminable
from elman.cli.messages import Typed, listening
from elman.version import __version__


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; see :func:`elman.cli.errors.exit_code`.

    Whatever goes wrong is told in one sentence on standard error. ``ELMAN_DEBUG=1`` adds the
    traceback.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    whole = command()
    typed = Typed.of(words, whole)
    try:
        # Not by calling whole, which takes Ctrl-C for an end like any other.
        with terminable(), listening(typed), whole.make_context("elman", words) as context:
            context.command.invoke(context)
        sys.stdout.flush()
        return 0
    except BaseException as error:
        code = exit_code(error, typed)
        if code is None:
            raise
        return code


def command() -> Any:
    """``elman`` as one command with others below it, none of which is imported yet."""
    app = App(
        name="elman",
        help="Recurrent neural networks: train, measure and use them.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_whole)
    whole: Any = typer.main.get_command(app)
    whole.commands = Commands(panels(), _load)
    return whole


def _load(name: str, row: Row) -> Any:
    if not row.below:
        verb = row.module == "verbs"  # of which there are many, each with jobs of its own
        return _made(
            name,
            row,
            lambda module, app: module.add_verb(app, name) if verb else module.add_to(app),
        )

    def load(job: str, below: Row) -> Any:
        return _made(job, below, lambda module, app: module.add_job(app, name, job))

    group = Group(name=name, help=row.help, no_args_is_help=True, rich_markup_mode=None)
    commands: Any = Commands({"Jobs": row.below}, load)
    group.commands = commands
    return group


def _made(name: str, row: Row, add: Callable[[ModuleType, App], None]) -> Any:
    """The command of that name among those that ``add`` takes from the row's module."""
    with importing():
        module = import_module(f"elman.cli.commands.{row.module}")
        app = App()
        app.callback()(lambda: None)  # a group, however few its commands are
        add(module, app)
    made: Any = typer.main.get_command(app)
    return made.commands[name]


def _say_version(asked: bool) -> None:
    if asked:
        print(f"elman {__version__}")
        raise typer.Exit


def _whole(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which elman this is.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None:
    pass
