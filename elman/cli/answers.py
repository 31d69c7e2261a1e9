"""Answers to many inputs: read from a file, written to one, and gone on with after a break."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elman.cli.figures import figure
from elman.cli.progress import Progress
from elman.errors import ElmanError
from elman.training.storage import to_json


class Answers:
    """A file of answers, a line of JSON for each input, in order.

    Until it is whole it is called ``NAME.part``, whose first line tells what it answers: the same
    command goes on with it.

    Args:
        path: the file.
        question: what is answered, and by what; a part that answers another is refused.
        seed: of the draws, where there are any; see :func:`seed_of`.

    Raises:
        ElmanError: there is such a file already, or a part of another.
    """

    def __init__(self, path: Path, question: Any, seed: int | None = None):
        self.path, self.part = path, path.with_name(path.name + ".part")
        if path.exists():
            raise ElmanError(f"{path} is there already: delete it, or name another with `output`.")
        if not path.absolute().parent.is_dir():
            raise ElmanError(f"no folder {str(path.parent)!r} for {path.name}: make it first.")
        content = {"answers to": zlib.crc32(to_json(question).encode()), "seed": seed}
        self._head = to_json(content) + "\n"
        self.done = self._kept()

    def _kept(self) -> int:
        """How many answers the part has; the line that was being written goes."""
        try:
            with self.part.open("rb") as file:
                head, *lines = file.read().split(b"\n")
        except FileNotFoundError:
            self.part.write_text(self._head, encoding="utf-8")
            return 0
        except OSError as error:
            raise ElmanError(f"{self.part} cannot be read ({error.strerror}).") from error
        whole = len(lines) > 1  # or else nothing was answered yet
        if head + b"\n" != self._head.encode() and not whole:
            self.part.write_text(self._head, encoding="utf-8")
            return 0
        if head + b"\n" != self._head.encode():
            raise ElmanError(
                f"{self.part} has answers to other inputs, or of another model: delete it, or name "
                "another file with `output`."
            )
        os.truncate(self.part, self.part.stat().st_size - len(lines[-1]))
        return len(lines) - 1

    def write(self, made: Iterator[dict[str, Any]], total: int) -> None:
        """Write the answers that are still missing, of so many in all, and tell how far it is.

        Raises:
            ElmanError: it was interrupted, or the disk is full.
        """
        begun, started, done = self.done, time.monotonic(), self.done
        try:
            with Progress(None, "inputs") as shown, self.part.open("a", encoding="utf-8") as file:
                for answer in made:
                    file.write(to_json(answer) + "\n")
                    done += 1
                    rate = (done - begun) / max(1e-9, time.monotonic() - started)
                    shown.update(0, done / total, {}, rate, (total - done) / rate)
        except KeyboardInterrupt:
            raise ElmanError(
                f"interrupted after {done:,} of {total:,} inputs, all kept in {self.part}: the "
                "same command goes on with them."
            ) from None
        except OSError as error:
            raise ElmanError(f"{self.part} cannot be written ({error.strerror}).") from error
        if done != total:
            raise AssertionError(f"{done} answers to {total} inputs")
        self._finish()

    def _finish(self) -> None:
        whole = self.path.with_name(self.path.name + ".whole")
        with self.part.open("rb") as file, whole.open("wb") as out:
            file.readline()
            while block := file.read(1 << 20):
                out.write(block)
        os.replace(whole, self.path)
        self.part.unlink()


def question(
    run: Path, others: Sequence[Path], verb: str, settings: Any, inputs: Sequence[Any]
) -> list[Any]:
    """What answers depend on: the models, what they are told, and what they are asked."""
    checksums = [zlib.crc32((path / "model.safetensors").read_bytes()) for path in (run, *others)]
    asked = 0
    for each in inputs:
        array = hasattr(each, "tobytes")
        content = each.tobytes() if array else repr(each).encode("utf-8", "replace")
        asked = zlib.crc32(content, asked)
    return [verb, checksums, settings, len(inputs), asked]


def seed_of(path: Path) -> int | None:
    """The seed of the answers that ``path`` has a part of; None where there is none."""
    try:
        with path.with_name(path.name + ".part").open(encoding="utf-8") as file:
            seed = json.loads(file.readline()).get("seed")
    except (OSError, ValueError, AttributeError):
        return None
    return seed if isinstance(seed, int) else None


def shown(value: Any) -> str:
    """A value of an answer as people read it."""
    if isinstance(value, dict):
        return " ".join(f"{name}={shown(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return figure(value) if not isinstance(value, str) else value
