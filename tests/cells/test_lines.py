"""A step that does what it must not: the message names the cell, the line and what is right."""

from __future__ import annotations

import functools
import inspect
import warnings

import pytest
import torch
from torch import tanh

import elman
from elman import Affine, Cell, Linear, Recurrent
from elman.engines import choice as engines


class ChangesState(Cell):
    net = Affine()

    def step(self, z, h):
        h += z  # here
        return h


class ChangesInput(Cell):
    net = Affine()

    def step(self, x, h):
        z = self.net(x, h)
        x.mul_(2)  # here
        return tanh(z)


class TooFew(Cell):
    state = ("h", "c")
    net = Affine()

    def step(self, z, h, c):
        if self.hidden_size > 2:
            return tanh(z)  # here
        return h, c


class TooWide(Cell):
    net = Affine()

    def step(self, z, h):
        return torch.cat([z, h], -1)  # here


class InItsBase(TooWide):
    """The step is inherited: its line is in the other class."""


class Mismatched(Cell):
    net = Affine()
    down = Linear(to="x")

    def step(self, z, h):
        low = self.down(h)
        return low + z  # here


class UnknownBlock(Cell):
    gates = Affine("i f")

    def step(self, z, h):
        i = torch.sigmoid(z.i)
        return i * z.o  # here


class ChangesStateBesideItsOwn(Cell):
    """What it does to z is nobody's concern, and not the line to be named."""

    net = Affine()

    def step(self, z, h):
        z *= 0.5
        z.add_(1)
        h.mul_(z)  # here
        return h


class ChangesByOut(Cell):
    net = Affine()

    def step(self, z, h):
        return torch.tanh(z, out=h[:, :5].detach())  # here


class ReadsProperty(Cell):
    net = Affine()

    @property
    def gain(self):
        return self.scale + 1

    @property
    def scale(self):
        return self.hiden_size

    def step(self, z, h):
        return self.gain * z


class Doubles(Cell):
    state = ("h", "c")
    net = Affine()

    def step(self, z, h, c):
        return tanh(z), c.double()  # here


class Counts(Cell):
    net = Affine()

    def step(self, z, h):
        return tanh(z).round().long()  # here


class Complex(Cell):
    net = Affine()

    def step(self, z, h):
        return torch.complex(z, h)  # here


class Narrow(Cell):
    net = Affine()
    out = Linear(of="x")

    def step(self, x, h):
        return tanh(self.out(h))  # here


class NamesNoBlocks(Cell):
    net = Affine()

    def step(self, z, h):
        return tanh(z.i)  # here


class SpeaksOfMemory(Cell):
    """As PyTorch does of a tensor whose elements share a place."""

    net = Affine()

    def step(self, z, h):
        return z[:1, :1].expand(2, 5).copy_(h)  # here


def line_of(cell: type[Cell]) -> str:
    """Where the comment stands."""
    step = next(vars(kind)["step"] for kind in cell.__mro__ if "step" in vars(kind))
    lines, first = inspect.getsourcelines(step)
    offset = next(k for k, line in enumerate(lines) if "# here" in line)
    return f"{step.__code__.co_filename}:{first + offset}"


def run(rnn: Recurrent, how: str) -> None:
    x = torch.randn(4, 2, 3)
    with torch.no_grad():
        rnn(x) if how == "forward" else rnn.step(x[0])


@pytest.mark.parametrize("how", ["forward", "step"])
@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (ChangesState, ["changes h in place", "h = h + 1"]),
        (ChangesInput, ["changes x in place", "new tensor"]),
        (TooFew, ["returned 1 values", "expected 2", "(h, c)"]),
        (TooWide, ["returned h of shape (2, 10)", "expected (2, 5)"]),
        (InItsBase, ["returned h of shape (2, 10)", "expected (2, 5)"]),
        (Mismatched, ["failed", "x (2, 3), h (2, 5)", "RuntimeError", "mend that line"]),
        (UnknownBlock, ["failed", "no block 'o'", "i, f"]),
        (ChangesStateBesideItsOwn, ["changes h in place"]),
        (ChangesByOut, ["changes h in place"]),
        (Doubles, ["returned c as torch.float64", "torch.float32", "c.to(z.dtype)"]),
        (Counts, ["returned h as torch.int64", "torch.float32", "h.to(z.dtype)"]),
        (Complex, ["returned h as torch.complex64", "real numbers"]),
        (Narrow, ["failed", "self.out multiplies what is 3 wide", "shape (2, 5)"]),
        (NamesNoBlocks, ["failed", "'Tensor' object has no attribute 'i'", "Affine('i …')"]),
        (SpeaksOfMemory, ["failed", "single memory location", "mend that line"]),
    ],
)
def test_mistakes_are_refused_with_their_line(cell, words, how):
    """Warnings are errors here: nothing is said of an engine before the mistake is told."""
    with pytest.raises(elman.InputError) as error:
        run(Recurrent(cell(3, 5)), how)
    text = str(error.value)
    for word in (f"{cell.__name__}.step", f"({line_of(cell)})", *words):
        assert word in text, text
    assert "\n" not in text


def test_the_same_within_a_deeper_layer():
    class OnlyNarrow(Cell):
        net = Affine()

        def step(self, x, h):
            return tanh(self.net(x, h)) if x.shape[-1] == 3 else h[..., :1]  # here

    with pytest.raises(elman.InputError) as error:
        run(Recurrent(OnlyNarrow(3, 5), 2), "forward")
    assert line_of(OnlyNarrow) in str(error.value)


class Asks(Cell):
    net = Affine()

    def step(self, z, h):
        if h.sum() > 0:  # here
            return z
        return tanh(z)


class ChangesItsOwn(Cell):
    """Harmless, and right on the reference engine."""

    net = Affine()

    def step(self, z, h):
        z *= 0.5
        return tanh(z + h)


class Sums(Cell):
    net = Affine()

    def step(self, z, h):
        total = torch.cumsum(z, -1)  # here
        return tanh(total)


class Transforms(Cell):
    net = Affine()

    def step(self, z, h):
        return tanh(torch.fft.fft(z).real)  # here


class Casts(Cell):
    net = Affine()

    def step(self, z, h):
        return tanh(z.half().to(h.dtype))  # here


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Asks, ["value of the data", "torch.where"]),
        (Sums, ["aten::cumsum has no kernel"]),
        (Transforms, ["torch.complex64"]),
        (Casts, ["torch.float16"]),
    ],
)
def test_what_has_no_kernel_falls_back_with_one_warning(cell, words, agree):
    rnn = Recurrent(cell(3, 5), 2)
    assert rnn.engine == "reference"
    x = torch.randn(4, 2, 3)
    engines._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = rnn(x)
        rnn(x)
    assert len(caught) == 1
    text = str(caught[0].message)
    for word in (f"{cell.__name__} runs on the reference engine", f"({line_of(cell)})", *words):
        assert word in text, text
    with elman.engine("reference"):
        agree(rnn(x), y, 0.0)


def test_a_step_may_change_what_it_has_made_itself(agree):
    rnn = Recurrent(ChangesItsOwn(3, 5))
    assert rnn.engine == "native"
    x = torch.randn(4, 2, 3)
    y = rnn(x)
    with elman.engine("reference"):
        agree(rnn(x), y, 1e-6)


def test_no_memory_is_no_mistake_of_the_cell():
    class Greedy(Cell):
        net = Affine()

        def step(self, z, h):
            raise RuntimeError("out of memory")

    with elman.engine("reference"), pytest.raises(RuntimeError, match="out of memory"):
        run(Recurrent(Greedy(3, 5)), "forward")


@pytest.mark.parametrize("how", ["forward", "step"])
def test_a_property_that_fails_is_told_and_not_that_there_is_none(how):
    """nn.Module says of each property that raises an AttributeError that the cell has none."""
    with pytest.raises(elman.InputError, match="no attribute 'hiden_size'") as error:
        run(Recurrent(ReadsProperty(3, 5)), how)
    line = ReadsProperty.scale.fget.__code__.co_firstlineno + 2
    assert f"({__file__}:{line})" in str(error.value)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_state_of_another_type_than_the_weights(engine):
    """``torch.where`` of two numbers is of PyTorch's default type, whatever the cell's."""

    class Fires(Cell):
        net = Affine()

        def step(self, z, h):
            return torch.where(z > 0, 1.0, 0.0)  # here

    x = torch.randn(4, 2, 3)
    with elman.engine(engine):
        assert Recurrent(Fires(3, 5))(x)[0].dtype == torch.float32
        with pytest.raises(elman.InputError) as error:
            Recurrent(Fires(3, 5)).double()(x.double())
    for word in ("returned h as torch.float32", line_of(Fires), "torch.float64", "h.to(z.dtype)"):
        assert word in str(error.value)


def test_what_the_caller_gives_is_not_the_steps_fault():
    rnn = Recurrent(TooWide(3, 5))
    with elman.engine("reference"):
        with pytest.raises(elman.InputError, match=r"^x must have the weights' dtype"):
            rnn.step(torch.randn(2, 3).double())
        with pytest.raises(elman.InputError, match=r"^the state.* must have the weights' dtype"):
            rnn.step(torch.randn(2, 3), torch.zeros(1, 2, 5).double())


def test_a_step_behind_a_decorator_has_its_line():
    def logged(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args)

        return call

    class Decorated(Cell):
        net = Affine()

        @logged
        def step(self, z, h):
            return z[..., :1]

    with pytest.raises(elman.InputError) as error:
        run(Recurrent(Decorated(3, 5)), "forward")
    line = inspect.unwrap(Decorated.step).__code__.co_firstlineno + 2
    assert f"{__file__}:{line}" in str(error.value)
