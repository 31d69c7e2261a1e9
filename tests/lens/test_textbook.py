"""The textbook's experiments: what must come out of them."""

from __future__ import annotations

import pytest
import torch

from elman import InputError, cells
from elman.lens import depth, descend, repeated_products, side_by_side
from elman.lens.cliff import error
from elman.lens.textbook import derivative

F64 = {"dtype": torch.float64}


def test_a_chain_of_scale_s_grows_as_s_to_the_k():
    for chain in repeated_products([0.5, 1.0, 1.5], matrix="orthogonal", hidden=8, steps=30):
        expected = chain.scale ** torch.arange(31, **F64)
        torch.testing.assert_close(chain.norms, expected, rtol=1e-9, atol=0)
        for figure in (chain.rate, chain.spectral_radius, chain.largest_singular_value):
            assert figure == pytest.approx(chain.scale)


def test_a_random_chain_grows_by_its_spectral_radius_and_never_beyond_its_singular_value():
    for chain in repeated_products([0.5, 2.0], steps=400, hidden=16, seed=3):
        assert chain.rate == pytest.approx(chain.scale, rel=0.03)
        assert chain.spectral_radius == pytest.approx(chain.scale)
        factors = chain.norms[1:] / chain.norms[:-1]
        assert factors.max() <= chain.largest_singular_value * (1 + 1e-9)
        assert chain.largest_singular_value > 1.3 * chain.scale


def test_slopes():
    z = torch.linspace(-8, 8, 1001, **F64)
    assert derivative("tanh", z).max() == 1
    assert derivative("sigmoid", z).max() == 0.25
    torch.testing.assert_close(derivative("tanh", z), 1 - z.tanh().square())


def test_depth():
    left = {name: depth(name, layers=12)[-1] for name in ("linear", "relu", "tanh", "sigmoid")}
    # A layer of relu loses half of the units, and σ' ≤ 1/4.
    assert left["sigmoid"] < 0.25**12 * 2
    assert left["relu"] == pytest.approx(0.5**6, rel=0.6)
    assert left["sigmoid"] < left["relu"] < left["tanh"] < left["linear"]
    assert depth("tanh", layers=12, gain=3.0)[-1] > 10
    assert len(depth(layers=4)) == 5


def test_the_cliffs_surface_is_a_net_of_one_unit():
    cell = cells.Elman(1, 1, "sigmoid", **F64)
    w, b = torch.tensor(4.3, **F64), torch.tensor(-2.0, **F64)
    with torch.no_grad():
        cell.weight_hh.fill_(w)
        cell.bias_ih.fill_(b)
        h = torch.tensor([0.5], **F64).sigmoid()
        for _ in range(50):
            (h,) = cell(torch.zeros(1, **F64), h)
    torch.testing.assert_close(error(w, b), (h[0] - 0.7).square())


def test_clipping_stays_where_plain_descent_is_thrown_off():
    plain, clipped = descend(None), descend(0.05)
    step = ((clipped.weight.diff() ** 2 + clipped.bias.diff() ** 2) ** 0.5).max()
    assert step <= 0.3 * 0.05 * (1 + 1e-9)
    assert ((plain.weight.diff() ** 2 + plain.bias.diff() ** 2) ** 0.5).max() > 5
    assert clipped.errors[-1] < 0.01 * plain.errors[-1]
    first = (plain.norms < 0.05).int().cumprod(0).bool()  # until then there is nothing to clip
    assert torch.equal(plain.weight[first], clipped.weight[first])


def test_side_by_side():
    compared = {each.label: each for each in side_by_side(hidden=16, steps=60, batch=4)}
    assert list(compared) == [
        "rnn", "identity", "gru", "lstm, forget bias 0", "lstm, forget bias 1",
        "lstm, forget bias 2",
    ]  # fmt: skip
    rates = {label: each.flow.cells[-1].verdict.rate for label, each in compared.items()}
    assert rates["identity"] == pytest.approx(1, abs=1e-6)
    order = ["rnn", "lstm, forget bias 0", "lstm, forget bias 1", "lstm, forget bias 2"]
    assert sorted(order, key=rates.__getitem__) == order
    assert compared["gru"].forgetting is None
    f = compared["lstm, forget bias 2"].forgetting
    assert len(f) == 59
    assert f[0] == pytest.approx(0.88, abs=0.05)  # about σ(2)
    (exploding,) = side_by_side(["rnn"], gain=12.0, hidden=16, steps=60, batch=4)
    assert exploding.flow.cells[0].verdict.kind == "explodes"


@pytest.mark.parametrize("name", ["indrnn", "narx", "sru-peephole"])
def test_the_gain_reaches_cells_without_a_weight_hh(name):
    plain, scaled = (
        side_by_side([name], [0.0], gain=gain, hidden=8, steps=10, batch=2)[0].flow.cells[0].norms
        for gain in (1.0, 3.0)
    )
    assert plain[0] == pytest.approx(float(scaled[0]), rel=0.5)
    assert abs(scaled[3] / scaled[0] - plain[3] / plain[0]) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: repeated_products([0.0]), "scales must be positive"),
        (lambda: repeated_products([1.0], matrix="square"), "gaussian, orthogonal"),
        (lambda: repeated_products([1.0], steps=1), "steps must be an integer of at least 2"),
        (lambda: depth("softplus"), "linear, relu, tanh, sigmoid"),
        (lambda: depth(layers=0), "layers must be an integer of at least 1"),
        (lambda: descend(-1.0), "threshold must be positive"),
        (lambda: descend(None, updates=0), "updates must be at least 1"),
        (lambda: side_by_side(["nope"]), "unknown cell 'nope'"),
        (lambda: side_by_side(["rnn"], []), "one forget bias"),
        (lambda: side_by_side(["rnn"], steps=1), "steps must be at least 2, received 1"),
        (lambda: side_by_side(["rnn"], hidden=0), "hidden must be at least 1, received 0"),
        (lambda: side_by_side(["rnn"], gain=float("inf")), "must be finite"),
        (lambda: side_by_side(["mlp"], gain=2.0), "of which mlp has none, received 2"),
        (lambda: side_by_side(["lru", "qrnn"], gain=2.0), "of which lru, qrnn has none"),
        (lambda: descend(None, learning_rate=float("nan")), "learning_rate must be a positive"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
