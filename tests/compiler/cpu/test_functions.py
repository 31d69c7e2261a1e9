"""exp, sigmoid and tanh of the generated code over every exponent.

``benchmarks/functions.py`` goes through every float there is.
"""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elman.compiler.cpu.build import build

NAMES = ("exp", "sigmoid", "tanh")
SOURCE = '#include "vector.hpp"\n' + "\n".join(
    f"""
extern "C" void apply_{name}(const elman::real* x, elman::real* y, long n) {{
  elman::each(0, n, [&](auto at) {{ at.store(y, elman::{name}(at.load(x))); }});
}}"""
    for name in NAMES
)
EXACT = {
    "exp": np.exp,
    "sigmoid": lambda x: np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    ),
    "tanh": np.tanh,
}
ULPS = {"exp": 1.5, "sigmoid": 3.5, "tanh": 4.0}


def apply(name: str, x: np.ndarray) -> np.ndarray:
    library = build(SOURCE, torch.from_numpy(x).dtype)
    y = np.empty_like(x)
    function = getattr(library, f"apply_{name}")
    function(
        x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(x.size)
    )
    return y


def ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    spacing = np.spacing(np.abs(exact).astype(y.dtype)).astype(np.float64)
    return np.abs(y - exact) / spacing


@pytest.mark.parametrize("name", NAMES)
def test_errors_over_the_whole_float_range(name):
    # A prime stride visits every sign and exponent with a million mantissas.
    bits = np.arange(0, 2**32, 4093, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore", under="ignore"):
        exact = EXACT[name](x.astype(np.float64))
        y = apply(name, x)
        normal = (np.abs(exact) > 1.2e-38 if name != "sigmoid" else x > -87) & (exact < 3.4e38)
        if name == "tanh":
            normal |= exact == 0
        assert ulps(y[normal], exact[normal]).max() <= ULPS[name]
        tiny = ~normal & (exact < 3.4e38)
        assert np.abs(y[tiny] - exact[tiny]).max(initial=0) <= 2e-38


@pytest.mark.parametrize("name", NAMES)
def test_denormals_are_told_from_zero(name):
    # Below the least normal float: of exp the results, of tanh the arguments.
    tiny = np.arange(1, 1 << 23, 4099, dtype=np.uint32).view(np.float32)
    x = np.concatenate([tiny, -tiny])
    exact = EXACT[name](x.astype(np.float64))
    assert np.abs(apply(name, x) - exact).max() <= (2.0**-149 if name == "tanh" else 2.0**-24)
    if name == "exp":
        x = np.linspace(-103.9, -87.4, 4099, dtype=np.float32)
        assert np.abs(apply(name, x) - np.exp(x.astype(np.float64))).max() <= 2.0**-149


@pytest.mark.parametrize("name", NAMES)
@given(x=arrays(np.float64, 64, elements=st.floats(-708, 708)))
def test_errors_in_double_precision(name, x):
    exact = EXACT[name](x.astype(np.longdouble))
    assert ulps(apply(name, x), exact).max() <= ULPS[name]


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_infinities_zeros_and_nan(name, real):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype=real)
    y = apply(name, x)
    expected = {"exp": [np.inf, 0, np.nan, 1, 1], "sigmoid": [1, 0, np.nan, 0.5, 0.5]}.get(
        name, [1, -1, np.nan, 0, 0]
    )
    np.testing.assert_allclose(y, np.array(expected, real), atol=2e-38)
    if name == "tanh":
        assert np.signbit(y[4]) and not np.signbit(y[3])


def test_functions_agree_with_torch():
    x = torch.linspace(-8, 8, 1001)
    assert torch.allclose(torch.from_numpy(apply("tanh", x.numpy())), x.tanh(), atol=1e-6)
