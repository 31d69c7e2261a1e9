"""Cells side by side: which of them keeps a gradient, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.cells import registry
from elman.cells.contract import Cell
from elman.cells.linear import LinearRecurrence
from elman.cells.maps import Diagonal, Linear
from elman.errors import InputError
from elman.layers import Recurrent
from elman.lens.activations import activity
from elman.lens.flow import GradientFlow, gradient_flow
from elman.seeds import checked_seed


@dataclass(frozen=True)
class Compared:
    """One network among others.

    Attributes:
        label: its cell, and what its forget bias starts at where it has one.
        flow: where the gradient goes.
        forgetting: for a cell with a gate f, by lag l = 1, 2, …: the product of the l forget gates
            between step t − l and step t in the last layer, the mean over units and sequences.
            This is what the cell state's own path, c' = f ⊙ c + …, multiplies a gradient with.
    """

    label: str
    flow: GradientFlow
    forgetting: Tensor | None


def side_by_side(
    cells: Sequence[str] = ("rnn", "identity", "gru", "lstm"),
    forget_biases: Sequence[float] = (0.0, 1.0, 2.0),
    *,
    input: int = 32,
    hidden: int = 64,
    layers: int = 1,
    steps: int = 100,
    batch: int = 16,
    gain: float = 1.0,
    threshold: float = 1e-3,
    seed: int = 0,
) -> list[Compared]:
    """The gradient flow of networks just initialised, on the same random input.

    Args:
        cells: names that the registry knows.
        forget_biases: for cells with a forget gate, what its bias starts at, one network each.
        input: M; the input is drawn from N(0, 1).
        hidden: H.
        layers: layers of each network.
        steps: T, at least 2; the loss is at the last, the sum of the output.
        batch: sequences that norms are averaged over.
        gain: what the recurrent weights are multiplied with: ``weight_hh…``, or in cells without
            them the matrices and diagonals that act on a state.
        threshold: see :func:`elman.gradient_flow`.
        seed: fixes the input and every network's draw.

    Raises:
        InputError: an argument has a value that cannot be used, or a gain other than 1 is given
            for cells no weight of which acts on a state.
    """
    sizes = {"input": input, "hidden": hidden, "layers": layers, "steps": steps, "batch": batch}
    for name, value in sizes.items():
        least = 2 if name == "steps" else 1
        if value < least:
            raise InputError(f"{name} must be at least {least}, received {value}.")
    if not forget_biases or not cells:
        raise InputError("at least one cell and one forget bias are needed to compare.")
    if not all(math.isfinite(number) for number in (gain, *forget_biases)):
        raise InputError(
            f"gain and forget biases must be finite, received {gain}, {forget_biases}."
        )
    if gain != 1 and not any(_recurrent(registry.make(name, input, hidden)) for name in cells):
        raise InputError(
            f"gain multiplies the weights that act on a state, of which {', '.join(cells)} has "
            f"none, received {gain:g}: leave the gain at 1, or compare other cells."
        )
    seed = checked_seed(seed)
    compared = []
    for name in cells:
        for bias in forget_biases:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                x = torch.randn(steps, batch, input)
                cell = registry.make(name, input, hidden)
                forgets = "f" in {b for p, _ in cell.named_parameters() for b in cell.blocks_of(p)}
                network = Recurrent(cell, layers, forget_bias=bias if forgets else None)
            _multiply(network, gain)
            flow = gradient_flow(network, x, threshold=threshold)
            gate = activity(network, x)[-1].gates.get("f") if forgets else None
            product = None if gate is None else gate.flip(0).cumprod(0).mean((1, 2))[:-1]
            label = f"{name}, forget bias {bias:g}" if forgets else name
            compared.append(Compared(label, flow, product))
            if not forgets:
                break
    return compared


@torch.no_grad()
def _multiply(network: Recurrent, gain: float) -> None:
    for k, cell in enumerate(network.cells):
        for name in _recurrent(cell):
            network.weights(k)[name].mul_(gain)


def _recurrent(cell: Cell) -> list[str]:
    """The names of the weights of a cell that act on a state."""
    if isinstance(cell, LinearRecurrence):  # c' = a ⊙ c + b, with a and b of the input alone
        return []
    own = [name for name, _ in cell.named_parameters() if name.startswith("weight_hh")]
    return own or [
        name
        for declared in type(cell).maps()
        if isinstance(declared, Diagonal)
        or (isinstance(declared, Linear) and declared.of in cell.state)
        for name in declared.shapes(cell)
        if name.startswith("weight_")
    ]
