"""The loop over time on tensors, forward."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from elman.compiler import targets
from elman.compiler.compiled import Compiled
from elman.compiler.ir import Buffer
from elman.compiler.kernel import Shape, State, place
from elman.compiler.memory import all_plain


class LoopOutputs:
    """The order of the tensors that ``elman::loop`` returns.

    First the states after each step (of the first state alone, or of all), then the states after
    the last step, then what the backward pass needs.
    """

    def __init__(self, cell: Compiled, keep: bool, train: bool):
        self.train = train
        self.states = len(cell.plan.step.states)
        self.histories = self.states if keep or train else 1
        self.saved = len(cell.plan.saved) if train else 0
        self.last = slice(self.histories, self.histories + self.states)
        self.rest = slice(self.histories + self.states, None)


def outputs(
    cell: Compiled,
    like: Tensor,
    steps: int,
    batch: int,
    keep: bool,
    train: bool,
    sequences: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Room for what the loop gives; with ``sequences``, in their place where that is possible."""
    layout, widths = LoopOutputs(cell, keep, train), [b.width for b in cell.plan.step.states]
    shapes: list[tuple[int, ...]] = [(steps, batch, w) for w in widths[: layout.histories]]
    shapes += [(batch, w) for w in widths]
    out = [like.new_empty(shape) for shape in shapes]
    for buffer in cell.plan.saved[: layout.saved]:
        if sequences is not None and buffer in cell.places:
            k, offset = cell.places[buffer]
            out.append(sequences[k].detach().narrow(-1, offset, buffer.width))
        else:
            out.append(like.new_empty(steps, batch, buffer.width))
    return out


def run_forward(
    cell: Compiled,
    sequences: Sequence[Tensor],
    parameters: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    resets: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    keep: bool,
    train: bool,
    operand: str = "",
    *,
    reuse: bool = False,
) -> list[Tensor]:
    """Run the loop over time, forward: ``elman::loop`` is described in engines/operator.py.

    Args:
        cell: the programs.
        sequences: what is read at every step, (T, B, width) each.
        parameters: the weights that the loop reads.
        states: those before the first step, (B, width) each.
        starts: those that a reset returns to; none where there are no resets.
        resets: (T, B) bool or None, in the order in which the steps are taken.
        lengths: (B) or None.
        reverse: from the last step to the first.
        keep: give the history of every state, not of the first alone.
        train: save what the gradient needs.
        operand: the type that products round what they multiply to: see :class:`Shape`.
        reuse: what is saved may take the place of the sequences that nobody else reads.

    Returns:
        Histories, last states and what is saved, in the order of :class:`LoopOutputs`.

    Raises:
        InputError: a weight has another shape than its cell declares.
    """
    cell.check_shapes(sequences, parameters)
    steps, batch = sequences[0].shape[:2]
    layout = LoopOutputs(cell, keep, train)
    sequences, parameters = all_plain(sequences), all_plain(parameters)
    out = outputs(cell, states[0], steps, batch, keep, train, sequences if reuse else None)
    histories = out[: layout.histories]
    begins: Sequence[Tensor | None] = all_plain(starts) or [None] * len(states)
    histories += [s.new_empty(2, *s.shape) for s in states[layout.histories :]]
    given = [
        State(s, history, last, start)
        for s, history, last, start in zip(
            all_plain(states), histories, out[layout.last], begins, strict=True
        )
    ]
    saved = dict(zip(cell.plan.saved, out[layout.rest], strict=train))

    def where(buffer: Buffer) -> Tensor | tuple[int, int]:
        if buffer in saved:
            return saved[buffer]
        return place(buffer, sequences, parameters)

    if not steps:  # of a program that was recorded with some
        for last, state in zip(out[layout.last], states, strict=True):
            last.copy_(state)
        return out
    target = targets.of(states[0].device)
    kernel = cell.kernel("train" if train else "forward", states[0].dtype, target)
    shape = Shape(steps, batch, reverse, False, resets, lengths, operand)
    # What is saved is read after the loop, too: past a sequence's end nobody has computed it.
    kernel.run(shape, where, given, parameters, saved if lengths is not None else ())
    return out
