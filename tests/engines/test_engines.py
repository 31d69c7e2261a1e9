"""Every engine against the reference, and the choice among them."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

import elman
from elman.engines import choice as engines
from elman.engines import pytorch, reference
from elman.engines.call import Call

OTHERS = [name for name in engines.ENGINES if name != "reference"]


@dataclass(frozen=True)
class Plan:
    """A drawn call of one cell."""

    steps: int
    batch: int
    input_size: int
    hidden_size: int
    biases: int
    reverse: bool
    padded: bool
    resets: bool
    every: bool
    seed: int

    def call(self, cell: elman.Cell) -> Call:
        torch.manual_seed(self.seed)
        batch = self.batch

        def states() -> tuple[Tensor, ...]:
            return tuple(
                torch.randn(batch, size, dtype=torch.float64, requires_grad=True)
                for size in cell.state_sizes
            )

        x = torch.randn(self.steps, batch, self.input_size, dtype=torch.float64)
        lengths = torch.randint(0, self.steps + 1, (batch,)) if self.padded else None
        resets = torch.rand(self.steps, batch) < 0.4 if self.resets else None
        if lengths is not None:
            inside = torch.arange(self.steps).unsqueeze(1) < lengths
            x = torch.where(inside.unsqueeze(-1), x, 0)
            resets = resets & inside if resets is not None else None
        x.requires_grad_()
        return Call(x, states(), states(), self.reverse, lengths, resets, self.every)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    return Plan(
        steps=draw(st.integers(1, 6)),
        batch=draw(st.integers(1, 5)),
        input_size=draw(st.integers(1, 4)),
        hidden_size=draw(st.integers(2, 9)),
        biases=draw(st.integers(0, 2)),
        reverse=draw(st.booleans()),
        padded=draw(st.booleans()),
        resets=draw(st.booleans()),
        every=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def inputs_of(cell: elman.Cell, call: Call) -> list[Tensor]:
    return [call.x, *call.state, *call.start, *cell.parameters()]


@pytest.mark.parametrize("name", OTHERS)
@given(plan=plans())
@example(plan=Plan(5, 4, 3, 4, 2, True, True, False, True, 1))
@example(plan=Plan(5, 4, 3, 4, 1, False, True, False, True, 2))
@example(plan=Plan(4, 3, 3, 4, 2, False, True, False, False, 3))
@example(plan=Plan(4, 3, 3, 4, 0, True, False, False, False, 4))
def test_every_engine_is_the_reference(kind, name, plan, agree, gradients):
    cell = kind(plan.input_size, plan.hidden_size, biases=plan.biases)
    other = engines.ENGINES[name]
    if other.unsupported(cell, plan.call(cell)._replace(resets=None, every_state=False)):
        pytest.skip(f"{name} does not run {kind.name}")
    call = plan.call(cell)
    assume(other.unsupported(cell, call) is None)
    weights = cell.state_dict(keep_vars=True)
    received, expected = other.run(cell, weights, call), reference.run(cell, weights, call)
    assert (received.states is None) == (not plan.every)
    agree(received, expected)
    inputs = inputs_of(cell, call)
    agree(gradients(received, inputs), gradients(expected, inputs))


@given(plan=plans())
@example(plan=Plan(5, 3, 2, 3, 1, True, True, True, True, 5))
def test_reference_is_the_cell_called_by_hand(kind, plan, agree):
    """The definition itself, against a loop over rows and time that shares nothing with it."""
    cell = kind(plan.input_size, plan.hidden_size, biases=plan.biases)
    call = plan.call(cell)
    result = reference.run(cell, dict(cell.named_parameters()), call)
    for b in range(plan.batch):
        length = plan.steps if call.lengths is None else int(call.lengths[b])
        states = [s[b] for s in call.state]
        order = range(length)
        for t in reversed(order) if plan.reverse else order:
            boundary = t + 1 if plan.reverse else t
            if call.resets is not None and boundary < length and call.resets[boundary, b]:
                states = [s[b] for s in call.start]
            states = cell(call.x[t, b], *states)
            agree(result.y[t, b], states[0])
            if plan.every:
                agree([s[t, b] for s in result.states], states)
        agree([s[b] for s in result.state], states)
        assert not result.y[length:, b].any()
        for t in range(length, plan.steps) if plan.every else ():
            # Past the end the states stay as they are: those of the end, or of the start.
            held = call.state if plan.reverse else result.state
            agree([s[t, b] for s in result.states], [s[b] for s in held])


def test_only_exactly_known_cells_take_fused_kernels():
    """A subclass may have changed its step: PyTorch's kernel would compute something else."""

    class Leaky(elman.cells.LSTM):
        def step(self, z, h, c):
            h, c = super().step(z, h, c)
            return 0.5 * h, c

    assert pytorch.knows(elman.cells.LSTM(2, 3))
    assert not pytorch.knows(Leaky(2, 3))
    assert not pytorch.knows(elman.cells.Elman(2, 3, "sigmoid"))
    x, rnn = torch.randn(4, 1, 2), elman.Recurrent(Leaky(2, 3))
    with elman.engine("reference"):
        expected = rnn(x)[0]
    torch.testing.assert_close(rnn(x)[0], expected)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_fused_kernels_train_where_gradients_are_wanted(monkeypatch, grad, padded):
    """cuDNN keeps what its backward reads only in training mode: on a CPU nothing would show."""
    seen, real = [], torch.lstm

    def spy(*arguments):
        # (x, hx, weights, …) or, packed, (data, batch_sizes, hx, weights, …); then: biases,
        # layers, dropout, train.
        weights = next(k for k, a in enumerate(arguments) if isinstance(a, list))
        seen.append(arguments[weights + 4])
        return real(*arguments)

    monkeypatch.setattr(torch, "lstm", spy)
    cell = elman.cells.LSTM(2, 3)
    zeros = (torch.zeros(2, 3), torch.zeros(2, 3))
    lengths = torch.tensor([4, 2]) if padded else None
    call = Call(torch.randn(4, 2, 2), zeros, zeros, lengths=lengths)
    with torch.set_grad_enabled(grad):
        pytorch.run(cell, dict(cell.named_parameters()), call)
    assert seen == [grad]


# -- the choice -----------------------------------------------------------------------------


def test_forcing_an_engine_is_undone():
    rnn = elman.LSTM(2, 3)
    usual = rnn.engine
    with elman.engine("reference"):
        assert rnn.engine == "reference"
        with elman.engine("torch"):
            assert rnn.engine == "torch"
            with elman.engine("auto"):
                assert rnn.engine == usual
            assert rnn.engine == "torch"
        assert rnn.engine == "reference"
    assert rnn.engine == usual
    with pytest.raises(KeyError), elman.engine("reference"):
        raise KeyError
    assert rnn.engine == usual


def test_forcing_without_a_block_lasts():
    rnn, usual = elman.GRU(2, 3), elman.GRU(2, 3).engine
    try:
        elman.engine("reference")
        assert rnn.engine == "reference"
    finally:
        elman.engine("auto")
    assert rnn.engine == usual


@pytest.fixture
def name():
    """The engine that is forced; whatever a test leaves, the next begins with none."""
    rnn = elman.LSTM(2, 3)
    usual = rnn.engine
    yield lambda: "auto" if rnn.engine == usual else rnn.engine
    engines._forced.set(None)


def test_one_object_is_entered_within_itself(name):
    e = elman.engine("reference")
    assert name() == "reference"
    with e:
        with e:
            assert name() == "reference"
            with elman.engine("torch"), e:
                with e:
                    assert name() == "reference"
                assert name() == "reference"
            assert name() == "reference"
        assert name() == "reference"
    assert name() == "auto"  # as before it was made
    with e:
        assert name() == "reference"
    assert name() == "auto"


def test_a_block_ends_with_what_was_before_it(name):
    first, second = elman.engine("torch"), elman.engine("reference")
    with first:
        assert name() == "torch"
        elman.engine("reference")  # from here on, but not beyond the block
        assert name() == "reference"
    assert name() == "reference"
    with second:
        elman.engine("auto")
    assert name() == "torch"
    with pytest.raises(KeyError), first, second:
        raise KeyError
    assert name() == "auto"


def test_blocks_that_end_out_of_order(name):
    outer, inner = elman.engine("torch"), elman.engine("reference")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__()
    assert name() == "reference"  # which was forced when the outer one began
    inner.__exit__()
    assert name() == "reference"


def test_one_object_in_several_threads(name):
    e, seen = elman.engine("reference"), []
    both = threading.Barrier(2, timeout=30)

    def enter(other):
        seen.append(name())
        with elman.engine(other), e:
            both.wait()
            seen.append(name())
            both.wait()
        seen.append(name())

    threads = [threading.Thread(target=enter, args=(other,)) for other in ("torch", "auto")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(["auto"] * 4 + ["reference"] * 2)
    assert name() == "reference"


def test_forcing_engines_without_end_is_not_remembered(name):
    for _ in range(50):
        elman.engine("torch")
        elman.engine("reference")
    choice, length = engines._forced.get(), 0
    while choice is not None:
        choice, length = choice.below, length + 1
    assert length <= 2


def test_forced_engine_runs(monkeypatch):
    """Not only its name is shown: the very engine is called."""
    rnn, x, ran = elman.LSTM(2, 3), torch.randn(4, 1, 2), []
    rnn(x)  # before kernels first run, they are compared with the reference engine
    for name, module in engines.ENGINES.items():
        monkeypatch.setattr(
            module,
            "run",
            lambda cell, weights, call, name=name, run=module.run: (
                ran.append(name) or run(cell, weights, call)
            ),
        )
    for name in ("reference", "torch"):
        with elman.engine(name):
            rnn(x)
    rnn(x)
    assert ran == ["reference", "torch", rnn.engine]


def test_unknown_engine_is_named_with_the_known_ones():
    with pytest.raises(elman.InputError) as error:
        elman.engine("quantum")
    for word in ("'quantum'", "auto", *engines.ENGINES):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("make", "options", "why"),
    [
        (lambda: elman.Recurrent(elman.cells.GRUResetBefore(2, 3)), {}, "no fused kernel"),
        (lambda: elman.LSTM(2, 3), {"resets": torch.ones(4, 2, dtype=torch.bool)}, "reset"),
        (lambda: elman.LSTM(2, 3), {"return_states": "all"}, "every step"),
    ],
)
def test_forcing_what_cannot_run_says_why(make, options, why):
    rnn = make()
    with elman.engine("torch"), pytest.raises(elman.InputError) as error:
        rnn(torch.randn(4, 2, 2), **options)
    for word in ("torch engine", type(rnn._cells[0]).__name__, why, "elman.engine('auto')"):
        assert word in str(error.value)


def test_fall_back_warns_once_and_says_why(monkeypatch):
    """Asked of an engine that refuses: which engines refuse what may change."""

    class Refusing:
        @staticmethod
        def unsupported(cell, call):
            return "the moon is full"

    monkeypatch.setattr(engines, "_warned", set())
    for name in OTHERS:
        monkeypatch.setitem(engines.ENGINES, name, Refusing)
    rnn, x = elman.LSTM(2, 3), torch.randn(4, 1, 2)
    with pytest.warns(elman.EngineWarning, match=r"LSTM.*slower: the moon is full") as caught:
        rnn(x)
        rnn(x)
    assert len(caught) == 1
    with pytest.warns(elman.EngineWarning, match="GRU"):
        elman.GRU(2, 3)(x)


def test_the_reference_does_not_warn_for_the_cells_it_usually_runs(kind, monkeypatch):
    monkeypatch.setattr(engines, "_warned", set())
    rnn = elman.Recurrent(kind(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rnn(torch.randn(3, 2, 2, dtype=torch.float64))


def test_the_warning_names_the_callers_line(monkeypatch):
    monkeypatch.setattr("elman.engines.choice._warned", set())
    monkeypatch.setattr("elman.engines.native.unsupported", lambda *_: "of a test")
    rnn = elman.GRU(3, 4)
    resets = torch.zeros(2, 1, dtype=torch.bool)
    with pytest.warns(elman.EngineWarning) as caught:
        rnn(torch.zeros(2, 1, 3), resets=resets)
    assert caught[0].filename == __file__


def test_an_empty_sequence_is_no_reason_to_warn(monkeypatch):
    monkeypatch.setattr("elman.engines.choice._warned", set())
    y, state = elman.LSTM(3, 4)(torch.zeros(0, 2, 3))
    assert y.shape == (0, 2, 4)
    assert state[0].shape == (1, 2, 4)
