"""Errors of the native engine's functions at every float there is: of exp, sigmoid and tanh.

An ulp is the distance between the floats around the exact result, 2^-149 where it is denormal. The
exact result is PyTorch's in double precision. Errors below -87 are counted apart: there the results
of exp and sigmoid become denormal. ``ELMAN_MARCH`` names another instruction set; arguments, such
as ``erfc``, choose among the functions of one number in the table of operations.
"""

from __future__ import annotations

import ctypes
import sys
import time

import torch

from elman.compiler.cpu.build import build
from elman.compiler.ops import OPS

NAMES = [name for name, op in OPS.items() if op.operands == "x"]
FUNCTION = """
extern "C" void apply_{name}(const real* in, real* out, long n) {{
  each(0, n, [&](auto at) {{
    const auto x = at.load(in);
    at.store(out, {value});
  }});
}}"""
CODE = [FUNCTION.format(name=name, value=OPS[name].expression.format(x="x")) for name in NAMES]
SOURCE = "\n".join(['#include "vector.hpp"', "namespace elman {", *CODE, "}"])
CHUNK = 1 << 18  # what a core's cache holds
RANGES = ("from -87 up", "below -87")


def main(chosen: list[str]) -> None:
    library = build(SOURCE, torch.float32)
    functions = {name: getattr(library, f"apply_{name}") for name in chosen}
    worst = {(name, part): (0.0, 0.0, 0.0) for name in chosen for part in RANGES}
    wrong = dict.fromkeys(chosen, 0)
    y, begin = torch.empty(CHUNK), time.perf_counter()
    for first in range(-(1 << 31), 1 << 31, CHUNK):
        x = torch.arange(first, first + CHUNK, dtype=torch.int32).view(torch.float32)
        wide, below = x.double(), x < -87
        for name, function in functions.items():
            pointers = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr())
            function(*pointers, ctypes.c_long(CHUNK))
            exact = OPS[name](wide)
            nearest = exact.float()
            if not nearest.isfinite().all():  # NaN, and what is beyond the largest float
                alike = (y == nearest) | (y.isnan() & nearest.isnan()) | nearest.isfinite()
                wrong[name] += CHUNK - int(alike.sum())
            # 2^exponent is the distance between the floats around the exact result.
            exponent = (nearest.view(torch.int32) >> 23 & 0xFF).clamp_(min=1).long() - 150
            inverse = (1023 - exponent << 52).view(torch.float64)
            absolute = (y - exact).abs_().nan_to_num_(0, 0)
            error = absolute * inverse
            for part, kept in zip(RANGES, (~below, below), strict=True):
                found, at = (error * kept).max(0)
                if found > worst[name, part][0]:
                    worst[name, part] = float(found), float(x[at]), float(absolute[at])
    for (name, part), (most, where, distance) in worst.items():
        print(f"{name:8} {part:11}: at most {most:.3f} ulp ({distance:.2g}), at {where!r}")
    print("infinities and NaN that came out as something else:", wrong)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or ["exp", "sigmoid", "tanh"])
