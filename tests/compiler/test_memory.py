"""The engine reads memory: whatever stands between memory and numbers is resolved before."""

from __future__ import annotations

import pytest
import torch

import elman
from elman import Recurrent
from elman.cells import LRU, LSTM, QRNN, IndRNN, MinGRU, PeepholeLSTM
from elman.compiler.memory import plain, resolved
from elman.errors import InputError

STEPS, BATCH, WIDTH, SIZE = 5, 3, 2, 4


def negative(t):
    """The same numbers, behind a sign that is yet to be turned."""
    view = torch.complex(torch.zeros_like(t), -t.detach()).conj().imag
    assert view.is_neg() and torch.equal(view.resolve_neg(), t)
    return view


def negative_in_a_row(t):
    """As :func:`negative`, one after the other in memory."""
    view = torch._neg_view(-t.detach())
    assert view.is_neg() and view.is_contiguous()
    return view


def strided(t):
    """The same numbers, every other one in memory."""
    return torch.stack([t, t + 7], -1)[..., 0]


def turned(t):
    """The same numbers, the first axis last in memory."""
    return t.detach().movedim(0, -1).contiguous().movedim(-1, 0)


def shifted(t):
    """The same numbers, not at the beginning of their memory."""
    return torch.cat([t.new_ones(3), t.flatten()])[3:].view(t.shape)


LAYOUTS = [negative, negative_in_a_row, strided, turned, shifted, lambda t: t]
NETWORKS = [
    ("native", lambda: Recurrent(LSTM(WIDTH, SIZE), learn_initial_state=True)),
    ("native", lambda: Recurrent(PeepholeLSTM(WIDTH, SIZE), bidirectional=True)),
    ("scan", lambda: Recurrent(MinGRU(WIDTH, SIZE), layers=2)),
    ("scan", lambda: Recurrent(LRU(WIDTH, SIZE))),
    ("scan", lambda: Recurrent(QRNN(WIDTH, SIZE))),
]


def _run(network, x, state, weight, layout, resets=None, lengths=None):
    y, final = network(x, state, resets=resets, lengths=lengths)
    finals = (final,) if isinstance(final, torch.Tensor) else final
    leaves = [t for t in (*network.parameters(), x, *state_of(state)) if t.requires_grad]
    # The gradient of y is laid out in the same way.
    found = torch.autograd.grad(
        [y, *finals], leaves, [layout(weight), *(torch.ones_like(f) for f in finals)],
        allow_unused=True,
    )  # fmt: skip
    return [y, *finals, *(g for g in found if g is not None)]


def state_of(state):
    return [state] if isinstance(state, torch.Tensor) else [] if state is None else list(state)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("which", range(len(NETWORKS)))
def test_inputs_states_and_gradients_in_any_memory(which, layout, padded):
    torch.manual_seed(0)
    name, make = NETWORKS[which]
    network, lay = make().double(), LAYOUTS[layout]
    x = torch.randn(STEPS, BATCH, WIDTH, dtype=torch.float64)
    start = network.initial_state(BATCH)
    state = tuple(torch.randn_like(s) for s in state_of(start))
    weight = torch.randn(STEPS, BATCH, network.output_size, dtype=torch.float64)
    masks = [torch.rand(STEPS, BATCH) < 0.3, torch.tensor([5, 2, 0])] if padded else [None, None]

    def given(lay):
        parts = tuple(lay(s).requires_grad_() for s in state)
        return lay(x).requires_grad_(), parts[0] if len(parts) == 1 else parts, weight

    with elman.engine("reference"):
        expected = _run(network, *given(lambda t: t.clone()), lambda t: t, *masks)
    with elman.engine(name):
        got = _run(network, *given(lay), lay, *map(_everyother, masks))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def _everyother(mask):
    return None if mask is None else torch.stack([mask, mask * 0 + 1 > 0], -1)[..., 0].to(mask)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_lengths_of_every_whole_type_and_stride(dtype):
    network, x = elman.LSTM(WIDTH, SIZE), torch.randn(STEPS, BATCH, WIDTH)
    lengths = torch.tensor([[3, 5], [0, 5], [4, 5]], dtype=dtype)[:, 0]
    y, (h, c) = network(x, lengths=lengths)
    for b, length in enumerate([3, 0, 4]):
        alone, (h_alone, c_alone) = network(x[:length, b : b + 1])
        torch.testing.assert_close(y[:length, b : b + 1], alone)
        torch.testing.assert_close(h[:, b : b + 1], h_alone)
        torch.testing.assert_close(c[:, b : b + 1], c_alone)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_resets_of_another_type_are_refused(dtype):
    network, x = elman.LSTM(WIDTH, SIZE), torch.randn(STEPS, BATCH, WIDTH)
    with pytest.raises(InputError, match="resets must be bool"):
        network(x, resets=torch.zeros(STEPS, BATCH, dtype=dtype))


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
def test_a_step_of_a_stream(layout):
    lay, network = LAYOUTS[layout], elman.LSTM(WIDTH, SIZE, num_layers=2)
    x, state = torch.randn(BATCH, WIDTH), network.initial_state(BATCH)
    state = tuple(torch.randn_like(s) for s in state)
    with torch.no_grad():
        expected = network.step(x, state)
        assert network.step(lay(x), tuple(map(lay, state)))[0].is_contiguous()
        torch.testing.assert_close(network.step(lay(x), tuple(map(lay, state))), expected)


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("cell", [LSTM, IndRNN, MinGRU])
def test_weights_in_any_memory(cell, layout):
    """They may come from anywhere, as by ``functional_call``."""
    lay, network = LAYOUTS[layout], Recurrent(cell(WIDTH, SIZE))
    x = torch.randn(STEPS, BATCH, WIDTH)
    weights = {n: lay(p.detach()) for n, p in network.named_parameters()}
    got = torch.func.functional_call(network, weights, (x,))
    torch.testing.assert_close(got, network(x))
    with torch.no_grad():
        state = network.initial_state(BATCH)
        expected = network.step(x[0], state)
        held = network._parameters
        try:
            network._parameters = weights
            torch.testing.assert_close(network.step(x[0], state), expected)
        finally:
            network._parameters = held


def test_gradients_that_are_one_number_or_zeros_that_lie_nowhere():
    network, x = elman.LSTM(WIDTH, SIZE), torch.randn(STEPS, BATCH, WIDTH)
    y, _ = network(x)
    weights = list(network.parameters())
    found = torch.autograd.grad(y, weights, torch.ones(()).expand_as(y), retain_graph=True)
    expected = torch.autograd.grad(y, weights, torch.ones_like(y), retain_graph=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    none = torch._efficientzerotensor(y.shape)
    for gradient in torch.autograd.grad(y, weights, none):
        assert not gradient.any()


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("form", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
def test_inputs_that_are_not_dense_are_refused(form):
    x = getattr(torch.randn(STEPS, BATCH, WIDTH), form)()
    with pytest.raises(elman.InputError, match=r"dense tensor.*x\.to_dense\(\)"):
        elman.LSTM(WIDTH, SIZE)(x)


@pytest.mark.parametrize("engine", ["reference", "native", "scan", "torch"])
@pytest.mark.parametrize("form", ["zeros", "subclass"])
def test_inputs_of_other_kinds(form, engine):
    class Kind(torch.Tensor):
        pass

    x = torch.randn(STEPS, BATCH, WIDTH)
    x = torch.zeros_like(x) if form == "zeros" else x
    given = torch._efficientzerotensor(x.shape) if form == "zeros" else x.as_subclass(Kind)
    network = Recurrent(MinGRU(WIDTH, SIZE)) if engine == "scan" else elman.LSTM(WIDTH, SIZE)
    with elman.engine(engine):
        for lengths in (None, torch.tensor([5, 0, 3])):
            got, expected = network(given, lengths=lengths)[0], network(x, lengths=lengths)[0]
            torch.testing.assert_close(got.as_subclass(torch.Tensor), expected)


def test_what_is_made_plain():
    t = torch.randn(2, 3)
    assert plain(t) is t and resolved(t.t()).stride() == (1, 3)
    assert torch.equal(plain(t.t()), t.t()) and plain(t.t()).is_contiguous()
    zeros = plain(torch._efficientzerotensor((2, 3)))
    assert not zeros._is_zerotensor() and zeros.data_ptr() and not zeros.any()
    assert plain(torch.empty(0, 3)).shape == (0, 3)
    assert torch.equal(plain(t.to_mkldnn()), t)


def test_memory_that_was_given_back_is_told():
    freed = torch.randn(8)[4:]
    freed.untyped_storage().resize_(0)  # as FSDP leaves weights between two uses
    with pytest.raises(InputError, match="has no memory"):
        plain(freed)
    network = elman.LSTM(WIDTH, SIZE)
    network.weight_hh_l0.untyped_storage().resize_(0)
    with pytest.raises(InputError, match=r"a tensor of shape \(16, 4\) has no memory"):
        network(torch.randn(STEPS, BATCH, WIDTH))


def test_saved_tensors_that_come_back_laid_out_otherwise():
    network, x = Recurrent(MinGRU(WIDTH, SIZE)), torch.randn(STEPS, BATCH, WIDTH)
    network(x)[0].square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, turned):
        network(x)[0].square().sum().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
