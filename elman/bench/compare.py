"""Measure: one comparison after the other, with each number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from elman.allocation import keep_freed_memory
from elman.bench.cells import CELLS
from elman.bench.rows import Row, Shape
from elman.bench.works import PEERS, WORKS, Comparison, check_installed, possible
from elman.errors import InputError

Told = Callable[[int, int, Comparison], None]
"""Is told before each comparison how many are done, how many there are, and what comes."""


def comparisons(
    works: Sequence[str] = ("train",),
    cells: Sequence[str] = ("lstm", "gru", "rnn"),
    shapes: Iterable[tuple[int, int, int, int, int]] | None = None,
    peers: Sequence[str] = ("torch.nn",),
) -> list[Comparison]:
    """What these names ask for; combinations that cannot be are left out.

    Args:
        works: of :data:`elman.bench.WORKS`.
        cells: of :data:`elman.bench.CELLS`.
        shapes: (input, hidden, layers, batch, steps) of each; a work's own if not given. A step
            and writing have a batch of 1; jobs have the vocabulary as their input.
        peers: of ``torch.nn``, ``loop`` (the step in PyTorch, called in a Python loop),
            ``torch.compile`` (of that loop; it takes minutes to compile), ``onnxruntime``
            (``forward`` and ``step`` of LSTM, GRU and RNN), ``jax`` (``lax.scan``; ``forward`` and
            ``train``).

    Raises:
        InputError: one of the names is not known, a size is not positive, a peer is not installed,
            or no combination can be.
    """
    for label, given, known in (
        ("work", works, WORKS),
        ("cell", cells, CELLS),
        ("peer", peers, PEERS),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"unknown {label} {name!r}: expected one of {', '.join(known)}.")
    for peer in peers:
        check_installed(peer)
    chosen = None if shapes is None else [_shape(sizes) for sizes in shapes]
    found = []
    for work in works:
        known_work = WORKS[work]
        for shape in chosen or known_work.shapes:
            for cell in cells:
                fitting = [p for p in peers if possible(work, cell, p)]
                if not fitting and known_work.fixed is not None:
                    fitting = [known_work.fixed] if possible(work, cell, known_work.fixed) else []
                found += [Comparison(work, cell, shape, peer) for peer in fitting]
    if not found:
        able = "; ".join(f"{w} with {', '.join(WORKS[w].peers) or 'itself'}" for w in works)
        raise InputError(
            f"nothing can be compared with {', '.join(peers)} here: expected, of the cells "
            f"{', '.join(cells)}, {able}."
        )
    return found


def measure(
    what: Sequence[Comparison],
    seconds: float = 2.0,
    threads: Sequence[int] | None = None,
    tell: Told | None = None,
) -> Iterator[Row]:
    """Measure, a row at a time.

    While it measures, the C library keeps freed memory, as the command line always has it do.

    Args:
        what: the comparisons.
        seconds: how long to measure each pair.
        threads: the numbers of threads to measure all of them with; PyTorch's own if not given.
        tell: see :data:`Told`.

    Raises:
        InputError: a number of threads or the seconds are not positive.
    """
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, received {seconds:g}.")
    before, numbers = torch.get_num_threads(), thread_counts(threads)
    keep_freed_memory()
    try:
        for turn, number in enumerate(numbers):
            torch.set_num_threads(number)
            for k, comparison in enumerate(what):
                if tell is not None:
                    tell(turn * len(what) + k, len(numbers) * len(what), comparison)
                yield from comparison.rows(seconds)
    finally:
        torch.set_num_threads(before)


def bench(
    works: Sequence[str] = ("train",),
    cells: Sequence[str] = ("lstm", "gru", "rnn"),
    shapes: Iterable[tuple[int, int, int, int, int]] | None = None,
    peers: Sequence[str] = ("torch.nn",),
    seconds: float = 2.0,
    threads: Sequence[int] | None = None,
) -> Iterator[Row]:
    """Compare, a row at a time: see :func:`comparisons` and :func:`measure`.

    Raises:
        InputError: as those two.
    """
    return measure(comparisons(works, cells, shapes, peers), seconds, threads)


def thread_counts(threads: Sequence[int] | None) -> list[int]:
    """The numbers of threads to measure with: PyTorch's own if none are given.

    Raises:
        InputError: one is not positive.
    """
    numbers = [torch.get_num_threads()] if threads is None else list(threads)
    if not numbers or min(numbers) < 1:
        raise InputError(f"threads must be whole numbers of at least 1, received {numbers}.")
    return numbers


def _shape(sizes: tuple[int, int, int, int, int]) -> Shape:
    if len(sizes) != 5 or min(sizes) < 1:
        raise InputError(
            "a shape is five positive numbers (input, hidden, layers, batch, steps), "
            f"received {tuple(sizes)}."
        )
    return Shape(*sizes)
