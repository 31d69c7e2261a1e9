"""Streaming through the engine: the same numbers as forward, whatever happens to the weights."""

import copy
import pickle

import pytest
import torch

import elman
from elman.layers import stepping


@pytest.mark.parametrize(
    "make",
    [
        lambda: elman.LSTM(5, 19, 2),
        lambda: elman.GRU(5, 19, 3),
        lambda: elman.GRU(5, 19, 2, reset_after=False),
        lambda: elman.RNN(5, 19, 1),
        lambda: elman.LSTM(5, 19, 2, proj_size=7),
        lambda: elman.LSTM(5, 160, 2).double(),
    ],
)
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_steps_give_what_forward_gives(make, batch):
    torch.manual_seed(0)
    network = make()
    like = next(network.parameters())
    shape = (6, 5) if batch is None else (6, batch, 5)
    x = torch.randn(shape, dtype=like.dtype)
    with torch.no_grad(), elman.engine("reference"):
        expected, last = network(x)
    state, outputs = network.initial_state(batch), []
    with torch.no_grad():
        for row in x:
            y, state = network.step(row, state)
            outputs.append(y)
    assert stepping.of(network) is not None
    torch.testing.assert_close(torch.stack(outputs), expected, atol=1e-5, rtol=1e-4)
    state, last = ((s,) if isinstance(s, torch.Tensor) else s for s in (state, last))
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def changed_in_place(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)


def replaced(network):
    network.weight_ih_l0 = torch.nn.Parameter(network.weight_ih_l0 * 0.5)


def loaded(network):
    network.load_state_dict(elman.LSTM(4, 8, 2).state_dict())


@pytest.mark.parametrize("change", [changed_in_place, replaced, loaded])
def test_changed_weights_are_seen(change):
    torch.manual_seed(0)
    network, x = elman.LSTM(4, 8, 2), torch.randn(1, 4)
    state = network.initial_state(1)
    with torch.no_grad():
        before, _ = network.step(x, state)
        change(network)
        after, _ = network.step(x, state)
        with elman.engine("reference"):
            expected, _ = network.step(x, state)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=1e-5)


def test_states_and_outputs_are_ones_own():
    # A caller may change what it was given without changing the stream.
    network, x = elman.LSTM(4, 8), torch.randn(1, 4)
    with torch.no_grad():
        y, state = network.step(x, network.initial_state(1))
        kept = [s.clone() for s in state]
        y.zero_()
        network.step(x, state)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))


def test_a_network_that_has_streamed_can_be_copied_and_pickled():
    network, x = elman.LSTM(4, 8, 2), torch.randn(1, 4)
    state = network.initial_state(1)
    with torch.no_grad():
        y, _ = network.step(x, state)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other.step(x, state)[0], y)


def test_gradients_flow_through_steps():
    network, x = elman.LSTM(4, 8), torch.randn(1, 4, requires_grad=True)
    y, _ = network.step(x, network.initial_state(1))
    y.sum().backward()
    assert x.grad is not None


def test_a_wrong_state_is_refused():
    network = elman.LSTM(4, 8, 2)
    state = network.initial_state(1)
    with torch.no_grad():
        network.step(torch.randn(1, 4), state)
        with pytest.raises(elman.InputError, match="state"):
            network.step(torch.randn(2, 4), state)


def test_a_stream_that_begins_in_inference_mode_is_one_call():
    network = elman.Recurrent(elman.cells.LSTM(5, 7), 2)
    with torch.inference_mode():
        _, state = network.step(torch.randn(2, 5))
        network.step(torch.randn(2, 5), state)
    assert stepping.of(network) is not None
