"""The table's functions of one number in generated code, over every exponent.

``benchmarks/functions.py`` goes through every float there is.
"""

import ctypes

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elman.compiler.cpu.build import build
from elman.compiler.ops import OPS

NAMES = [name for name, op in OPS.items() if op.operands == "x"]
OWN = ("exp", "sigmoid", "tanh")  # the others are the C library's, or single instructions


FUNCTION = """
extern "C" void apply_{name}(const real* in, real* out, long n) {{
  each(0, n, [&](auto at) {{
    const auto x = at.load(in);
    at.store(out, {value});
  }});
}}"""
CODE = [FUNCTION.format(name=name, value=OPS[name].expression.format(x="x")) for name in NAMES]
SOURCE = "\n".join(['#include "vector.hpp"', "namespace elman {", *CODE, "}"])

ULPS = dict.fromkeys(NAMES, 4.0) | {"exp": 1.5, "sigmoid": 3.5}
SMALLEST, LARGEST = 1.2e-38, 3.4e38  # of floats that have all their digits


def precise(function):
    """A function of mpmath's as one of long doubles."""

    def one(x):
        with mpmath.workprec(120):
            exact = function(mpmath.mpf(x))
            return np.longdouble(float(exact)) + np.longdouble(float(exact - float(exact)))

    return np.vectorize(lambda x: one(float(x)), otypes=[np.longdouble])


EXACT = {
    "neg": np.negative,
    "reciprocal": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "round": np.rint,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    ),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": precise(mpmath.erf),
    "erfc": precise(mpmath.erfc),
}
"""In a higher precision; what is not here has its name in NumPy."""


def apply(name: str, x: np.ndarray) -> np.ndarray:
    library = build(SOURCE, torch.from_numpy(x).dtype)
    y = np.empty_like(x)
    function = getattr(library, f"apply_{name}")
    function(
        x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(x.size)
    )
    return y


def value(name: str, x: np.ndarray) -> np.ndarray:
    """The table's value, in double precision."""
    return OPS[name](torch.from_numpy(x)).numpy()


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    spacing = np.spacing(np.abs(exact).astype(y.dtype)).astype(np.float64)
    return np.abs(y - exact) / spacing


@pytest.mark.parametrize("name", NAMES)
def test_errors_over_the_whole_float_range(name):
    # A prime stride visits every sign and exponent with a million mantissas.
    bits = np.arange(0, 2**32, 4093, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x)]
    exact, y = value(name, x), apply(name, x)
    finite, size = np.abs(exact) < LARGEST, np.abs(exact)
    normal = finite & (x > -87 if name == "sigmoid" else (size > SMALLEST) | (size == 0))
    assert ulps(y[normal], exact[normal]).max() <= ULPS[name]
    tiny = finite & ~normal
    assert np.abs(y[tiny] - exact[tiny]).max(initial=0) <= 2e-38
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(y[~finite], exact[~finite].astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_denormals_are_told_from_zero(name):
    # Below the least normal float: of exp the results, of tanh the arguments.
    tiny = np.arange(1, 1 << 23, 4099, dtype=np.uint32).view(np.float32)
    x = np.concatenate([tiny, -tiny])
    exact = value(name, x)
    assert np.abs(apply(name, x) - exact).max() <= (2.0**-149 if name == "tanh" else 2.0**-24)
    if name == "exp":
        x = np.linspace(-103.9, -87.4, 4099, dtype=np.float32)
        assert np.abs(apply(name, x) - np.exp(x.astype(np.float64))).max() <= 2.0**-149


@pytest.mark.parametrize("name", NAMES)
@given(x=arrays(np.float64, 64, elements=st.floats(-708, 708)))
def test_errors_in_double_precision(name, x):
    with np.errstate(all="ignore"):  # of roots and logarithms, and of numbers that are too large
        exact = EXACT.get(name, getattr(np, name, None))(x.astype(np.longdouble))
        right = exact.astype(np.float64)
        finite, y = np.isfinite(right), apply(name, x)
        assert ulps(y, exact)[finite].max(initial=0) <= ULPS[name]
        np.testing.assert_array_equal(y[~finite], right[~finite])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_infinities_zeros_and_nan(name, real):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype=real)
    y, expected = apply(name, x), value(name, x)
    np.testing.assert_allclose(y, expected, atol=2e-38)
    if name != "relu":  # PyTorch's gives either zero
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(expected[number]))


def test_functions_agree_with_torch():
    x = torch.linspace(-8, 8, 1001)
    assert torch.allclose(torch.from_numpy(apply("tanh", x.numpy())), x.tanh(), atol=1e-6)
