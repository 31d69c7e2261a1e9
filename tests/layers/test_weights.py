"""Weights drawn anew, dropped while a network learns, and computed by ``torch.nn.utils``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout
from torch.nn.utils import parametrize, prune

import elman
from elman.layers.weights import dropped

PAIRS = [(elman.LSTM, nn.LSTM), (elman.GRU, nn.GRU), (elman.RNN, nn.RNN)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_reset_parameters_draws_as_torch_nn(ours, theirs, agree):
    networks = [layer(4, 6, 2, bidirectional=True) for layer in (ours, theirs)]
    for network in networks:
        torch.manual_seed(3)
        network.reset_parameters()
    agree(*(list(network.parameters()) for network in networks), 0.0)


def test_reset_parameters_draws_as_the_constructor(kind, agree):
    """Cells with a start of their own, links and learned initial states among them."""
    options = {"layers": 2, "skip": "highway", "learn_initial_state": True, "bidirectional": True}
    torch.manual_seed(3)
    expected = elman.Recurrent(kind(8, 4), **options)
    rnn = elman.Recurrent(kind(8, 4), **options)
    held = list(rnn.parameters())
    with torch.no_grad():
        for parameter in held:
            parameter.fill_(7.0)
    torch.manual_seed(3)
    rnn.reset_parameters()
    assert all(a is b for a, b in zip(held, rnn.parameters(), strict=True))  # the optimiser's
    agree(held, list(expected.parameters()), 0.0)


def test_reset_parameters_keeps_the_forget_bias():
    rnn = elman.LSTM(4, 6, forget_bias=1.0)
    with torch.no_grad():
        rnn.bias_ih_l0.zero_()
    rnn.reset_parameters()
    assert (rnn.bias_ih_l0[6:12] == 1).all()
    assert not rnn.bias_hh_l0[6:12].any()


def test_reset_parameters_of_computed_weights(agree):
    rnn = elman.LSTM(4, 6)
    prune.l1_unstructured(rnn, "weight_hh_l0", 0.5)
    before = rnn.weight_hh_l0_orig.clone()
    rnn.reset_parameters()
    assert not torch.equal(rnn.weight_hh_l0_orig, before)

    class Halved(nn.Module):
        def forward(self, w):
            return w / 2

        def right_inverse(self, w):
            return w * 2

    rnn = elman.LSTM(4, 6)
    parametrize.register_parametrization(rnn, "weight_hh_l0", Halved())
    torch.manual_seed(3)
    rnn.reset_parameters()
    torch.manual_seed(3)
    agree(rnn.weight_hh_l0, elman.LSTM(4, 6).weight_hh_l0, 1e-7)

    class OneWay(nn.Module):
        def forward(self, w):
            return w / 2

    rnn = elman.LSTM(4, 6)
    parametrize.register_parametrization(rnn, "weight_hh_l0", OneWay())
    with pytest.raises(elman.InputError, match="weight_hh_l0 cannot be drawn anew"):
        rnn.reset_parameters()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "prune"])
def test_hooks_compute_the_weights_of_a_step_too(how, agree):
    """They run before a forward; a step alone read what the last forward had computed."""
    rnn, theirs, x = elman.GRU(4, 6).eval(), nn.GRU(4, 6).eval(), torch.randn(5, 2, 4)
    theirs.load_state_dict(rnn.state_dict())
    for network in (rnn, theirs):
        torch.manual_seed(0)
        if how == "prune":
            prune.l1_unstructured(network, "weight_hh_l0", 0.5)
        else:
            getattr(nn.utils, how)(network, "weight_hh_l0")
    with torch.no_grad():
        for _ in range(2):
            for network in (rnn, theirs):
                for name, parameter in network.named_parameters():
                    if "weight_hh" in name:
                        parameter.mul_(0.5)
            state = None
            for row in x:
                y, state = rnn.step(row, state)
            agree(y, theirs(x)[0][-1], 1e-5)


def test_replicas_of_data_parallel(agree):
    """Their weights are plain tensors, in attributes of the weights' names."""
    rnn, x = elman.LSTM(4, 6, 2, bidirectional=True), torch.randn(5, 2, 4)
    replica = rnn._replicate_for_data_parallel()
    for name, parameter in rnn.named_parameters():
        setattr(replica, name, parameter * 0.5)
    expected = elman.LSTM(4, 6, 2, bidirectional=True)
    expected.load_state_dict({name: p * 0.5 for name, p in rnn.state_dict().items()})
    agree(replica(x), expected(x), 0.0)


def test_swapped_parameters(agree):
    rnn, x = elman.LSTM(4, 6, 2), torch.randn(5, 2, 4)
    with torch.no_grad():
        _, state = rnn.step(x[0])
        rnn.step(x[1], state)
    other = elman.LSTM(4, 6, 2)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        rnn.double().float()
        rnn.load_state_dict(other.state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    agree(rnn(x), other(x), 0.0)
    with torch.no_grad():
        agree(rnn.step(x[1], state), other.step(x[1], state), 0.0)


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_weight_drop_is_one_mask_of_the_recurrent_matrices_a_run(kind, engine, agree, gradients):
    """Against a loop over the steps, of each layer and direction, with masks drawn alike."""
    cell = kind(3, 4)
    matrices = cell.state_matrices()
    if not matrices:
        with pytest.raises(elman.InputError, match="has none: leave it out, or choose another"):
            elman.Recurrent(cell, weight_drop=0.4)
        return
    rnn = elman.Recurrent(cell, 2, bidirectional=True, weight_drop=0.4)
    x, learned = torch.randn(5, 2, 3, dtype=torch.float64), list(rnn.parameters())
    torch.manual_seed(7)
    with elman.engine(engine):
        y, _ = rnn(x)
    torch.manual_seed(7)
    expected = x
    for layer in range(2):
        outputs = []
        for direction in range(2):
            k = 2 * layer + direction
            kept = {
                name: dropout(w, 0.4) if name in matrices else w
                for name, w in rnn.weights(k).items()
            }
            bound = rnn.cells[k].bind(kept)
            states = tuple(torch.zeros(2, size, dtype=x.dtype) for size in bound.state_sizes)
            steps = []
            for row in reversed(expected) if direction else expected:
                states = bound(row, *states)
                steps.append(states[0])
            outputs.append(torch.stack(steps[::-1] if direction else steps))
        expected = torch.cat(outputs, -1)
    agree(y, expected)
    agree(gradients(y, learned), gradients(expected, learned))
    assert not torch.equal(rnn(x)[0], rnn(x)[0]), "runs must differ"


def test_weight_drop_keeps_the_expectation(kinds):
    cell = kinds["lstm"](20, 20)
    weights = {name: torch.ones_like(w) for name, w in cell.named_parameters()}
    kept = dropped(cell, weights, 0.3, training=True)
    assert kept["weight_ih"] is weights["weight_ih"]
    mask = kept["weight_hh"]  # 1,600 independent draws: five standard deviations
    torch.testing.assert_close(mask, (mask != 0).double() / 0.7)
    assert abs((mask == 0).double().mean() - 0.3) < 5 * (0.3 * 0.7 / mask.numel()) ** 0.5


def test_weight_drop_acts_in_training_only(agree):
    rnn, x = elman.GRU(3, 4, 2, weight_drop=0.9), torch.randn(5, 2, 3)
    same = elman.GRU(3, 4, 2)
    same.load_state_dict(rnn.state_dict())
    agree(rnn.step(x[0]), same.step(x[0]), 0.0)
    agree(rnn.eval()(x), same(x), 0.0)
    with pytest.raises(elman.InputError, match=r"weight_drop must be a number in \[0, 1\]"):
        elman.GRU(3, 4, weight_drop=2)
