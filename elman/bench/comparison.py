"""What is compared with what, and measuring it: one after the other, by each number of threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from elman.allocation import keep_freed_memory
from elman.bench.cells import CELLS
from elman.bench.measurement import Comparison, Measurement, Shape
from elman.bench.workloads import PEERS, WORKLOADS, missing_packages
from elman.errors import InputError

Sizes = tuple[int, int, int, int, int]


def comparisons(
    workloads: Sequence[str] = ("train",),
    cells: Sequence[str] = ("lstm", "gru", "rnn"),
    shapes: Iterable[Sizes] | None = None,
    peers: Sequence[str] = ("torch.nn",),
) -> list[Comparison]:
    """What these names ask for; combinations that cannot be are left out.

    Args:
        workloads: of :data:`elman.bench.WORKLOADS`.
        cells: of :data:`elman.bench.CELLS`.
        shapes: (input, hidden, layers, batch, steps) of each; a workload's own if not given. A
            step and writing have a batch of 1; jobs have the vocabulary as their input.
        peers: of ``torch.nn``, ``loop`` (the step in PyTorch, called in a Python loop),
            ``torch.compile`` (of that loop; it takes minutes to compile), ``onnxruntime``
            (``forward`` and ``step`` of LSTM, GRU and RNN), ``jax`` (``lax.scan``; ``forward`` and
            ``train``).

    Raises:
        InputError: one of the names is not known, a size is not positive, a peer is not installed,
            or no combination can be.
    """
    for kind, given, known in (
        ("workload", workloads, WORKLOADS),
        ("cell", cells, CELLS),
        ("peer", peers, PEERS),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"unknown {kind} {name!r}: expected one of {', '.join(known)}.")
    for peer in peers:
        if missing := missing_packages(peer):
            raise InputError(
                f"the peer {peer} needs {' and '.join(missing)}: {sys.executable} -m pip install "
                f"{' '.join(missing)}, or leave it out of `peers`."
            )
    chosen = None if shapes is None else [_shape(sizes) for sizes in shapes]
    found = [
        Comparison(name, cell, shape, peer)
        for name in workloads
        for shape in chosen or WORKLOADS[name].shapes
        for cell in cells
        for peer in WORKLOADS[name].fitting(cell, peers)
    ]
    if not found:
        able = "; ".join(
            f"{name} with {', '.join(WORKLOADS[name].peers) or 'itself'}" for name in workloads
        )
        raise InputError(
            f"nothing can be compared with {', '.join(peers)} here: expected, of the cells "
            f"{', '.join(cells)}, {able}."
        )
    return found


def measure(
    what: Sequence[Comparison],
    seconds: float = 2.0,
    threads: Sequence[int] | None = None,
    begin: Callable[[int, int, Comparison], None] = lambda done, count, next: None,
) -> Iterator[Measurement]:
    """Measure, a row of the table at a time.

    While it measures, the C library keeps freed memory, as the command line always has it do.

    Args:
        what: the comparisons.
        seconds: how long to measure each pair.
        threads: the numbers of threads to measure all of them with; PyTorch's own if not given.
        begin: called before each comparison with how many are done, how many there are, and the
            next.

    Raises:
        InputError: a number of threads or the seconds are not positive.
    """
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, received {seconds:g}.")
    runs = [(number, comparison) for number in thread_counts(threads) for comparison in what]
    for k, (number, comparison) in enumerate(runs):
        begin(k, len(runs), comparison)
        with conditions(number):
            yield from WORKLOADS[comparison.workload].measure(comparison, seconds)


def thread_counts(threads: Sequence[int] | None) -> list[int]:
    """The numbers of threads to measure with: PyTorch's own if none are given.

    Raises:
        InputError: one is not positive.
    """
    numbers = [torch.get_num_threads()] if threads is None else list(threads)
    if not numbers or min(numbers) < 1:
        raise InputError(f"threads must be whole numbers of at least 1, received {numbers}.")
    return numbers


@contextmanager
def conditions(threads: int) -> Iterator[None]:
    """Under which all is measured: so many threads, freed memory kept, the draws of seed 0."""
    before = torch.get_num_threads()
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shape(sizes: Sizes) -> Shape:
    if len(sizes) != 5 or min(sizes) < 1:
        raise InputError(
            "a shape is five positive numbers (input, hidden, layers, batch, steps), "
            f"received {tuple(sizes)}."
        )
    return Shape(*sizes)
