from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import elman
from elman.errors import InputError
from elman.learning import add_l1, clip_norm, clip_value, clipping


def _with_gradients(*gradients, dtype=torch.float32):
    parameters = [nn.Parameter(torch.zeros(len(g), dtype=dtype)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient, dtype=dtype)
    return parameters


def test_the_norm_is_that_of_all_parameters_as_one_vector():
    parameters = _with_gradients([3.0], [4.0])
    assert float(clip_norm(parameters, 1.0)) == 5.0
    assert torch.allclose(torch.cat([p.grad for p in parameters]), torch.tensor([0.6, 0.8]))


def test_a_small_gradient_is_left_alone():
    parameters = _with_gradients([0.3], [0.4])
    clip_norm(parameters, 1.0)
    assert torch.equal(parameters[0].grad, torch.tensor([0.3]))
    assert float(clip_norm(_with_gradients([30.0]), None)) == 30.0
    assert float(clip_norm([nn.Parameter(torch.zeros(2))], 1.0)) == 0.0  # no gradient at all


@pytest.mark.parametrize("threshold", [1e-6, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])  # whose squares float32 does not have
def test_the_clipped_norm_is_the_threshold_exactly(threshold, size):
    parameters = _with_gradients([3.0 * size], [-4.0 * size, 0.0])
    assert float(clip_norm(parameters, threshold)) == pytest.approx(5.0 * size, rel=3e-7)
    factor = min(threshold / (5 * size), 1.0)
    for parameter, was in zip(parameters, ([3.0], [-4.0, 0.0]), strict=True):
        expected = torch.tensor(was, dtype=torch.float64) * size * factor
        assert torch.allclose(parameter.grad.double(), expected, rtol=3e-7, atol=0)


def test_numbers_of_half_the_size_are_summed_in_float32():
    parameters = _with_gradients([3e4], [4e4], dtype=torch.float16)
    assert float(clip_norm(parameters, 1.0)) == pytest.approx(5e4, rel=1e-3)
    assert float(parameters[0].grad) == pytest.approx(0.6, rel=1e-3)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_told(bad):
    parameters = _with_gradients([3.0, bad], [4.0])
    with pytest.raises(InputError, match=r"the gradient's norm is \w+, which no clipping"):
        clip_norm(parameters, 1.0)
    norm = clip_norm(parameters, 1.0, error_if_nonfinite=False)
    assert not norm.isfinite()
    assert not clip_norm(parameters, None).isfinite()
    assert parameters[1].grad.tolist() == [4.0]


def test_clipping_by_value():
    (parameter,) = _with_gradients([-3.0, 0.5, 7.0, math.inf])
    clip_value([parameter], 1.0)
    assert parameter.grad.tolist() == [-1.0, 0.5, 1.0, 1.0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_are_clipped_by_their_sums():
    embedding = nn.Embedding(5, 1, sparse=True)
    (3 * embedding(torch.tensor([1, 1, 2])).sum()).backward()  # 6 at row 1, 3 at row 2
    clip_value(embedding.parameters(), 4.0)
    assert embedding.weight.grad.to_dense().flatten().tolist() == [0, 4, 3, 0, 0]
    assert float(clip_norm(embedding.parameters(), 1.0)) == 5.0
    expected = torch.tensor([0, 0.8, 0.6, 0, 0])
    assert torch.allclose(embedding.weight.grad.to_dense().flatten(), expected)


@pytest.mark.parametrize("clip", [clip_norm, clip_value])
@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_a_threshold_that_would_turn_the_gradient_round_is_refused(clip, threshold):
    parameters = _with_gradients([3.0])
    with pytest.raises(InputError, match="threshold must be positive, received"):
        clip(parameters, threshold)
    assert parameters[0].grad.tolist() == [3.0]


def test_l1_pulls_weights_and_no_biases():
    network = elman.Recurrent(elman.cells.make("indrnn", 2, 3))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    add_l1(network, 0.1)
    for name in ("weight_recurrent_l0", "weight_net_l0"):
        parameter = network.get_parameter(name)
        assert torch.allclose(parameter.grad, 0.1 * parameter.sign())
    biases = [p for n, p in network.named_parameters() if n.startswith("bias")]
    assert biases and not any(p.grad.any() for p in biases)
    with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module, received list"):
        add_l1(list(network.parameters()), 0.1)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("threshold", [None, 1e-2, 1e3])
def test_a_norm_that_is_not_read_clips_alike(scale, threshold, monkeypatch):
    """As on a GPU, whose norm the host would wait for: in one precision and in the other."""
    values = [scale * torch.randn(4, 3), scale * torch.randn(5), torch.zeros(0)]
    found = []
    for unread in (False, True):
        monkeypatch.setattr(clipping, "_waits", lambda _, unread=unread: unread)
        parameters = [nn.Parameter(torch.zeros_like(v)) for v in values]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad = value.clone()
        norm = clip_norm(parameters, threshold, error_if_nonfinite=False)
        found.append([norm.double(), *(p.grad for p in parameters)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=0)


def test_a_norm_that_is_no_number_clips_nothing(monkeypatch):
    monkeypatch.setattr(clipping, "_waits", lambda _: True)
    (parameter,) = _with_gradients([float("inf"), 1.0])
    assert not clip_norm([parameter], 1.0, error_if_nonfinite=False).isfinite()
    assert parameter.grad.tolist() == [float("inf"), 1.0]
