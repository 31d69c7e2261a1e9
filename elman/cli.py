"""The command line: ``elman``."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from elman import entry
from elman.allocation import is_out_of_memory
from elman.cells.lines import reason
from elman.cells.registry import own_line
from elman.commands import about, bench, gradients, jobs, learning, powers
from elman.errors import ElmanError, InputError

app = typer.Typer(
    name="elman",
    help="Recurrent neural networks: train, measure and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
jobs.add_to(app)
gradients.add_to(app)
about.add_to(app)
bench.add_to(app)
learning.add_to(app)
powers.add_to(app)

_PANELS = {
    "Models": ("train", "evaluate", "generate", "compare"),
    "What recurrences do": ("cells", "gradients", "inspect", "compare-learning", "powers"),
    "This machine": ("data", "bench", "doctor"),
}
"""The commands as ``elman --help`` shows them, by panel."""


def command() -> Any:
    """The command line as one command with others below it."""
    whole: Any = typer.main.get_command(app)
    known = whole.commands
    whole.commands = {name: known[name] for names in _PANELS.values() for name in names}
    for panel, names in _PANELS.items():
        for name in names:
            known[name].rich_help_panel = panel
    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; see :func:`elman.entry.main`."""
    entry.main(arguments)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Whatever goes wrong is told in one sentence on standard error. ``ELMAN_DEBUG=1`` adds the
    traceback.

    Returns:
        0, done; 1, failed or interrupted: a file, a folder or this machine stands in the way;
        2, what was typed cannot be used: a command, an option, a value, a name.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # Not by calling app, which takes Ctrl-C for an end like any other.
        with _told(), command().make_context("elman", given) as context:
            context.command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in `elman generate … | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        return _tell(error, str(error), 2)
    except ElmanError as error:
        return _tell(error, str(error), 1)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _tell(error, "interrupted.", 1)
    except OSError as error:
        if own_line(error):
            return _fault(error)
        where = f"{error.filename}: " if error.filename else ""
        return _tell(error, f"{where}{error.strerror or error}.", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # what the command-line parser raises
            return _tell(error, _usage(error), 2)
        return _fault(error)
    except BaseException as error:
        if not own_line(error):  # a cell's file may raise what it likes, SystemExit too
            raise
        return _fault(error)


class _Told(logging.Handler):
    """Prints what elman says of its doings on standard error, which a progress bar may redirect."""

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        print(record.getMessage(), file=sys.stderr)


@contextmanager
def _told() -> Iterator[None]:
    """Tell what takes long, as compiling does, and what runs slower than it might.

    Where elman is a library, its user decides.
    """
    logger, handler = logging.getLogger("elman"), _Told()
    before, show = logger.level, warnings.showwarning

    def tell(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if category.__name__ == "EngineWarning":  # one sentence; the line is nobody's here
            print(f"elman: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    warnings.showwarning = tell
    try:
        yield
    finally:
        warnings.showwarning = show
        logger.removeHandler(handler)
        logger.setLevel(before)


def _fault(error: BaseException) -> int:
    """Say whose fault it is that nothing else has told of: memory's, the user's, elman's."""
    if is_out_of_memory(error):
        return _tell(error, "there is not enough memory: lower --hidden, --batch or --steps.", 1)
    if line := own_line(error):
        return _tell(error, f"{line} failed ({reason(error)}): mend that line.", 2)
    return _tell(
        error, f"this is a fault in elman ({reason(error)}); ELMAN_DEBUG=1 shows where.", 1
    )


def _tell(error: BaseException, text: str, code: int) -> int:
    if os.environ.get("ELMAN_DEBUG"):
        traceback.print_exception(error)
    print(f"elman: {text}", file=sys.stderr)
    return code


def _usage(error: Exception) -> str:
    text = error.format_message().strip()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "elman"
    return f"{text or 'no command was given.'} See {command} --help."
