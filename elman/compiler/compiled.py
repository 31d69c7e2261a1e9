"""A cell's compiled programs: its plan, and its kernels for each target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from elman.cells.contract import Cell
from elman.cells.lines import at, cause, reason, step_at, step_line
from elman.compiler.differentiate import Plan, in_place, plan
from elman.compiler.kernel import Kernel
from elman.compiler.loop import Loop
from elman.compiler.lower import Lowering, decompose
from elman.compiler.masks import is_tame
from elman.compiler.modes import unrecorded
from elman.compiler.naming import digest
from elman.compiler.record import Unsupported
from elman.compiler.targets import Target
from elman.compiler.trace import Hoisted, trace
from elman.errors import InputError


class Compiled:
    """A cell of certain sizes and type of numbers: its plan, and its kernels for each target."""

    def __init__(self, hoisted: Hoisted, loop: Loop, *, only_forward: bool = False):
        self.hoisted = hoisted
        self.digest = digest(hoisted, loop)
        self.tame = is_tame(hoisted.operations, hoisted.x)
        self.widths = [loop.shapes[n][-1:] for n in loop.sequences]
        self.shapes = [tuple(loop.shapes[n]) for n in loop.parameters]
        # The targets whose numbers have been compared with the reference engine's.
        self.checked: set[Target] = set()
        self.refused: dict[Target, str] = {}  # why it is not run: see native._ready
        self.plan: Plan = plan(Lowering(loop))
        owned = [k for k in range(len(hoisted.sequences)) if hoisted.owns(k)]
        self.places = in_place(self.plan, owned)
        self.programs = {"forward": self.plan.forward}
        if not only_forward:
            self.programs |= {"train": self.plan.train, "backward": self.plan.backward}
        self._kernels: dict[tuple[Target, torch.dtype], Mapping[str, Kernel]] = {}

    def check_shapes(self, sequences: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """Raise where the loop would read memory as something that it is not.

        Raises:
            InputError: a weight has another shape than its cell declares.
        """
        found = [s.shape[-1:] for s in sequences], [p.shape for p in parameters]
        if found != (self.widths, self.shapes):
            shapes, expected = (
                ", ".join(str(tuple(s)) for part in parts for s in part)
                for parts in (found, (self.widths, self.shapes))
            )
            raise InputError(
                f"a weight has another shape than its cell declares: the step reads {shapes}; "
                f"expected {expected}."
            )

    def build(self, real: torch.dtype, target: Target) -> None:
        """Compile the programs for one type of number, or take them from the cache.

        Raises:
            BuildError: it cannot be done here.
        """
        if (target, real) not in self._kernels:
            # At once, for threads that ask at the same moment.
            self._kernels[target, real] = target.build(self.programs, real)

    def kernel(self, name: str, real: torch.dtype, target: Target) -> Kernel:
        """One of the programs."""
        self.build(real, target)
        return self._kernels[target, real][name]


def compile_cell(cell: Cell, real: torch.dtype) -> Compiled:
    """The programs of ``cell`` for one type of number, which are not built yet.

    Raises:
        Unsupported: it has none; the message says why, and names the line of its step.
    """
    try:
        # Of a compiler of PyTorch's that runs this with fakes, and of what records programs.
        with _disable_current_modes(), unrecorded():
            return Compiled(*trace(cell, decompose, real))
    except Unsupported as why:
        line = "" if re.search(r":\d+\)", str(why)) else at(step_at(cell))
        raise Unsupported(f"{why}{line}") from None
    except InputError as why:  # what the reference engine will say, too
        raise Unsupported(str(why)) from None
    except Exception as raised:  # of the step itself: the reference engine shows it in full
        error = cause(raised)
        line = at(step_line(cell, error) or step_at(cell))
        raise Unsupported(f"its step cannot be traced{line} ({reason(error)})") from None
