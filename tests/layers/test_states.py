"""States: where they start, what is learned of them, and how they are handed over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import elman
from elman import nested

pytestmark = pytest.mark.filterwarnings("ignore::elman.EngineWarning")

F64 = torch.float64


@given(
    sizes=st.sampled_from([(3,), (3, 3), (4, 3), (2, 3, 3)]),
    steps=st.integers(1, 5),
    batch=st.integers(1, 3),
    batch_first=st.booleans(),
    engine=st.sampled_from(["auto", "reference"]),
)
@example(sizes=(4, 3), steps=5, batch=3, batch_first=True, engine="auto")
def test_states_of_every_step_are_those_of_stepping(
    kind, sizes, steps, batch, batch_first, engine, agree, gradients, leaves
):
    rnn = elman.Recurrent(
        kind(2, sizes[0]), hidden_sizes=sizes, return_states="all", batch_first=batch_first
    )
    x = torch.randn(steps, batch, 2, dtype=F64, requires_grad=True)
    with elman.engine(engine):
        _, every = rnn(x.transpose(0, 1) if batch_first else x)
        _, last = rnn(x.transpose(0, 1) if batch_first else x, return_states="last")
    stepped, s = [], None
    for t in range(steps):
        _, s = rnn.step(x[t], s)
        stepped.append(leaves(s))
    expected = [torch.stack(column) for column in zip(*stepped, strict=True)]
    agree(every, expected)
    # The time comes first, whatever batch_first says of the batches.
    agree([s[-1] for s in leaves(every)], last)
    inputs = [x, *rnn.parameters()]
    agree(gradients(every, inputs), gradients(expected, inputs))


def test_states_of_every_step_of_the_backward_direction(kind, agree, leaves):
    """At its own time: the backward cell's state at step t, not at its t-th step."""
    rnn = elman.Recurrent(kind(2, 3), bidirectional=True)
    x = torch.randn(4, 2, 2, dtype=F64)
    y, every = rnn(x, return_states="all")
    first = leaves(every)[0]
    agree(torch.cat([first[:, 0], first[:, 1]], dim=-1), y)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("layer", [elman.LSTM, elman.GRU, elman.RNN])
def test_states_of_every_step_of_padded_batches(layer, engine, agree, leaves):
    """Past the end a state is held, in the layout of the last one, on every engine."""
    rnn = layer(2, 3, 2, dtype=F64)
    x, lengths = torch.randn(5, 3, 2, dtype=F64), torch.tensor([2, 0, 5])
    with elman.engine(engine):
        _, every = rnn(x, lengths=lengths, return_states="all")
        _, last = rnn(x, lengths=lengths)
    for every_leaf, last_leaf in zip(leaves(every), leaves(last), strict=True):
        agree(every_leaf[-1], last_leaf)
        agree(every_leaf[2:, :, 0], last_leaf[:, 0].expand(3, 2, 3))


def test_states_of_every_step_without_a_batch(agree, leaves):
    rnn = elman.LSTM(2, 3, 2, dtype=F64)
    x = torch.randn(4, 2, dtype=F64)
    _, every = rnn(x, return_states="all")
    _, batched = rnn(x.unsqueeze(1), return_states="all")
    agree(every, [s[:, :, 0] for s in leaves(batched)])


# -- the start --------------------------------------------------------------------------------


def learned(kind, **options):
    rnn = elman.Recurrent(kind(2, 3), 2, learn_initial_state=True, **options)
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if name.startswith("initial_"):
                parameter.uniform_(-1, 1)
    return rnn


def test_learned_start_is_one_parameter_for_each_state(kind):
    rnn = learned(kind, bidirectional=True)
    names = {name for name, _ in rnn.named_parameters() if name.startswith("initial_")}
    ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert names == {f"initial_{s}{end}" for s in rnn.cells[0].state for end in ends}
    fresh = elman.Recurrent(kind(2, 3), learn_initial_state=True)
    assert not any(p.any() for n, p in fresh.named_parameters() if n.startswith("initial_"))


# What a step does not read, or reads as a number of steps.
UNREAD = {
    "mlp": "h", "tdnn": "h", "narx": "y", "sru": "h", "sru-peephole": "h", "qrnn": "h", "lru": "h",
    "clockwork": "t",
}  # fmt: skip


def test_gradient_reaches_the_learned_start(kind):
    rnn = learned(kind)
    rnn(torch.randn(3, 2, 2, dtype=F64))[0].square().sum().backward()
    for name, parameter in rnn.named_parameters():
        unread = name.startswith(f"initial_{UNREAD.get(kind.name)}_")
        assert parameter.grad is not None or unread, name
        # The units of relu may all be off.
        if not unread and kind.name not in ("rnn-relu", "irnn", "indrnn"):
            assert parameter.grad.any(), name


def test_no_start_is_the_start(kind, agree):
    rnn = learned(kind)
    x = torch.randn(3, 2, 2, dtype=F64)
    agree(rnn(x), rnn(x, rnn.initial_state(2)))
    agree(rnn.step(x[0]), rnn.step(x[0], rnn.initial_state(2)))
    agree(rnn(x[:, 0]), rnn(x[:, 0], rnn.initial_state()))


def test_resets_return_to_the_learned_start(kind, agree):
    """Not to zero, and not to the state that was handed in."""
    rnn = learned(kind)
    x = torch.randn(5, 2, 2, dtype=F64)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[3] = True
    handed = nested.map(torch.randn_like, rnn.initial_state(2))
    y, last = rnn(x, handed, resets=resets)
    fresh, fresh_last = rnn(x[3:])
    agree((y[3:], last), (fresh, fresh_last))
    agree(y[:3], rnn(x[:3], handed)[0])


@pytest.mark.parametrize("learn", [False, True])
def test_shapes_of_the_initial_state(kinds, learn, leaves):
    options = {"learn_initial_state": learn}
    two = elman.Recurrent(kinds["FastSlow"](2, 4), 3, bidirectional=True, **options)
    assert [s.shape for s in two.initial_state(5)] == [(6, 5, 4), (6, 5, 3)]
    assert [s.shape for s in two.initial_state()] == [(6, 4), (6, 3)]
    # An empty batch is a batch: not the state of one sequence.
    assert [s.shape for s in two.initial_state(0)] == [(6, 0, 4), (6, 0, 3)]
    uneven = elman.LSTM(2, hidden_sizes=[4, 3], dtype=F64, **options).initial_state(5)
    assert [[s.shape for s in state] for state in uneven] == [[(5, 4), (5, 3)]] * 2
    assert {s.dtype for s in leaves(uneven)} == {F64}


def test_a_state_is_not_changed_in_place(kind, agree, leaves):
    """A caller may start twice from one state: beam search and rollouts do."""
    rnn = elman.Recurrent(kind(2, 3), 2)
    state = nested.map(torch.randn_like, rnn.initial_state(2))
    before = [s.clone() for s in leaves(state)]
    x = torch.randn(3, 2, 2, dtype=F64)
    resets = torch.ones(3, 2, dtype=torch.bool)
    rnn(x, state, lengths=[1, 2], resets=resets)
    rnn.step(x[0], state)
    agree(state, before, 0.0)


# -- the forget gate --------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [1.0, -2.5])
def test_forget_bias_is_the_sum_of_both(bias):
    """PyTorch's LSTM adds two biases: setting each to 1 would start the gate at 2."""
    rnn = elman.LSTM(3, 4, 2, bidirectional=True, forget_bias=bias)
    for k in range(4):
        weights = rnn.weights(k)
        total = (weights["bias_ih"] + weights["bias_hh"]).view(4, 4)
        assert torch.equal(total[1], torch.full((4,), bias))
        assert total[[0, 2, 3]].unique().numel() == 12, "the other gates keep their own start"


def test_forget_bias_of_a_user_cell(kinds):
    rnn = elman.Recurrent(kinds["Attractor"](3, 4), 2, forget_bias=1.5)
    for k in range(2):
        f, n = rnn.weights(k)["bias_drive"].view(2, 4)
        assert torch.equal(f, torch.full_like(f, 1.5))
        assert n.unique().numel() == 4
