"""Blocks that hand on every s-th step."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm

from elman import cells
from elman.errors import InputError
from elman.layers import Pyramid, StridedBlock


def test_a_block_hears_what_lies_between_its_strides():
    torch.manual_seed(0)
    x = torch.randn(25, 1, 1, requires_grad=True)
    y = StridedBlock(cells.LRU(5, 6), 2)(StridedBlock(cells.LRU(1, 5), 4)(x))
    assert y.shape == (3, 1, 6)
    (heard,) = torch.autograd.grad(y[1].sum(), x)
    assert (heard[:16] != 0).all() and (heard[16:] == 0).all()


def test_a_block_adds_to_what_it_reads():
    block = StridedBlock(cells.GRU(4, 4), 3)
    with torch.no_grad():
        block.gate.weight.zero_()
        block.gate.bias.fill_(-1e4)  # closed
    x = torch.randn(7, 2, 4)
    assert torch.equal(block(x), x[[2, 5]])


def test_a_pyramid_reads_the_mean_of_what_is_left():
    sizes = [5, 4, 4]
    pyramid = Pyramid(cells.GRU, 1, 3, sizes, [4, 2]).eval()
    assert [block.recurrent.hidden_size for block in pyramid.blocks] == sizes
    assert [block.stride for block in pyramid.blocks] == [4, 2, 1]
    x = torch.randn(24, 2, 1)
    h = x
    for block in pyramid.blocks:
        h = block(h)
    assert h.shape == (3, 2, 4)
    y = pyramid(x)
    torch.testing.assert_close(y, pyramid.readout(layer_norm(h.mean(0), (4,))))
    with pytest.raises(InputError, match="strides must be at most 3, one a layer"):
        Pyramid(cells.GRU, 1, 3, sizes, [4, 2, 2, 2])
