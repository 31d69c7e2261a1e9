"""This processor as the target of tensors that lie on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from elman.compiler import targets
from elman.compiler.cpu.build import REALS, build, compiler
from elman.compiler.cpu.emit import emit
from elman.compiler.cpu.kernels import Kernel
from elman.compiler.cpu.products import column_sums, product
from elman.compiler.schedule import Program


def _build(programs: Mapping[str, Program], real: torch.dtype) -> dict[str, Kernel]:
    library = build(emit(programs), real)
    return {name: Kernel(name, program, real, library) for name, program in programs.items()}


def _missing() -> str | None:
    try:
        compiler()
    except targets.BuildError as why:
        return str(why)
    return None


CPU = targets.Target("native", tuple(REALS), _build, product, column_sums, _missing)
targets.provide("cpu", CPU)
