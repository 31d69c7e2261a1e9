from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import elman
from elman.learning import OPTIMIZERS, decaying, make_optimizer


def _names(model):
    chosen = {id(p) for p in decaying(model)}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


BIASED = ("bias", "initial_", "weight_norm_")
"""How the names begin of what does not decay, of the library's own cells."""


@pytest.mark.parametrize("name", elman.cells.CELLS)
def test_the_weights_of_every_cell_decay_and_nothing_else(name):
    cell = elman.cells.make(name, 3, 4)
    network = elman.Recurrent(cell, learn_initial_state=True)
    expected = {n for n, _ in network.named_parameters() if not n.startswith(BIASED)}
    if name == "lru":
        expected -= {"weight_decay_l0"}
    assert _names(network) == expected
    assert _names(elman.cells.make(name, 3, 4)) == {n[:-3] for n in expected}


def test_stacks_with_links_norms_embeddings_and_parametrisations():
    rnn = elman.Recurrent(
        elman.cells.layer_norm(elman.cells.make("lstm-peephole", 4, 4)),
        layers=2,
        skip="highway",
        learn_initial_state=True,
    )
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(5, 4),
            "rnn": rnn,
            "norm": nn.LayerNorm((2, 4)),
            "head": nn.Linear(4, 5),
        }
    )
    layers = {f"rnn.weight_{w}_l{k}" for w in ("ih", "hh", "peephole") for k in (0, 1)}
    links = {"rnn.weight_highway_l0", "rnn.weight_highway_l1"}
    assert _names(model) == {"embedding.weight", "head.weight"} | layers | links

    class Same(nn.Module):
        def forward(self, w):
            return w

    rnn = elman.Recurrent(elman.cells.make("indrnn", 3, 4))
    before = _names(rnn)
    for name in [n for n, _ in rnn.named_parameters()]:
        parametrize.register_parametrization(rnn, name, Same())
    assert _names(rnn) == {f"parametrizations.{name}.original" for name in before}


def test_a_diagonal_may_be_spared_and_a_shared_weight_counts_once():
    class Leaky(elman.Cell):
        u = elman.Linear(of="x", bias=True, weight="bias_of_mine")
        leak = elman.Diagonal(decay=False)
        recurrent = elman.Diagonal()

        def step(self, x, h):
            return torch.sigmoid(self.leak) * h + torch.tanh(self.u(x) + self.recurrent * h)

    assert _names(Leaky(3, 4)) == {"bias_of_mine", "weight_recurrent"}
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    assert len(decaying(model)) == 1


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rprop"])
def test_an_update_without_a_gradient_shrinks_what_decays(name):
    torch.manual_seed(0)
    network = elman.Recurrent(elman.cells.make("indrnn", 3, 4))
    optimizer = make_optimizer(name, network, 0.1, weight_decay=0.5)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    chosen = _names(network)
    for n, p in network.named_parameters():
        assert torch.equal(p, before[n]) == (n not in chosen), n
    if name == "adamw":
        weight = "weight_recurrent_l0"
        assert torch.allclose(network.get_parameter(weight), before[weight] * (1 - 0.1 * 0.5))
