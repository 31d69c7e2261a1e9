"""Four equalities that every cell keeps, in every network: outputs, states and all gradients.

whole sequence = chunks = steps; padded = unpadded; reset = two sequences; reversed twice = itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import elman
from elman import nested

# Networks with resets may fall back to a slower engine: here only what they compute matters.
pytestmark = pytest.mark.filterwarnings("ignore::elman.EngineWarning")


@dataclass(frozen=True)
class Plan:
    """A drawn network and batch."""

    steps: int
    batch: int
    sizes: tuple[int, ...]
    input_size: int
    bidirectional: bool
    skip: str | None
    learn: bool
    batch_first: bool
    engine: str
    seed: int

    def network(self, kind: Any) -> elman.Recurrent:
        torch.manual_seed(self.seed)
        alike = len(set(self.sizes)) == 1
        rnn = elman.Recurrent(
            kind(self.input_size, self.sizes[0]),
            layers=len(self.sizes) if alike else 1,
            hidden_sizes=None if alike else self.sizes,
            bidirectional=self.bidirectional,
            batch_first=self.batch_first,
            skip=self.skip,
            learn_initial_state=self.learn,
        )
        # A learned start of zeros, as it is at first, would hide that it is never read.
        for parameter in rnn.parameters():
            torch.nn.init.uniform_(parameter, -0.9, 0.9)
        return rnn

    def input(self) -> Tensor:
        shape = (self.steps, self.batch, self.input_size)
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def state(self, rnn: elman.Recurrent) -> Any:
        return nested.map(
            lambda s: torch.randn(s.shape, dtype=s.dtype).requires_grad_(),
            rnn.initial_state(self.batch),
        )

    def lay(self, x: Tensor) -> Tensor:
        """From (T, B, …) to the layout of the network, and back."""
        return x.transpose(0, 1) if self.batch_first else x


@st.composite
def plans(draw: st.DrawFn, one_way: bool = False) -> Plan:
    width = draw(st.integers(2, 4))
    sizes = draw(st.sampled_from([(width,), (width, width), (width,) * 3, (3, 2), (2, 3, 3)]))
    both = not one_way and draw(st.booleans())
    return Plan(
        steps=draw(st.integers(1, 6)),
        batch=draw(st.integers(1, 4)),
        sizes=sizes,
        # Where the input is as wide as the output, the first layer has a link too.
        input_size=draw(st.sampled_from([1, 3, sizes[0] * (1 + both)])),
        bidirectional=both,
        skip=draw(st.sampled_from([None, "residual", "highway"])),
        learn=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        engine=draw(st.sampled_from(["auto", "reference"])),
        seed=draw(st.integers(0, 99)),
    )


def leaf_list(rnn: elman.Recurrent, x: Tensor, state: Any, leaves: Any) -> list[Tensor]:
    return [x, *leaves(state), *rnn.parameters()]


def marks(seed: int, steps: int, batch: int, share: float = 0.4) -> Tensor:
    return torch.rand(steps, batch, generator=torch.Generator().manual_seed(seed)) < share


DEEP = Plan(5, 3, (3, 3), 3, False, "highway", True, True, "auto", 1)


@given(plan=plans(one_way=True), cuts=st.lists(st.integers(0, 6), max_size=3))
@example(plan=DEEP, cuts=[2])
@example(plan=Plan(1, 1, (2,), 1, False, None, False, False, "auto", 2), cuts=[])
def test_whole_is_chunks_is_steps(kind, plan, cuts, agree, gradients, leaves):
    rnn, x = plan.network(kind), plan.input()
    state = plan.state(rnn)
    inputs = leaf_list(rnn, x, state, leaves)
    bounds = [0, *sorted(min(c, plan.steps) for c in cuts), plan.steps]
    lengths = torch.randint(0, plan.steps + 1, (plan.batch,))
    resets = marks(plan.seed, plan.steps, plan.batch)

    def chunks(**given: Tensor) -> tuple[Tensor, Any]:
        ys, s = [], state
        for a, b in pairwise(bounds):
            part: dict[str, Tensor] = {}
            if given:
                part["lengths"] = (given["lengths"] - a).clamp(0, b - a)
                part["resets"] = plan.lay(given["resets"][a:b])
            y, s = rnn(plan.lay(x[a:b]), s, **part)
            ys.append(plan.lay(y))
        return torch.cat(ys), s

    with elman.engine(plan.engine):
        y, last = rnn(plan.lay(x), state)
        whole = (plan.lay(y), last)
        y, last = rnn(plan.lay(x), state, lengths=lengths, resets=plan.lay(resets))
        marked = (plan.lay(y), last)
        cut, cut_marked = chunks(), chunks(lengths=lengths, resets=resets)
    ys, s = [], state
    for t in range(plan.steps):
        y, s = rnn.step(x[t], s)
        ys.append(y)
    steps = (torch.stack(ys), s)

    expected = gradients(whole, inputs)
    for other in (cut, steps):
        agree(other, whole)
        agree(gradients(other, inputs), expected)
    agree(cut_marked, marked)
    agree(gradients(cut_marked, inputs), gradients(marked, inputs))


@given(plan=plans(), poison=st.sampled_from([float("nan"), float("inf"), -1e300]), data=st.data())
def test_padded_is_unpadded(kind, plan, poison, data, agree, gradients, leaves):
    rnn, x = plan.network(kind), plan.input()
    state = plan.state(rnn)
    some = st.integers(0, plan.steps) | st.sampled_from([0, plan.steps])
    lengths = data.draw(st.lists(some, min_size=plan.batch, max_size=plan.batch))
    # Resets are drawn in the padding too: there they must mean nothing, in both directions.
    resets = marks(plan.seed, plan.steps, plan.batch) if data.draw(st.booleans()) else None
    inside = torch.arange(plan.steps).unsqueeze(1) < torch.tensor(lengths)
    poisoned = torch.where(inside.unsqueeze(-1), x.detach(), poison).requires_grad_()

    with elman.engine(plan.engine):
        y, last = rnn(
            plan.lay(poisoned), state, lengths=lengths,
            resets=None if resets is None else plan.lay(resets),
        )  # fmt: skip
        padded = (plan.lay(y), last)
        rows, finals = [], []
        for b, length in enumerate(lengths):
            own = nested.map(lambda s, b=b: s[..., b : b + 1, :], state)
            part, end = rnn(
                plan.lay(x[:length, b : b + 1]), own,
                resets=None if resets is None else plan.lay(resets[:length, b : b + 1]),
            )  # fmt: skip
            part = plan.lay(part)
            rows.append(torch.cat([part, part.new_zeros(plan.steps - length, *part.shape[1:])]))
            finals.append(end)
    ends = [torch.cat(column, dim=-2) for column in zip(*map(leaves, finals), strict=True)]
    unpadded = (torch.cat(rows, dim=1), ends)

    agree(padded, unpadded)
    assert not padded[0][~inside].any()
    agree(
        gradients(padded, leaf_list(rnn, poisoned, state, leaves)),
        gradients(unpadded, leaf_list(rnn, x, state, leaves)),
    )


def by_direction(forward: Any, backward: Any, both: bool) -> Any:
    """The state of the forward cells from one state, and of the backward cells from another."""
    over_cells = isinstance(forward[0], Tensor) and forward[0].dim() == 2
    if isinstance(forward, Tensor) or over_cells:
        picked = [(forward, backward)[both and k % 2][k] for k in range(len(forward))]
        return torch.stack(picked) if isinstance(forward, Tensor) else tuple(picked)
    return tuple(by_direction(f, b, both) for f, b in zip(forward, backward, strict=True))


@given(plan=plans(), share=st.sampled_from([0.15, 0.5, 1.0]))
@example(plan=Plan(6, 2, (2, 2), 4, True, "residual", True, False, "auto", 3), share=0.5)
def test_reset_is_separate_sequences(kind, plan, share, agree, gradients, leaves):
    rnn, x = plan.network(kind), plan.input()
    state = plan.state(rnn)
    inputs = leaf_list(rnn, x, state, leaves)
    resets = marks(plan.seed, plan.steps, plan.batch, share)

    with elman.engine(plan.engine):
        y, last = rnn(plan.lay(x), state, resets=plan.lay(resets))
        reset = (plan.lay(y), last)
        rows, finals = [], []
        for b in range(plan.batch):
            own = nested.map(lambda s, b=b: s[..., b : b + 1, :], state)
            start = rnn.initial_state(1)
            inner = [t for t in range(1, plan.steps) if resets[t, b]]
            bounds = [0, *inner, plan.steps]
            parts, ends = [], []
            for k, (a, e) in enumerate(pairwise(bounds)):
                # The forward direction enters at the first step, the backward one at the last.
                before = by_direction(
                    own if k == 0 and not resets[0, b] else start,
                    own if e == plan.steps else start,
                    plan.bidirectional,
                )
                part, end = rnn(plan.lay(x[a:e, b : b + 1]), before)
                parts.append(plan.lay(part))
                ends.append(end)
            rows.append(torch.cat(parts))
            finals.append(by_direction(ends[-1], ends[0], plan.bidirectional))
    ends = [torch.cat(column, dim=-2) for column in zip(*map(leaves, finals), strict=True)]
    separate = (torch.cat(rows, dim=1), ends)

    agree(reset, separate)
    agree(gradients(reset, inputs), gradients(separate, inputs))


def flipped(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence (T, B, …) from its own end, row by row."""
    rows = [torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate(lengths.tolist())]
    return torch.stack(rows, dim=1)


@given(plan=plans(), padded=st.booleans(), marked=st.booleans())
def test_reversed_twice_is_itself(kind, plan, padded, marked, agree, gradients, leaves):
    """Reading backwards what is written backwards, with the two directions' weights exchanged."""
    plan = Plan(**{**vars(plan), "bidirectional": True, "sizes": plan.sizes[:1], "skip": None})
    rnn, x = plan.network(kind), plan.input()
    swapped = plan.network(kind)
    swapped.load_state_dict(
        {
            name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse": w
            for name, w in rnn.state_dict().items()
        }
    )
    state = plan.state(rnn)
    exchanged = nested.map(lambda s: s.flip(0), state)
    lengths = torch.full((plan.batch,), plan.steps)
    if padded:
        lengths = torch.randint(0, plan.steps + 1, (plan.batch,))
    there: dict[str, Any] = {"lengths": lengths} if padded else {}
    back = dict(there)
    if marked:
        # A boundary before step t is, read backwards, the one before step n − t. A reset at the
        # very start has no boundary to stand for, and is left out.
        resets = marks(plan.seed, plan.steps, plan.batch)
        resets[0] = False
        turned = torch.zeros_like(resets)
        for b, n in enumerate(lengths.tolist()):
            for t in range(1, n):
                turned[n - t, b] = resets[t, b]
        there["resets"], back["resets"] = plan.lay(resets), plan.lay(turned)

    with elman.engine(plan.engine):
        y, last = rnn(plan.lay(x), state, **there)
        once = (plan.lay(y), last)
        y, last = swapped(plan.lay(flipped(x, lengths)), exchanged, **back)
    y = flipped(plan.lay(y), lengths)
    twice = (y.roll(y.shape[-1] // 2, dims=-1), nested.map(lambda s: s.flip(0), last))

    agree(twice, once)
    names = [name for name, _ in rnn.named_parameters()]
    half = len(names) // 2  # forward weights first, then backward
    other = list(swapped.parameters())
    agree(
        gradients(twice, [x, *leaves(state), *other[half:], *other[:half]]),
        gradients(once, [x, *leaves(state), *rnn.parameters()]),
    )


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize(("batched", "learned"), [(True, False), (False, True)])
@pytest.mark.parametrize("grad", [True, False])
def test_steps_with_resets_are_the_sequence_with_resets(kind, learned, grad, batched, agree):
    """On the streaming path and cell by cell; a row starts anew before its step is read."""
    rnn = elman.Recurrent(kind(3, 4), 2, learn_initial_state=learned)
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if name.startswith("initial"):
                parameter.normal_()
    x = torch.randn((6, 3, 3) if batched else (6, 3), dtype=torch.float64)
    resets = torch.rand(x.shape[:-1]) < 0.4
    with torch.set_grad_enabled(grad):
        state, outputs = None, []
        for row, done in zip(x, resets, strict=True):
            y, state = rnn.step(row, state, resets=done)
            outputs.append(y)
        expected, last = rnn(x, resets=resets)
    agree((torch.stack(outputs), state), (expected, last))


def test_steps_with_resets_of_states_that_are_lost(agree):
    """What a row held, NaN included, does not matter once it starts anew."""
    x = torch.randn(2, 3, dtype=torch.float64)
    for learned in (False, True):
        rnn = elman.LSTM(3, hidden_sizes=[4, 5], learn_initial_state=learned, dtype=torch.float64)
        _, state = rnn.step(x)
        spoiled = tuple(tuple(s.detach().clone() for s in part) for part in state)
        for part in spoiled:
            for s in part:
                s[1] = torch.nan
        y, _ = rnn.step(x, spoiled, resets=torch.tensor([False, True]))
        agree(y, torch.stack([rnn.step(x, state)[0][0], rnn.step(x)[0][1]]))
