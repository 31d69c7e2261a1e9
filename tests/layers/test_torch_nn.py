"""``elman.LSTM``, ``GRU`` and ``RNN`` against ``torch.nn``, over a drawn grid of arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import elman
from elman import nested

LAYERS = {"LSTM": (elman.LSTM, nn.LSTM), "GRU": (elman.GRU, nn.GRU), "RNN": (elman.RNN, nn.RNN)}


@pytest.fixture(params=LAYERS, scope="session")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    hidden = draw(st.sampled_from([2, 3, 5, 8]))
    return {
        "input_size": draw(st.integers(1, 5)),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "proj_size": draw(st.sampled_from([0, 1, hidden - 1])),
        "nonlinearity": draw(st.sampled_from(["tanh", "relu"])),
    }


def pair(name: str, arguments: dict[str, Any]) -> tuple[elman.Recurrent, nn.Module]:
    """The two networks of the same arguments, the second with weights of the first."""
    own = {"LSTM": "proj_size", "RNN": "nonlinearity"}.get(name)
    arguments = {
        k: v for k, v in arguments.items() if k not in ("proj_size", "nonlinearity") or k == own
    }
    ours, theirs = (layer(**arguments, dtype=torch.float64) for layer in LAYERS[name])
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


BASE = {
    "input_size": 3, "hidden_size": 4, "num_layers": 2, "bias": True, "batch_first": False,
    "bidirectional": True, "proj_size": 0, "nonlinearity": "tanh",
}  # fmt: skip


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("form", ["batched", "unbatched", "packed", "packed unsorted", "lengths"])
@settings(max_examples=20)
@given(arguments=arguments(), steps=st.integers(1, 6), batch=st.integers(1, 4), own=st.booleans())
@example(arguments=BASE, steps=5, batch=4, own=True)
def test_outputs_states_and_gradients(
    name, engine, form, arguments, steps, batch, own, agree, gradients, leaves
):
    ours, theirs = pair(name, arguments)
    first = arguments["batch_first"]
    width = arguments["input_size"]
    shape = (steps, width) if form == "unbatched" else (steps, batch, width)
    x = torch.randn(shape, dtype=torch.float64)
    x = (x.transpose(0, 1).contiguous() if first and x.dim() == 3 else x).requires_grad_()

    state = None
    if own:
        state = ours.initial_state(None if form == "unbatched" else batch)
        state = nested.map(lambda s: torch.randn_like(s).requires_grad_(), state)

    given_ours: Any = x
    given_theirs: Any = x
    lengths = torch.randint(1, steps + 1, (batch,))
    if form == "packed":
        lengths = lengths.sort(descending=True).values
    if form in ("packed", "packed unsorted", "lengths"):
        given_theirs = pack_padded_sequence(
            x, lengths, batch_first=first, enforce_sorted=form == "packed"
        )
        given_ours = x if form == "lengths" else given_theirs
    options = {"lengths": lengths} if form == "lengths" else {}

    with elman.engine(engine):
        y, last = ours(given_ours, state, **options)
    expected, expected_last = theirs(given_theirs, state)

    if form == "lengths":
        y = pack_padded_sequence(y, lengths, batch_first=first, enforce_sorted=False)
    if isinstance(expected, PackedSequence):
        assert torch.equal(y.batch_sizes, expected.batch_sizes)
        for field in ("sorted_indices", "unsorted_indices"):
            a, b = getattr(y, field), getattr(expected, field)
            assert (a is None and b is None) or torch.equal(a, b)
        y, expected = y.data, expected.data
    # A tuple of (h, c) in one and a tensor in the other would pass as the same leaves.
    assert isinstance(last, torch.Tensor) == isinstance(expected_last, torch.Tensor)
    agree((y, last), (expected, expected_last))
    given_leaves = [x, *leaves(state)]
    agree(
        gradients((y, last), [*given_leaves, *ours.parameters()]),
        gradients((expected, expected_last), [*given_leaves, *theirs.parameters()]),
    )


@given(arguments=arguments())
def test_names_order_and_state_dicts(name, arguments):
    ours, theirs = pair(name, arguments)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    for (a, p), (b, q) in pairs:
        # Optimisers keep their state by position: the order counts as much as the names.
        assert a == b
        assert torch.equal(p, q)


@given(arguments=arguments(), seed=st.integers(0, 9))
def test_same_seed_same_weights(name, arguments, seed):
    weights = []
    for k in (0, 1):
        own = {"LSTM": "proj_size", "RNN": "nonlinearity"}.get(name)
        kept = {
            a: v for a, v in arguments.items() if a not in ("proj_size", "nonlinearity") or a == own
        }
        torch.manual_seed(seed)
        weights.append(list(LAYERS[name][k](**kept).parameters()))
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("name", "positional"),
    [
        ("LSTM", (3, 4, 2, False, True, 0.25, True, 2)),
        ("GRU", (3, 4, 2, False, True, 0.25, True)),
        ("RNN", (3, 4, 2, "relu", False, True, 0.25, True)),
    ],
)
def test_positional_arguments(name, positional, agree):
    ours, theirs = (layer(*positional) for layer in LAYERS[name])
    theirs.load_state_dict(ours.state_dict(), strict=True)
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
    names += ["bidirectional", {"LSTM": "proj_size", "RNN": "nonlinearity"}.get(name, "bias")]
    for attribute in names:
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    x = torch.randn(2, 5, 3)
    agree(ours.eval()(x), theirs.eval()(x), 1e-6)


# PyTorch says so of torch.nn.LSTM, too.
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("engine", ["auto", "reference"])
@given(arguments=arguments(), padded=st.booleans())
def test_single_precision(name, engine, arguments, padded, agree, gradients):
    """Float32 takes other kernels in PyTorch: oneDNN's, with a backward of their own."""
    ours, theirs = (network.float() for network in pair(name, arguments))
    x = torch.randn(4, 4, arguments["input_size"], requires_grad=True)
    lengths = torch.tensor([4, 1, 3, 2])
    if padded:
        with elman.engine(engine):
            y, last = ours(x, lengths=lengths)
        packed = pack_padded_sequence(
            x, lengths, batch_first=arguments["batch_first"], enforce_sorted=False
        )
        expected, expected_last = theirs(packed)
        y = pack_padded_sequence(
            y, lengths, batch_first=arguments["batch_first"], enforce_sorted=False
        ).data
        expected = expected.data
    else:
        with elman.engine(engine):
            y, last = ours(x)
        expected, expected_last = theirs(x)
    agree((y, last), (expected, expected_last), 2e-5)
    agree(
        gradients((y, last), [x, *ours.parameters()]),
        gradients((expected, expected_last), [x, *theirs.parameters()]),
        2e-5,
    )


def test_signatures_begin_as_in_torch(name):
    """The order of what torch.nn documents; what elman adds comes after."""
    documented = {
        "LSTM": "input_size hidden_size num_layers bias batch_first dropout bidirectional "
        "proj_size device dtype",
        "GRU": "input_size hidden_size num_layers bias batch_first dropout bidirectional device "
        "dtype",
        "RNN": "input_size hidden_size num_layers nonlinearity bias batch_first dropout "
        "bidirectional device dtype",
    }[name].split()
    assert list(inspect.signature(LAYERS[name][0]).parameters)[: len(documented)] == documented


def test_initial_state_of_another_dtype_is_not_converted_silently(name):
    """torch.nn refuses a float32 state for float64 weights; so must the drop-in."""
    ours, _ = pair(name, BASE)
    state = nested.map(lambda s: s.float(), ours.initial_state(2))
    with pytest.raises((RuntimeError, ValueError), match="dtype"):
        ours(torch.randn(3, 2, 3, dtype=torch.float64), state)


def test_the_other_convention_of_the_gru(agree):
    """Loading one convention's weights into the other would go unseen, were the names alike."""
    rnn = elman.GRU(3, 4, 2, reset_after=False, dtype=torch.float64)
    same = elman.Recurrent(elman.cells.GRUResetBefore(3, 4, biases=2, dtype=torch.float64), 2)
    same.load_state_dict(rnn.state_dict(), strict=True)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    agree(rnn(x), same(x), 0.0)
    with pytest.raises(RuntimeError, match="weight_ih_candidate_l0"):
        rnn.load_state_dict(nn.GRU(3, 4, 2).state_dict())


# -- what else there is of torch.nn's layers ----------------------------------------------------


def test_everything_that_torch_nn_shows_is_there(name):
    ours, theirs = (layer(3, 4, 2, bidirectional=True) for layer in LAYERS[name])
    assert set(dir(theirs)) <= set(dir(ours))
    for attribute in ("mode", "proj_size", "_all_weights", "_flat_weights_names", "dropout"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    for own, other in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert [w.shape for w in own] == [w.shape for w in other]
    held = list(ours.parameters())
    for weights in (ours._flat_weights, [w for own in ours.all_weights for w in own]):
        assert all(a is b for a, b in zip(weights, held, strict=True))
    assert [reference() for reference in ours._flat_weight_refs] == ours._flat_weights


def test_they_are_recurrent_layers_to_who_looks_for_them(name):
    """But not ``torch.nn.LSTM``: PyTorch's compiler refuses those."""
    ours = LAYERS[name][0](3, 4)
    assert isinstance(ours, nn.RNNBase)
    assert not isinstance(ours, (nn.LSTM, nn.GRU, nn.RNN))


def test_the_arguments_checks_of_torch_nn(name, leaves):
    ours, theirs = (layer(3, 4, 2, batch_first=True) for layer in LAYERS[name])
    x = torch.randn(2, 5, 3)
    state = theirs(x)[1]
    for network in (ours, theirs):
        network.check_forward_args(x, state, None)
        with pytest.raises(RuntimeError, match="input_size"):
            network.check_input(x[..., :2], None)
        with pytest.raises(RuntimeError, match="hidden"):
            wrong = [s[:1] for s in leaves(state)]
            network.check_forward_args(x, wrong if name == "LSTM" else wrong[0], None)
    assert ours.get_expected_hidden_size(x, None) == theirs.get_expected_hidden_size(x, None)


def test_arguments_by_torchs_names_and_ours(name, agree):
    ours, theirs = pair(name, BASE)
    x, state = torch.randn(5, 2, 3).double(), ours.initial_state(2)
    state = nested.map(torch.randn_like, state)
    expected = theirs(input=x, hx=state)
    for arguments in ({"input": x, "hx": state}, {"x": x, "state": state}, {"x": x, "hx": state}):
        agree(ours(**arguments), expected)
    agree(ours(x, hx=state), expected)
    for twice in ({"x": x}, {"hx": state, "state": state}):
        with pytest.raises(elman.InputError, match="two names for one thing"):
            ours(x, **twice)


def test_dropout_of_everything(name):
    ours, theirs = (layer(3, 4, 2, dropout=1.0) for layer in LAYERS[name])
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    variational = LAYERS[name][0](3, 4, 2, dropout=1.0, variational=True)
    variational.load_state_dict(ours.state_dict())
    torch.testing.assert_close(variational(x)[0], theirs(x)[0])


def test_sizes_of_numpy(name):
    numpy = pytest.importorskip("numpy")
    plain = LAYERS[name][0](3, 4, 2, bidirectional=True)
    sized = LAYERS[name][0](
        numpy.int64(3), numpy.int32(4), numpy.uint8(2), dropout=numpy.float32(0.0),
        bias=numpy.True_, batch_first=numpy.False_, bidirectional=numpy.True_,
    )  # fmt: skip
    assert type(sized.hidden_size) is type(sized.input_size) is type(sized.num_layers) is int
    sized.load_state_dict(plain.state_dict())
    assert sized.cells[1].hidden_size == 4
    torch.testing.assert_close(sized(torch.ones(2, 1, 3)), plain(torch.ones(2, 1, 3)))


def test_sizes_of_numpy_for_a_layer_each():
    numpy = pytest.importorskip("numpy")
    rnn = elman.LSTM(3, hidden_sizes=[numpy.int64(4), numpy.int64(5)])
    assert [type(cell.hidden_size) for cell in rnn.cells] == [int, int]
    assert elman.LSTM(3, 4, proj_size=numpy.int64(2))(torch.ones(2, 1, 3))[0].shape == (2, 1, 2)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("form", ["batched", "unbatched", "batch first", "lengths"])
def test_outputs_changed_in_place(name, engine, form, gradients):
    """The gradient needs the output as it was: ``relu(y, inplace=True)`` changes what was saved."""
    rnn = LAYERS[name][0](3, 4, 2, batch_first=form == "batch first", dtype=torch.float64)
    x = torch.randn((5, 3) if form == "unbatched" else (5, 2, 3), dtype=torch.float64)
    options = {"lengths": [5, 3]} if form == "lengths" else {}
    found = []
    for change in (nn.functional.relu, nn.functional.relu_):
        with elman.engine(engine):
            y, state = rnn(x, **options)
        found.append(gradients((change(y), state), list(rnn.parameters())))
    for plain, changed in zip(*found, strict=True):
        torch.testing.assert_close(changed, plain)


def test_states_share_no_memory_with_outputs(kind, leaves):
    rnn = elman.Recurrent(kind(3, 4), hidden_sizes=[4, 5])
    with torch.no_grad():
        for every in ("last", "all"):
            y, state = rnn(torch.randn(5, 2, 3, dtype=torch.float64), return_states=every)
            before = [s.clone() for s in leaves(state)]
            y.fill_(7.0)
            assert all(torch.equal(a, b) for a, b in zip(leaves(state), before, strict=True))
