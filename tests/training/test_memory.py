from __future__ import annotations

import pytest
import torch
from torch import nn

from elman.errors import InputError
from elman.training import memory
from elman.training.memory import if_it_fits, total


@pytest.mark.skipif(total() is None, reason="the system does not say how much memory it has")
@pytest.mark.parametrize("size", [10**6, 2**31 - 1, 2**40])
def test_a_model_that_never_fits_is_refused_before_it_is_made(monkeypatch, size):
    # 10⁶ × 10⁶ numbers, of which a system that promises more than it has might hand out some.
    monkeypatch.setattr(memory, "total", lambda: 10**9)
    with pytest.raises(InputError, match=r"the model's weights and their gradients need .* lower"):
        if_it_fits(lambda: nn.Linear(size, size))


def test_what_fits_is_drawn_as_it_would_have_been():
    torch.manual_seed(1)
    expected = nn.Linear(3, 4).weight
    torch.manual_seed(1)
    assert torch.equal(if_it_fits(lambda: nn.Linear(3, 4)).weight, expected)


def test_what_cannot_be_made_without_memory_is_made_all_the_same():
    made = []

    def make():
        made.append(torch.ones(2).tolist())  # there is nothing to list without memory
        return nn.Linear(2, 2)

    assert if_it_fits(make).weight.shape == (2, 2)
    assert made == [[1.0, 1.0]]


def test_what_is_wrong_with_a_model_is_said_as_ever():
    def make():
        raise InputError("hidden is odd.")

    with pytest.raises(InputError, match="hidden is odd"):
        if_it_fits(make)


def test_a_limit_of_a_container_is_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_LIMIT", tmp_path / "memory.max")
    whole = total()
    (tmp_path / "memory.max").write_text("1000\n")
    assert total() == 1000
    (tmp_path / "memory.max").write_text("max\n")
    assert total() == whole
