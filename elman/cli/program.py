"""The program: its commands, errors and exit codes."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from elman import __version__
from elman.allocation import is_out_of_memory
from elman.cells.lines import reason
from elman.cells.registry import own_line
from elman.cli.commands import about, bench, gradients, jobs, learning, powers, verbs
from elman.cli.options import flags_of, spelled, typed_command
from elman.errors import ElmanError, InputError
from elman.tasks import TASKS

app = typer.Typer(
    name="elman",
    help="Recurrent neural networks: train, measure and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"elman {__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which elman this is.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None:
    pass


jobs.add_to(app)
verbs.add_to(app)
gradients.add_to(app)
about.add_to(app)
bench.add_to(app)
learning.add_to(app)
powers.add_to(app)

_PANELS = {
    "Models": ("train", "evaluate", *verbs.by_name(TASKS.values()), "compare"),
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


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Whatever goes wrong is told in one sentence on standard error. ``ELMAN_DEBUG=1`` adds the
    traceback.

    Returns:
        0, done; 1, failed or interrupted: a file, a folder or this machine stands in the way;
        2, what was typed cannot be used: a command, an option, a value, a name.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    whole = command()
    path, typed_in = typed_command(whole, given)
    typed = _Typed(given, path, flags_of(typed_in))
    try:
        # Not by calling app, which takes Ctrl-C for an end like any other.
        with _told(typed), whole.make_context("elman", given) as context:
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
        return _tell(error, typed.spelled(str(error), everywhere=True), 2)
    except ElmanError as error:
        return _tell(error, typed.spelled(str(error)), 1)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _tell(error, "interrupted.", 1)
    except OSError as error:
        if own_line(error):
            return _fault(error)
        where = f"{error.filename}: " if error.filename else ""
        return _tell(error, f"{where}{error.strerror or error}.", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # what the command-line parser raises
            return _tell(error, _usage(error, typed), 2)
        return _fault(error)
    except BaseException as error:
        if not own_line(error):  # a cell's file may raise what it likes, SystemExit too
            raise
        return _fault(error)


@dataclass(frozen=True)
class _Typed:
    """What was typed, its command, and the command's options by the names of their settings."""

    words: list[str]
    command: str
    flags: dict[str, str]

    def spelled(self, text: str, everywhere: bool = False) -> str:
        """A message of the library with settings as they are typed.

        With ``everywhere``, those too that the message does not mark, unless they may come from a
        recipe, in which they have no dashes.
        """
        given = {word.partition("=")[0] for word in self.words}
        bare = {n: f for n, f in self.flags.items() if f in given or "--recipe" not in given}
        return spelled(text, self.flags, bare if everywhere else None)

    def value(self, option: str) -> str | None:
        """The text that an option was given."""
        for k, word in enumerate(self.words):
            if word == option and option:
                return self.words[k + 1] if k + 1 < len(self.words) else None
            if option and word.startswith(f"{option}="):
                return word.partition("=")[2]
        return None


class _Told(logging.Handler):
    """Prints what elman says of its doings on standard error, which a progress bar may redirect.

    What is said again, as where several models read the same text, is printed once.
    """

    def __init__(self, typed: _Typed) -> None:
        super().__init__()
        self._typed = typed
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        text = self._typed.spelled(record.getMessage())
        if text not in self._said:
            self._said.add(text)
            print(text, file=sys.stderr)


@contextmanager
def _told(typed: _Typed) -> Iterator[None]:
    """Tell what takes long, as compiling does, and what runs slower than it might.

    Where elman is a library, its user decides.
    """
    logger, handler = logging.getLogger("elman"), _Told(typed)
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


def _usage(error: Any, typed: _Typed) -> str:
    parameter: Any = getattr(error, "param", None)
    text = error.format_message().strip() or "no command was given."
    options = getattr(parameter, "opts", None) or [""]
    value = typed.value(max(options, key=len))
    # The parser says it in more words, which differ from version to version.
    what = re.search(r"valid (integer|number|float)", text)
    if value is not None and what is not None:
        kind = "a whole number" if what[1] == "integer" else "a number"
        text = f"{max(options, key=len)} must be {kind}, received {value!r}."
    described = getattr(parameter, "help", None)
    if type(error).__name__ == "MissingParameter" and described:
        name = max(options, key=len) if options[0][:1] == "-" else parameter.name.upper()
        text = f"{name} was not given: {described[0].lower()}{described[1:]}"
    end = "" if text[-1] in ".?!" else "."
    return f"{text}{end} See {typed.command} --help."
