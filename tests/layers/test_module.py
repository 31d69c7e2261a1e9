"""A recurrent network as a torch module: what PyTorch's own tools do with it still works."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

import elman
from elman import cells, nested
from elman.layers.sequences import Sequences

F64 = torch.float64
ENGINES = ["auto", "reference"]


@pytest.fixture(params=ENGINES)
def engine(request):
    with elman.engine(request.param):
        yield request.param


def network(kind, **options):
    return elman.Recurrent(
        kind(3, 4), 2, learn_initial_state=True, skip="highway", bidirectional=True, **options
    )


def data(*shape):
    return torch.randn(*shape, dtype=F64)


# -- copies -----------------------------------------------------------------------------------


def test_deep_copies_are_apart(kind, agree):
    rnn, x = network(kind), data(4, 2, 3)
    twin = copy.deepcopy(rnn)
    before = rnn(x)
    agree(twin(x), before, 0.0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    agree(rnn(x), before, 0.0)
    assert not torch.equal(twin(x)[0], before[0])


@pytest.mark.parametrize("name", list(cells.CELLS))
def test_pickling(name, kinds, agree):
    rnn, x = network(kinds[name]), data(4, 2, 3)
    again = pickle.loads(pickle.dumps(rnn))
    agree(again(x), rnn(x), 0.0)
    # What the deeper layers are made from survives, too.
    assert again._cells[0].resized(5, 6).input_size == 5


def test_state_dict_through_a_file(kind, agree):
    rnn, other, x = network(kind), network(kind), data(4, 2, 3)
    file = io.BytesIO()
    torch.save(rnn.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    agree(other(x), rnn(x), 0.0)


def test_cells_are_not_submodules(kind):
    """Their weights would be saved, moved and counted twice."""
    rnn = network(kind)
    assert list(rnn.children()) == []
    names = [name for name, _ in rnn.named_parameters()]
    assert len(names) == len(set(names))
    constants = [name for name, _ in rnn.named_buffers()]
    assert len(names) + len(constants) == len(rnn.state_dict())


def test_replaced_weights_are_let_go(kind, agree):
    """A cell that kept the weights it was made with would hold them in memory for good."""
    rnn, other, x = network(kind), network(kind), data(4, 2, 3)
    former = [weakref.ref(parameter) for parameter in rnn.parameters()]
    rnn.load_state_dict(other.state_dict(), assign=True)
    agree(rnn(x), other(x), 0.0)
    gc.collect()
    assert not any(reference() is not None for reference in former)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_to_another_dtype(kind, engine, agree):
    rnn, x = network(kind), data(4, 2, 3)
    expected = rnn(x)
    received = rnn.float()(x.float())
    agree(received, [t.float() for t in _flat(expected)], 1e-5)


def _flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in _flat(v)]


def test_deeper_layers_are_of_the_first_cells_dtype(kind):
    """A cell that was moved after it was made: the layers that are made like it follow it."""
    rnn = elman.Recurrent(
        kind(3, 4, dtype=torch.float32).double(), 2, bidirectional=True, skip="highway"
    )
    assert {p.dtype for p in rnn.parameters()} == {F64}


def test_on_the_meta_device():
    """Large models are made without memory first; nothing may ask for values."""
    rnn = elman.LSTM(3, 4, 2, device="meta", learn_initial_state=True, forget_bias=1.0)
    assert {p.device.type for p in rnn.parameters()} == {"meta"}


# -- weights from elsewhere -------------------------------------------------------------------


def test_functional_call(kind, engine, agree):
    rnn, other, x = network(kind), network(kind), data(4, 2, 3)
    received = functional_call(rnn, dict(other.named_parameters()), (x,))
    agree(received, other(x), 0.0)


def test_gradients_by_sample(kind, agree):
    """torch.func over the reference engine: vmap(grad) is a loop over the batch."""
    rnn, x = elman.Recurrent(kind(3, 4), 2), data(5, 4, 3)
    weights = dict(rnn.named_parameters())

    def loss(weights, x):
        return functional_call(rnn, weights, (x,))[0].square().sum()

    with elman.engine("reference"):
        many = vmap(grad(loss), in_dims=(None, 1))(weights, x)
        for b in range(4):
            one = grad(loss)(weights, x[:, b])
            agree([g[b] for g in many.values()], list(one.values()))


def test_weight_norm_takes_effect(engine, agree, gradients):
    rnn, plain, x = elman.LSTM(3, 4, 2, dtype=F64), elman.LSTM(3, 4, 2, dtype=F64), data(5, 2, 3)
    plain.load_state_dict(rnn.state_dict())
    weight_norm(rnn, "weight_hh_l0")
    agree(rnn(x), plain(x))
    gain, direction = (getattr(rnn.parametrizations.weight_hh_l0, f"original{k}") for k in (0, 1))
    with torch.no_grad():
        gain.mul_(0.5)
        plain.weight_hh_l0.mul_(0.5)
    agree(rnn(x), plain(x))
    agree(rnn.step(x[0]), plain.step(x[0]))
    for found in gradients(rnn(x), [gain, direction]):
        assert found.any()


def test_any_parametrization_of_a_user_cell(kinds, agree):
    class Orthogonal(nn.Module):
        def forward(self, w):
            return torch.linalg.qr(w)[0]

    rnn, x = elman.Recurrent(kinds["mrnn"](3, 4)), data(5, 2, 3)
    parametrize.register_parametrization(rnn, "weight_recall_l0", Orthogonal())
    w = rnn.cells[0].weight_recall
    agree(w @ w.T, torch.eye(4, dtype=F64))
    plain = elman.Recurrent(kinds["mrnn"](3, 4))
    weights = {n: getattr(rnn, n) for n, _ in plain.named_parameters()}
    plain.load_state_dict({n: v.detach() for n, v in weights.items()})
    agree(rnn(x), plain(x))


def test_weights_are_read_at_every_call(kind, engine):
    """An optimiser's step must show: nothing may keep an older copy."""
    rnn, x = network(kind), data(4, 2, 3)
    before = rnn(x)[0]
    torch.optim.SGD(rnn.parameters(), 0.1).zero_grad()
    before.square().sum().backward()
    torch.optim.SGD(rnn.parameters(), 0.1).step()
    assert not torch.equal(rnn(x)[0], before)


# -- derivatives ------------------------------------------------------------------------------


def test_second_derivatives(kind):
    rnn = elman.Recurrent(kind(2, 2), learn_initial_state=True)
    names = [name for name, _ in rnn.named_parameters()]

    def run(x, *weights):
        return functional_call(rnn, dict(zip(names, weights, strict=True)), (x,))[0]

    x = data(2, 1, 2).requires_grad_()
    with elman.engine("reference"):
        assert torch.autograd.gradcheck(run, (x, *rnn.parameters()))
        assert torch.autograd.gradgradcheck(run, (x, *rnn.parameters()))


def test_no_gradient_is_kept_without_grad(kind, engine, leaves):
    rnn = network(kind)
    with torch.no_grad():
        result = rnn(data(4, 2, 3))
    assert not any(t.requires_grad for t in leaves(result))


@pytest.mark.parametrize("layer", [elman.LSTM, elman.GRU, elman.RNN])
def test_autocast(layer, engine):
    rnn, x = layer(3, 8, 2), torch.randn(6, 4, 3)
    expected = rnn(x, lengths=[6, 2, 0, 5])[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = rnn(x, lengths=[6, 2, 0, 5])
    y.float().sum().backward()
    torch.testing.assert_close(y.float(), expected, atol=0.05, rtol=0.05)
    for parameter in rnn.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


# -- shapes at the edge -----------------------------------------------------------------------


@pytest.mark.parametrize("forward_only", [True, False])
def test_empty_batch(kind, forward_only, leaves):
    """The last batch of a filtered data set may be empty; training must go on."""
    rnn = elman.Recurrent(kind(3, 4), 2, bidirectional=not forward_only)
    x = data(5, 0, 3).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing runs slower here
        y, state = rnn(x)
    assert y.shape == (5, 0, rnn.output_size)
    for a, b in zip(leaves(state), leaves(rnn.initial_state(0)), strict=True):
        assert a.shape == b.shape
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
def test_empty_padded_batch(kind):
    rnn = elman.Recurrent(kind(3, 4), 2)
    for lengths in ([], torch.zeros(0, dtype=torch.long)):
        assert rnn(data(5, 0, 3), lengths=lengths)[0].shape == (5, 0, rnn.output_size)


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
def test_no_steps_at_all(kind, agree, leaves):
    """A stream's chunk may be empty: the state goes through, and so does its gradient."""
    rnn = network(kind)
    state = nested.map(torch.Tensor.requires_grad_, rnn.initial_state(2))
    y, last = rnn(data(0, 2, 3), state)
    assert y.shape == (0, 2, rnn.output_size)
    agree(last, state)
    _, every = rnn(data(0, 2, 3), state, return_states="all")
    assert [s.shape for s in leaves(every)] == [(0, *s.shape) for s in leaves(state)]


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
def test_all_sequences_empty(kind, agree, leaves):
    rnn = network(kind)
    state = rnn.initial_state(2)
    y, last = rnn(data(3, 2, 3), state, lengths=[0, 0])
    assert not y.any()
    agree(last, leaves(state))


def test_inputs_and_states_that_are_not_contiguous(kind, engine, agree, leaves):
    rnn = elman.Recurrent(kind(3, 4), 2)
    x = data(2, 3, 5).permute(2, 0, 1)
    state = nested.map(
        lambda s: data(*s.shape[:-2], 4, 2 * s.shape[-1])[..., ::2, ::2], rnn.initial_state(2)
    )
    assert not x.is_contiguous()
    assert not leaves(state)[0].is_contiguous()
    dense = nested.map(torch.Tensor.contiguous, state)
    agree(rnn(x, state), rnn(x.contiguous(), dense), 1e-14)


@pytest.mark.parametrize("form", [list, tuple, torch.IntTensor, torch.ByteTensor])
def test_lengths_as_they_come(form, agree):
    rnn, x = elman.GRU(3, 4, bidirectional=True, dtype=F64), data(5, 3, 3)
    values = [2, 5, 0]
    agree(rnn(x, lengths=form(values)), rnn(x, lengths=torch.tensor(values)), 0.0)
    # The engines are promised int64: unsigned lengths would wrap where one is subtracted.
    assert Sequences.of(x, form(values), None, 3, False).lengths.dtype == torch.int64


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_with_resets_is_padded_with_resets(kind, batch_first, agree):
    rnn = network(kind, batch_first=batch_first)
    lengths, x = torch.tensor([2, 5, 3]), data(5, 3, 3)
    resets = torch.rand(5, 3) < 0.5
    if batch_first:
        x, resets = x.transpose(0, 1), resets.T
    packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    y, last = rnn(packed, resets=resets)
    padded, padded_last = rnn(x, lengths=lengths, resets=resets)
    expected = pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False)
    agree((y.data, last), (expected.data, padded_last), 0.0)


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
def test_one_sequence_without_a_batch(kind, agree, leaves):
    """As a batch of one, for everything that a call takes."""
    rnn = network(kind)
    x, resets = data(5, 3), torch.tensor([False, True, False, False, True])
    state = nested.map(torch.randn_like, rnn.initial_state())
    wide = nested.map(lambda s: s.unsqueeze(-2), state)
    y, last = rnn(x, state, lengths=[4], resets=resets)
    expected, expected_last = rnn(x.unsqueeze(1), wide, lengths=[4], resets=resets.unsqueeze(1))
    first = [s[..., 0, :] for s in leaves(expected_last)]
    agree((y, last), (expected[:, 0], first), 1e-14)


def test_one_stream_without_a_batch(kind, agree, leaves):
    rnn, x = elman.Recurrent(kind(3, 4), 2), data(3)
    y, state = rnn.step(x)
    expected, expected_state = rnn.step(x.unsqueeze(0))
    agree((y, state), (expected[0], [s[..., 0, :] for s in leaves(expected_state)]))
    y, _ = rnn.step(x, state)
    agree(y, rnn.step(x.unsqueeze(0), expected_state)[0][0])


def test_hidden_sizes(kind):
    rnn = elman.Recurrent(kind(3, 4), hidden_sizes=[5, 3, 6], bidirectional=True)
    assert [c.hidden_size for c in rnn.cells] == [5, 5, 3, 3, 6, 6]
    widths = [c.state_sizes[0] for c in rnn.cells]
    expected = [3, 3, 2 * widths[0], 2 * widths[0], 2 * widths[2], 2 * widths[2]]
    assert [c.input_size for c in rnn.cells] == expected
    assert (rnn.num_layers, rnn.hidden_size, rnn.output_size) == (3, 6, 2 * widths[4])


def test_deeper_layers_keep_the_cells_options(kinds):
    """The nonlinearity and the projection, however they were given."""
    for cell in (cells.Elman(3, 4, "relu"), cells.Elman(input_size=3, hidden_size=4,
                 nonlinearity="relu", biases=2)):  # fmt: skip
        deep = elman.Recurrent(cell, 3).cells[2]
        assert (deep.nonlinearity, deep.biases) == ("relu", cell.biases)
    deep = elman.Recurrent(cells.ProjectedLSTM(3, 4, proj_size=2), 2).cells[1]
    assert (deep.input_size, deep.proj_size) == (2, 2)
    assert elman.Recurrent(kinds["FastSlow"](3, 4, slow=7), 2).cells[1].state_sizes == (4, 7)


def test_a_cell_that_passes_its_arguments_on():
    """``*args`` is how most people extend a constructor."""

    class Decaying(cells.LSTM):
        def __init__(self, *args, decay=0.5, **options):
            self.decay = decay
            super().__init__(*args, **options)

    class Renaming(cells.LSTM):
        def __init__(self, n_in, n_out, decay=0.5):
            self.decay = decay
            super().__init__(n_in, n_out)

    for first in (
        Renaming(3, 4, 0.25), Renaming(n_out=4, n_in=3, decay=0.25),
        Decaying(3, 4, decay=0.25), Decaying(3, hidden_size=4, decay=0.25),
        Decaying(input_size=3, hidden_size=4, decay=0.25),
    ):  # fmt: skip
        deep = elman.Recurrent(first, hidden_sizes=[4, 6]).cells[1]
        assert (deep.input_size, deep.hidden_size, deep.decay) == (4, 6, 0.25)


def test_repr_shows_what_runs():
    text = repr(elman.LSTM(3, hidden_sizes=[4, 5], bidirectional=True))
    for part in ("LSTM", "3 → [4, 5]", "bidirectional", "engine="):
        assert part in text
