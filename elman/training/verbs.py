"""What a trained model does, and one step of it, as whatever runs it calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from elman.training.settings import Settings


class Signature(NamedTuple):
    """One step of a trained model, as whatever runs it outside of Python calls it.

    Attributes:
        module: from the inputs and the states, in this order, to the outputs and the new states.
        inputs: an example of each input, by name.
        states: the state before the first step, by name.
        outputs: what the outputs are called.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    states: dict[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """Something that a trained model does: the command line makes a command of it.

    Attributes:
        name: of the command, such as ``generate``.
        help: what it does, in one line.
        example: a command to copy, the arguments behind ``elman NAME``; another on the next line.
        run: from the job, the inputs and the settings to what it makes, piece by piece: texts,
            which are written as they come, or mappings: their ``text``, or a line each.
        reads: what its inputs are, such as "Sentences"; empty where it reads none.
        each: whether it makes one mapping for each input, in their order: then the inputs may come
            from a file, the answers go to one, and what was interrupted goes on.
        together: whether several runs can answer together; see :attr:`Task.companions`.
        show: an answer as people read it; by default its ``text``, or its values with tabs between.
        asks: what stands before each line that is typed, where it answers one after the other at a
            terminal, such as "> ".
        Settings: what it can be told; by default nothing.
    """

    name: str
    help: str
    example: str
    run: Callable[[Any, Iterable[Any], Any], Iterator[Any]]
    reads: str = ""
    each: bool = False
    together: bool = False
    show: Callable[[dict[str, Any]], str] | None = None
    asks: str = ""
    Settings: type[Settings] = Settings
