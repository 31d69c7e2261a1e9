"""How a job's network starts."""

from __future__ import annotations

import pytest
import torch

import elman
from elman import InputError
from elman.cells import CELLS, make
from elman.training.network import NetworkSettings, has_forget_gate, make_recurrent


def _forget_biases(network):
    """What the forget gate of each cell starts with: the sum of its biases."""
    found = []
    for cell in network.cells:
        named = [(cell.blocks_of(n), p) for n, p in cell.named_parameters() if n[:5] == "bias_"]
        parts = [p.view(len(b), -1)[b.index("f")] for b, p in named if "f" in b]
        found.append(sum(parts).detach())
    return found


@pytest.mark.parametrize("biases", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole", "sru", "qrnn", "minlstm"])
def test_forget_gates_of_jobs_start_at_one(cell, biases):
    network = make_recurrent(NetworkSettings(cell=cell, hidden=3, layers=2, biases=biases), 2)
    for bias in _forget_biases(network):
        assert torch.equal(bias, torch.ones(3))
    other = make_recurrent(NetworkSettings(cell=cell, hidden=3, forget_bias=-2.0), 2)
    assert torch.equal(_forget_biases(other)[0], torch.full((3,), -2.0))


def test_drop_ins_start_as_torch_does():
    torch.manual_seed(0)
    ours = elman.LSTM(2, 3)
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(2, 3)
    for name, weight in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), weight), name


def test_cells_without_a_forget_gate_start_as_they_do():
    for name in CELLS:
        cell = make(name, 4, 4)
        kept = "f" in {b for n, _ in cell.named_parameters() for b in cell.blocks_of(n)}
        assert has_forget_gate(cell) == kept, name
        torch.manual_seed(0)
        network = make_recurrent(NetworkSettings(cell=name, hidden=4, biases=1), 4)
        torch.manual_seed(0)
        plain = elman.Recurrent(make(name, 4, 4))
        alike = all(
            torch.equal(a, b) for a, b in zip(network.parameters(), plain.parameters(), strict=True)
        )
        assert alike != kept, name
    # One without biases has nothing to set.
    assert not has_forget_gate(make("lstm", 4, 4, biases=0))
    make_recurrent(NetworkSettings(cell="lstm", hidden=4, biases=0), 4)
    with pytest.raises(InputError, match="GRU has no block 'f'"):
        make_recurrent(NetworkSettings(cell="gru", hidden=4, forget_bias=1.0), 4)
