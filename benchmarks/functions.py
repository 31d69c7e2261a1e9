"""Errors of the engine's exp, sigmoid and tanh at every float there is.

An ulp is the distance between the floats around the exact result, 2^-149 where it is denormal. The
exact result is PyTorch's in double precision. ``ELMAN_MARCH`` names another instruction set.
"""

from __future__ import annotations

import ctypes
import time

import torch
from torch import Tensor

from elman.compiler.build import build

NAMES = ("exp", "sigmoid", "tanh")
SOURCE = '#include "vector.hpp"\n' + "\n".join(
    f"""
extern "C" void apply_{name}(const elman::real* x, elman::real* y, long n) {{
  elman::each(0, n, [&](auto at) {{ at.store(y, elman::{name}(at.load(x))); }});
}}"""
    for name in NAMES
)
LARGEST, NORMAL, DENORMAL = 3.4028234663852886e38, 2.0**-126, 2.0**-149
CHUNK = 1 << 22


def ulps(y: Tensor, exact: Tensor) -> Tensor:
    """The distance of the floats ``y`` from ``exact``, in ulp of ``exact``."""
    _, exponent = torch.frexp(exact)  # 2^exponent is above it
    spacing = torch.ldexp(torch.ones_like(exact), exponent - 24).clamp(min=DENORMAL)
    return (y.double() - exact).abs() / spacing


def main() -> None:
    library = build(SOURCE, torch.float32)
    functions = {name: getattr(library, f"apply_{name}") for name in NAMES}
    worst = {(name, kind): (0.0, 0.0) for name in NAMES for kind in ("normal", "denormal")}
    wrong = dict.fromkeys(NAMES, 0)
    y, begin = torch.empty(CHUNK), time.perf_counter()
    for first in range(-(1 << 31), 1 << 31, CHUNK):
        x = torch.arange(first, first + CHUNK, dtype=torch.int32).view(torch.float32)
        pointers = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr())
        for name, function in functions.items():
            function(*pointers, ctypes.c_long(CHUNK))
            exact = getattr(torch, name)(x.double())
            # NaN, and what is beyond the largest float, must come out as such.
            special = exact.isnan() | (exact.abs() > LARGEST + 2.0**103)
            alike = (y.isnan() & exact.isnan()) | (y.double() == exact.float().double())
            wrong[name] += int((special & ~alike).sum())
            error = ulps(y, exact).masked_fill_(special, 0)
            small = exact.abs() < NORMAL
            for kind, kept in (("normal", ~small), ("denormal", small)):
                found, at = (error * kept).max(0)
                if found > worst[name, kind][0]:
                    worst[name, kind] = float(found), float(x[at])
    for (name, kind), (error, at) in worst.items():
        print(f"{name:8} {kind:9} results: at most {error:.3f} ulp, at {at!r}")
    print("infinities and NaN that came out as something else:", wrong)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
