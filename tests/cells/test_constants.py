"""Constants of a cell: what a step reads and nobody learns."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn, tanh

import elman
from elman import Affine, Cell, Constant, Recurrent


class Ladder(Cell):
    """A unit hears those below it only; each has a rate of its own."""

    net = Affine(mask="below")

    @Constant
    def rate(self) -> torch.Tensor:
        return 1 / (torch.arange(self.hidden_size) + 1.0)

    @Constant
    def below(self) -> torch.Tensor:
        return torch.ones(self.hidden_size, self.hidden_size).tril(-1)

    def step(self, z, h):
        return h + self.rate * (tanh(z) - h)


def test_it_is_a_buffer_and_no_parameter():
    rnn = Recurrent(Ladder(3, 4, biases=2), 2, bidirectional=True)
    assert len(list(rnn.named_parameters())) == 4 * 4
    ends = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert {name for name, _ in rnn.named_buffers()} == {
        f"constant_{name}{end}" for name in ("rate", "below") for end in ends
    }
    assert not any(b.requires_grad for b in rnn.buffers())


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_what_it_computes(engine, agree):
    cell = Ladder(3, 4, dtype=torch.float64)
    x, h = torch.randn(2, 3).double(), torch.randn(2, 4).double()
    below = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]).double()
    z = tanh(x @ cell.weight_ih.T + h @ (cell.weight_hh * below).T + cell.bias_ih)
    rate = torch.tensor([1, 1 / 2, 1 / 3, 1 / 4], dtype=torch.float64)
    with elman.engine(engine):
        y, _ = Recurrent(cell)(x.unsqueeze(0), h.unsqueeze(0))
    agree(y[0], (1 - rate) * h + rate * z, 1e-14)


def test_all_engines_and_steps_agree(agree, gradients):
    rnn = Recurrent(Ladder(3, 5), 2).double()
    assert rnn.engine == "native"
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, *rnn.parameters()]
    results = []
    for engine in ("native", "reference"):
        with elman.engine(engine):
            results.append(rnn(x))
    agree(*results)
    agree(gradients(results[0], inputs), gradients(results[1], inputs))
    with torch.no_grad():
        state = rnn.initial_state(2)
        for row in x:
            y, state = rnn.step(row, state)
    agree(y, results[0][0][-1])


def test_saved_copied_and_moved_with_the_weights(agree):
    rnn = Recurrent(Ladder(3, 4))
    with torch.no_grad():
        rnn.constant_rate_l0.mul_(0.5)
    x = torch.randn(4, 2, 3)
    y = rnn(x)
    assert not torch.equal(y[0], Recurrent(rnn.cells[0].resized(3, 4))(x)[0])
    other = Recurrent(Ladder(3, 4))
    other.load_state_dict(rnn.state_dict())
    for twin in (other, copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        agree(twin(x), y, 0.0)
    assert rnn.double().constant_rate_l0.dtype == torch.float64
    agree(rnn(x.double())[0].float(), y[0], 1e-5)


def test_transforms_keep_them(agree):
    cell = elman.cells.zoneout(elman.cells.recurrent_dropout(Ladder(3, 4), 0.5), 0.25)
    rnn = Recurrent(cell).eval()
    x = torch.randn(1, 2, 3)
    z, h = rnn(x)[0], torch.zeros(2, 4)
    w = cell.state_dict()
    inner = w["constant_rate"] * tanh(x[0] @ w["weight_ih"].T + w["bias_ih"])
    agree(z[0], 0.25 * h + 0.75 * inner, 1e-6)
    assert type(cell).maps()[0].mask == "below"


def test_a_buffer_that_is_not_declared_is_refused():
    class Holds(Cell):
        net = Affine()

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("scale", torch.ones(4))

        def step(self, z, h):
            return self.scale * z

    with pytest.raises(elman.InputError, match=r"the buffer 'scale'.*Constant"):
        Recurrent(Holds(3, 4))


def test_a_constant_is_no_place_for_weights():
    """Its tensor is held without a gradient, even if it was made from a parameter."""

    class Leaks(Cell):
        net = Affine()

        @Constant
        def gain(self) -> torch.Tensor:
            return nn.Parameter(torch.ones(self.hidden_size))

        def step(self, z, h):
            return self.gain * tanh(z)

    cell = Leaks(3, 4)
    assert [n for n, _ in cell.named_buffers()] == ["constant_gain"]
    assert not cell.constant_gain.requires_grad


# -- types and precision ----------------------------------------------------------------------


class Typed(Cell):
    """A constant of each type of number, and some that their method does not make alone."""

    net = Affine()

    @Constant
    def tenth(self) -> torch.Tensor:
        return torch.full((self.hidden_size,), 0.1)

    @Constant
    def fifth(self) -> torch.Tensor:
        return 2 * self.tenth

    @Constant
    def count(self) -> torch.Tensor:
        return torch.arange(self.hidden_size)

    @Constant
    def even(self) -> torch.Tensor:
        return self.count % 2 == 0

    @Constant
    def drawn(self) -> torch.Tensor:
        return torch.rand(self.hidden_size)

    @Constant
    def seeded(self) -> torch.Tensor:
        """More than 16, of which PyTorch draws others in another precision."""
        return torch.randn(64, generator=torch.Generator().manual_seed(0))

    def step(self, z, h):
        return torch.where(self.even, self.tenth * tanh(z), h / (1 + self.count))


TYPES = {"count": torch.int64, "even": torch.bool}


def types(module: nn.Module) -> dict[str, torch.dtype]:
    return {n.split("_")[1]: b.dtype for n, b in module.named_buffers()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_of_the_cells_type_and_the_others_of_their_own(dtype):
    cell = Typed(2, 3, dtype=dtype)
    others = dict.fromkeys(("tenth", "fifth", "drawn", "seeded"), dtype)
    assert types(cell) == others | TYPES
    assert torch.equal(cell.constant_tenth, torch.tensor([0.1] * 3, dtype=torch.float64).to(dtype))
    assert torch.get_default_dtype() == torch.float32


def test_types_stay_through_all_that_is_done_with_a_network():
    rnn = Recurrent(Typed(2, 3), 2)
    single = dict.fromkeys(("tenth", "fifth", "drawn", "seeded"), torch.float32) | TYPES
    assert types(rnn) == single
    assert types(copy.deepcopy(rnn)) == single
    assert types(rnn.cells[0].resized(3, 5)) == single
    assert types(Recurrent(elman.cells.zoneout(Typed(2, 3)))) == single
    double = {n: torch.float64 if t.is_floating_point else t for n, t in single.items()}
    assert types(rnn.double()) == double
    assert types(rnn.cells[0].resized(3, 5)) == double
    other = Recurrent(Typed(2, 3), 2).double()
    other.load_state_dict(rnn.state_dict())
    assert types(other) == double
    for name, constant in rnn.named_buffers():
        assert torch.equal(constant, dict(other.named_buffers())[name])
    assert types(nn.Sequential(rnn).float()) == single


@pytest.mark.parametrize(
    "doubled",
    [
        lambda: Typed(2, 3).double(),
        lambda: Recurrent(Typed(2, 3)).double().cells[0],
        lambda: nn.Sequential(Recurrent(Typed(2, 3))).to(torch.float64)[0].cells[0],
        lambda: Recurrent(Typed(2, 3, dtype=torch.float64)).half().double().cells[0],
        lambda: Typed(2, 3, dtype=torch.float64).resized(4, 3),
    ],
)
def test_in_another_precision_they_are_as_exact_as_that_is(doubled):
    """0.1 that was rounded to single precision first is off by 1.5e-9."""
    cell = doubled()
    assert cell.constant_tenth.tolist() == [0.1] * 3
    assert cell.constant_fifth.tolist() == [0.2] * 3


def test_what_was_changed_or_drawn_is_only_cast():
    rnn = Recurrent(Typed(2, 3))
    rnn.constant_tenth_l0.mul_(2)
    before = {n: b.clone() for n, b in rnn.named_buffers()}
    state = torch.random.get_rng_state()
    rnn.double()
    assert torch.equal(torch.random.get_rng_state(), state)
    for name in ("constant_tenth_l0", "constant_drawn_l0", "constant_seeded_l0"):
        assert torch.equal(getattr(rnn, name), before[name].double()), name


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_integers_and_truths_in_a_step(engine, agree):
    """In double precision, to its last digits."""
    cell = Typed(2, 3, dtype=torch.float64)
    x, h = torch.randn(4, 2).double(), torch.randn(4, 3).double()
    z = tanh(x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih)
    expected = torch.stack([0.1 * z[:, 0], h[:, 1] / 2, 0.1 * z[:, 2]], -1)
    agree(cell(x, h), [expected], 1e-15)
    with elman.engine(engine):
        agree(Recurrent(cell)(x.unsqueeze(0), h.unsqueeze(0))[0][0], expected, 1e-14)
        agree(Recurrent(cell).step(x, h.unsqueeze(0))[0], expected, 1e-14)


def test_each_cell_has_memory_of_its_own():
    shared = torch.ones(1)

    class Shares(Cell):
        net = Affine()

        @Constant
        def gain(self) -> torch.Tensor:
            return shared.expand(self.hidden_size)

        def step(self, z, h):
            return self.gain * z

    cell, other = Shares(2, 3), Shares(2, 3)
    cell.constant_gain.mul_(torch.tensor([1.0, 2.0, 3.0]))
    assert cell.constant_gain.tolist() == [1, 2, 3]
    assert other.constant_gain.tolist() == [1, 1, 1]
    other.load_state_dict(cell.state_dict())
    assert other.constant_gain.tolist() == [1, 2, 3]


def test_clockwork_keeps_numbers_of_its_own_type():
    rnn = Recurrent(elman.cells.Clockwork(2, 8)).double()
    assert set(types(rnn).values()) == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constants_of_every_type_are_compiled(dtype):
    torch.manual_seed(0)
    rnn, x = Recurrent(Typed(2, 3, dtype=dtype)), torch.randn(4, 2, 2, dtype=dtype)
    y, last = rnn(x)
    assert rnn.engine == "native"
    with elman.engine("reference"):
        expected, _ = rnn(x)
    torch.testing.assert_close(y, expected)
    with torch.no_grad():
        rnn.constant_even_l0.logical_not_()
        one, _ = rnn.step(x[0], last)
        with elman.engine("reference"):
            expected, _ = rnn.step(x[0], last)
    torch.testing.assert_close(one, expected)
