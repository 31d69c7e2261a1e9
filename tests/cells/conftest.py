"""What the tests of cells share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import elman
from elman.layers import stepping


@pytest.fixture
def results() -> Callable[..., Tensor]:
    """What forward and step give, on the engine that usually runs the cell; checked."""

    def check(rnn: Any, x: Tensor) -> Tensor:
        y, _ = rnn(x)
        state = rnn.initial_state(x.shape[1])
        with torch.no_grad():
            one, _ = rnn.step(x[0], state)
            assert stepping.of(rnn) is not None
        with elman.engine("reference"):
            expected, _ = rnn(x)
        torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(one, expected[0], atol=1e-10, rtol=1e-10)
        return expected

    return check


@pytest.fixture
def says() -> Callable[..., None]:
    """That an error is one sentence with these words in it."""

    def check(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
        text = str(error.value)
        for word in words:
            assert word in text, f"{word!r} is missing from: {text}"
        assert text.count("\n") == 0
        assert text.endswith(".")

    return check
