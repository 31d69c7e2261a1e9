"""What the command line says: settings as they are typed, and what elman tells meanwhile."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from elman.cli.progress import Downloading
from elman.data import download


@dataclass(frozen=True)
class Typed:
    """What was typed, its command, and the command's options by the names of their settings."""

    words: list[str]
    command: str
    flags: dict[str, str]

    @classmethod
    def of(cls, words: list[str], whole: Any) -> Self:
        """What these words are to a command with others below it, the typed one among them."""
        path, command = [str(whole.name)], whole
        for word in words:
            below = getattr(command, "commands", {})
            if word in below:
                path, command = [*path, word], below[word]
        flags = {
            parameter.name.rstrip("_"): max(parameter.opts, key=len)
            for parameter in command.params
            if parameter.opts and parameter.opts[0].startswith("-")
        }
        return cls(words, " ".join(path), flags)

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


def spelled(text: str, flags: Mapping[str, str], bare: Mapping[str, str] | None = None) -> str:
    """A message of the library, which names settings, with them spelled as they are typed.

    Args:
        text: the message; a setting stands between backticks, at the start ("hidden must be …"),
            or is unmistakable, as ``top_k`` is.
        flags: the options by setting, for those between backticks.
        bare: the same, for the others.
    """
    text = re.sub(r"`(\w+)`", lambda named: flags.get(named[1], named[0]), text)
    for name, option in (bare or {}).items():
        text = re.sub(rf"^{name}(?= (?:must|is|has|needs)\b)", option, text)
        if "_" in name:
            text = re.sub(rf"(?<![\w./-]){name}(?!\w|[./=(-]\w)", option, text)
    return text


class _Listener(logging.Handler):
    """Prints what elman says of its doings on standard error, which a progress bar may redirect.

    What is said again, as where several models read the same text, is printed once.
    """

    def __init__(self, typed: Typed) -> None:
        super().__init__()
        self._typed = typed
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message as it is typed."""
        text = self._typed.spelled(record.getMessage())
        if text not in self._said:
            self._said.add(text)
            print(text, file=sys.stderr)


@contextmanager
def listening(typed: Typed) -> Iterator[None]:
    """Tell what takes long, as compiling and downloads do, and what runs slower than it might.

    Where elman is a library, its user decides.
    """
    logger, handler = logging.getLogger("elman"), _Listener(typed)
    before, show, bar = logger.level, warnings.showwarning, download.bar

    def tell(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if category.__name__ == "EngineWarning":  # one sentence; the line is nobody's here
            print(f"elman: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    warnings.showwarning, download.bar = tell, Downloading
    try:
        yield
    finally:
        warnings.showwarning, download.bar = show, bar
        logger.removeHandler(handler)
        logger.setLevel(before)


def usage(error: Any, typed: Typed) -> str:
    """What the command-line parser has against what was typed, in elman's words."""
    parameter: Any = getattr(error, "param", None)
    text = error.format_message().strip()
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
