"""What a network says of arguments that it cannot use: which, what came, what would be right."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import elman
from elman import cells

X = torch.randn(5, 3, 4)  # (T, B, M)


def lstm(**options):
    return elman.LSTM(4, 6, 2, **options)


def packed(width: int = 4):
    return pack_padded_sequence(torch.randn(5, 3, width), torch.tensor([5, 4, 2]))


def raises(call, *words: str) -> None:
    with pytest.raises(elman.InputError) as error:
        call()
    text = str(error.value)
    for word in words:
        assert word in text, f"{word!r} is missing from: {text}"
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: elman.LSTM(4), ["hidden_size is missing", "hidden_sizes"]),
        (lambda: elman.LSTM(4, 6, hidden_sizes=[6]), ["hidden_sizes", "leave out hidden_size"]),
        (lambda: elman.LSTM(4, num_layers=3, hidden_sizes=[6, 6]), ["hidden_sizes", "num_layers"]),
        (lambda: elman.LSTM(4, hidden_sizes=[]), ["hidden_sizes", "at least one", "none"]),
        (lambda: elman.LSTM(4, hidden_sizes=6), ["hidden_sizes", "6"]),
        (lambda: elman.LSTM(4, hidden_sizes=[6, 0]), ["hidden_size", "positive integer", "0"]),
        (lambda: elman.LSTM(4, 6, 0), ["layers", "positive integer", "0"]),
        (lambda: elman.LSTM(4, 6, -1), ["layers", "positive integer", "-1"]),
        (lambda: elman.LSTM(4, 6, 1.5), ["layers", "positive integer", "1.5"]),
        (lambda: elman.LSTM(4, 6, dropout=1.5), ["dropout", "[0, 1]", "1.5"]),
        (lambda: elman.LSTM(4, 6, dropout=-0.1), ["dropout", "[0, 1]", "-0.1"]),
        (lambda: elman.LSTM(4, 6, skip="dense"), ["skip", "'residual', 'highway'", "'dense'"]),
        (lambda: elman.LSTM(4, 6, return_states="c"), ["return_states", "'last', 'all'", "'c'"]),
        (lambda: elman.LSTM(4, 6, proj_size=6), ["proj_size", "5", "6"]),
        (lambda: elman.RNN(4, 6, nonlinearity="elu"), ["nonlinearity", "tanh, relu", "'elu'"]),
        (lambda: elman.GRU(4, 6, forget_bias=1.0), ["GRU", "no block 'f'"]),
        (lambda: elman.GRU(4, 6, proj_size=2), ["GRU takes no proj_size", "only LSTM"]),
        (lambda: elman.RNN(4, 6, proj_size=2), ["RNN takes no proj_size", "only LSTM"]),
        (lambda: elman.GRU(4, 6, nonlinearity="relu"), ["GRU has no option 'nonlinearity'"]),
        (lambda: elman.LSTM(4, 6, dropout="a"), ["dropout must be a number", "'a'"]),
        (lambda: elman.LSTM(4, 6, 1, "yes"), ["bias must be True or False", "'yes'"]),
        (lambda: elman.LSTM(4, 6.0), ["hidden_size must be a positive integer", "6.0"]),
        (lambda: elman.LSTM(4, 6, bias=False, forget_bias=1.0), ["'f'", "bias"]),
    ],
)
def test_constructors(make, words):
    raises(make, *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        # x
        (lambda: lstm()(X[..., :3]), ["x must have 4 features", "input_size", "3", "(5, 3, 3)"]),
        (lambda: lstm()(packed(3)), ["x must have 4 features", "received 3"]),
        (lambda: lstm()(X[None]), ["x must have 3 axes", "4", "(1, 5, 3, 4)"]),
        (lambda: lstm()(X[0, 0]), ["x must have 3 axes", "(4,)"]),
        (lambda: lstm()([[1.0]]), ["x must be a tensor", "PackedSequence", "list"]),
        (lambda: lstm()(X, return_states="none"), ["return_states", "'last', 'all'", "'none'"]),
        # lengths
        (lambda: lstm()(X, lengths=[5, 4]), ["lengths must be 3 integers", "(2,)"]),
        (lambda: lstm()(X, lengths=3), ["lengths must be 3 integers", "()"]),
        (lambda: lstm()(X, lengths=[5.0, 4.0, 1.0]), ["3 integers", "float32"]),
        (lambda: lstm()(X, lengths=torch.tensor([True] * 3)), ["3 integers", "bool"]),
        (lambda: lstm()(X, lengths=[5, 6, 1]), ["between 0 and 5", "from 1 to 6"]),
        (lambda: lstm()(X, lengths=[5, -1, 1]), ["between 0 and 5", "from -1 to 5"]),
        (lambda: lstm()(packed(), lengths=[5, 4, 2]), ["PackedSequence", "leave out lengths"]),
        # resets
        (lambda: lstm()(X, resets=torch.zeros(5, 3)), ["bool of shape (5, 3)", "float32"]),
        (
            lambda: lstm()(X, resets=torch.zeros(3, 5, dtype=torch.bool)),
            ["resets must be bool of shape (5, 3)", "received torch.bool of shape (3, 5)"],
        ),
        (
            lambda: lstm(batch_first=True)(X, resets=torch.zeros(3, 5, dtype=torch.bool)),
            ["bool of shape (5, 3)", "(3, 5)"],
        ),
        (
            lambda: lstm()(X[:, 0], resets=torch.zeros(5, 1, dtype=torch.bool)),
            ["bool of shape (5,)", "(5, 1)"],
        ),
        (lambda: lstm()(X, resets=[[True] * 3] * 5), ["bool of shape (5, 3)", "list"]),
        # step
        (lambda: lstm().step(X), ["step", "(B, 4) or (4)", "(5, 3, 4)"]),
        (lambda: lstm().step(X[0, :, :2]), ["step", "(B, 4) or (4)", "(3, 2)"]),
        (lambda: lstm().step([1.0] * 4), ["step", "(B, 4) or (4)", "list"]),
        (lambda: lstm(bidirectional=True).step(X[0]), ["bidirectional", "the future", "forward"]),
    ],
)
def test_calls(call, words):
    raises(call, *words)


DOUBLE = {"x": X.double(), "state": (torch.zeros(2, 3, 6).double(),) * 2}


@pytest.mark.parametrize("engine", ["auto", "native", "torch", "reference"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: n(X.double()), ["x must have the weights' dtype torch.float32", "float64"]),
        (lambda n: n.step(X[0].double()), ["x must have the weights' dtype", "torch.float64"]),
        (lambda n: n(X, DOUBLE["state"]), ["the state must have the weights' dtype", "float64"]),
        (lambda n: n.step(X[0], DOUBLE["state"]), ["the state must have", "float64"]),
        (lambda n: n(X.to("meta")), ["x must lie on cpu", "received meta"]),
        (lambda n: n.step(X[0].to("meta")), ["x must lie on cpu", "received meta"]),
        (lambda n: n(X.long()), ["torch.int64", "torch.float32"]),
        (lambda n: n.step(X[0].long()), ["torch.int64", "torch.float32"]),
        (lambda n: n(X.to_sparse()), ["dense", "sparse", "x.to_dense()"]),
        (lambda n: n.step(X[0].to_sparse()), ["dense", "sparse", "x.to_dense()"]),
    ],
)
@pytest.mark.parametrize("grad", [True, False])
def test_what_the_caller_does_wrong_is_not_the_cells_fault(engine, call, words, grad):
    """A wrong type was reported as a line of elman's own cell, to be mended."""
    with elman.engine(engine), torch.set_grad_enabled(grad):
        network = lstm()
        raises(lambda: call(network), *words)
        with pytest.raises(elman.InputError) as error:
            call(network)
    assert "mend that line" not in str(error.value)
    assert ".py" not in str(error.value)


def test_weights_that_differ_among_themselves():
    network = elman.GRU(4, 6)
    network.weight_hh_l0 = torch.nn.Parameter(network.weight_hh_l0.detach().double())
    with elman.engine("reference"):
        raises(lambda: network(X), "weight_hh is torch.float64", "weight_ih is torch.float32")
        raises(lambda: network.step(X[0]), "weight_hh is torch.float64", ".to(…)")


@pytest.mark.parametrize(
    ("resets", "words"),
    [
        (torch.zeros(3), ["resets must be bool of shape (3,)", "torch.float32 of shape (3,)"]),
        (torch.zeros(2, dtype=torch.bool), ["bool of shape (3,)", "of shape (2,)"]),
        ([True] * 3, ["resets must be a tensor, bool of shape (3,)", "list"]),
    ],
)
def test_resets_of_a_step(resets, words):
    network = lstm()
    raises(lambda: network.step(X[0], network.initial_state(3), resets=resets), *words)
    raises(lambda: network.step(X[0], resets=resets), *words)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("make", "x", "state", "words"),
    [
        (lstm, X, zeros(2, 3, 6), ["the 2 tensors (h, c)", "a tensor of shape (2, 3, 6)"]),
        (lstm, X, (zeros(2, 3, 6),), ["the 2 tensors (h, c)", "(2, 3, 6)"]),
        (lstm, X, (zeros(2, 3, 6),) * 3, ["the 2 tensors (h, c)", "3"]),
        (lstm, X, 5, ["the 2 tensors (h, c)", "5"]),
        (lstm, X, "ab", ["the 2 tensors (h, c)", "'ab'"]),
        (lstm, X, (1.0, 2.0), ["state h", "(2, 3, 6)", "1.0"]),
        (lstm, X, (zeros(1, 3, 6),) * 2, ["state h", "(2, 3, 6)", "received", "(1, 3, 6)"]),
        (lstm, X, (zeros(2, 3, 6), zeros(2, 3, 5)), ["state c", "(2, 3, 6)", "(2, 3, 5)"]),
        (lstm, X, (zeros(2, 4, 6), zeros(2, 4, 6)), ["state h", "(2, 3, 6)", "(2, 4, 6)"]),
        # One sequence has no batch axis, and hears of none.
        (lstm, X[:, 0], (zeros(2, 5), zeros(2, 6)), ["state h", "shape (2, 6)", "shape (2, 5)"]),
        (lstm, X[:, 0], (zeros(2, 1, 6),) * 2, ["state h", "shape (2, 6)", "shape (2, 1, 6)"]),
        (lstm, X[:, 0], "ab", ["the 2 tensors (h, c)", "'ab'"]),
        (lambda: elman.GRU(4, 6), X, torch.tensor(1.0), ["state h", "(1, 3, 6)", "shape ()"]),
        (lambda: elman.GRU(4, 6), X, "a", ["state h", "(1, 3, 6)", "'a'"]),
        (lambda: elman.GRU(4, 6), X, 3, ["state h", "(1, 3, 6)", "3"]),
        (
            lambda: elman.GRU(4, hidden_sizes=[6, 5]),
            X,
            (zeros(3, 6), zeros(3, 6)),
            ["state h", "(3, 6), (3, 5)", "a tensor of shape (3, 6), a tensor of shape (3, 6)"],
        ),
    ],
)
@pytest.mark.parametrize("how", ["forward", "step"])
def test_states(make, x, state, words, how):
    rnn = make()
    raises(lambda: rnn(x, state) if how == "forward" else rnn.step(x[0], state), *words)


def test_highway_needs_no_weight_of_a_certain_name():
    """A cell without an Affine has no ``weight_ih``: links take nothing from it."""
    rnn = elman.Recurrent(cells.Perceptron(4, 4), skip="highway")
    assert rnn(X)[0].shape == X.shape
