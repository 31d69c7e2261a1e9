"""∂s/∂θ, carried forward in time: in full, unit by unit, and as a product of two vectors.

An *influence* says how the state s of a network, all states of all layers side by side, came to
depend on its parameters θ. Each kind here has three functions:

``start``
    the influence before the first step: zero, but for initial states that are learned;
``advance``
    from the influence before a step to that after it, by the Jacobians of the step;
``gradient``
    from a gradient with respect to s to that with respect to θ.

All are pure, so that a step's ``advance`` can be traced into a graph of plain tensor operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp, vmap
from typing_extensions import override

from elman.errors import InputError
from elman.layers import Recurrent
from elman.learning.flat_step import FlatStep

Weights = dict[str, Tensor]


class Influence:
    """What the kinds of influence share: the step, and how gradients are pulled back through it.

    Attributes:
        step: the step that is differentiated.
        learned: the parameters θ, P numbers in all: those that require a gradient, by their names
            in ``step``.
        apart: whether each layer takes what the layer below gives it for a constant.
    """

    apart = False

    def __init__(self, step: FlatStep):
        self.step = step
        self.learned = {n: p for n, p in step.named_parameters() if p.requires_grad}
        if not self.learned:
            raise InputError(
                "no parameter of the network requires a gradient: there is nothing to learn."
            )

    def start(self, weights: Weights, batch: int) -> Any:
        """The influence before the first step of ``batch`` sequences."""
        raise NotImplementedError

    def advance(self, weights: Weights, x: Tensor, s: Tensor, influence: Any) -> Any:
        """The influence after the step from x (B, M) and s (B, n)."""
        raise NotImplementedError

    def gradient(self, influence: Any, by_state: Tensor) -> Tensor:
        """The gradient (P) with respect to θ, from that with respect to s (B, n)."""
        raise NotImplementedError

    def _next(self, weights: Weights, learned: Weights, x: Tensor | None, s: Tensor) -> Tensor:
        """s' as a function of the parameters that are learned, among all the weights."""
        return functional_call(self.step, {**weights, **learned}, (x, s, self.apart))[1]

    def _pull(
        self, weights: Weights, x: Tensor | None, s: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """rows (R, n) times ∂s'/∂θ, (R, P), and times ∂s'/∂s, (R, n), for one sequence."""
        learned = {name: weights[name] for name in self.learned}
        back = vjp(lambda w, s: self._next(weights, w, x, s), learned, s)[1]
        by_weights, by_state = vmap(back)(rows)
        return _side_by_side(by_weights), by_state

    def _pull_start(self, weights: Weights, rows: Tensor) -> Tensor:
        """rows (R, n) times ∂s_0/∂θ: not zero where the initial state is learned."""
        return self._pull(weights, None, rows.new_zeros(self.step.width), rows)[0]


def _side_by_side(by_weights: Weights) -> Tensor:
    return torch.cat([g.flatten(1) for g in by_weights.values()], -1)


class Full(Influence):
    """J = ∂s/∂θ itself, (B, n, P).

    J_t = ∂s_t/∂s_{t−1} J_{t−1} + ∂s_t/∂θ. Memory O(n P), time O(n² P) a step.
    """

    def __init__(self, network: Recurrent):
        super().__init__(FlatStep(network))

    @override
    def start(self, weights: Weights, batch: int) -> Tensor:
        return self._pull_start(weights, self._rows(weights)).repeat(batch, 1, 1)

    @override
    def advance(self, weights: Weights, x: Tensor, s: Tensor, influence: Tensor) -> Tensor:
        rows = self._rows(weights)
        immediate, carried = vmap(lambda x, s: self._pull(weights, x, s, rows))(x, s)
        return torch.baddbmm(immediate, carried, influence)

    @override
    def gradient(self, influence: Tensor, by_state: Tensor) -> Tensor:
        return by_state.flatten() @ influence.flatten(0, 1)

    def _rows(self, weights: Weights) -> Tensor:
        like = next(iter(weights.values()))
        return torch.eye(self.step.width, dtype=like.dtype, device=like.device)


class ByUnit(Influence):
    """∂s_i/∂θ_p for the one unit i that θ_p belongs to, (B, k, P) for k numbers of state a unit.

    e_t = D_t e_{t−1} + ∂s_t/∂θ_p, with D_t (k × k) the Jacobian of the numbers of unit i with
    respect to themselves. Memory O(k P), time O(k² P) a step. In a layer whose units do not read
    each other's states, this is all there is; elsewhere it is made so by cutting its maps.

    Only states count that the parameters change and that a next step reads: not the output of a
    linear recurrent unit, which is made of its memory anew, nor a window of inputs. A state of m·H
    numbers, as a complex memory in real parts and imaginary ones, has m of each unit.

    Args:
        network: in one direction.
        keep: see :class:`FlatStep`.

    Raises:
        InputError: the units read each other's states all the same, or a map that is to be cut
            acts on something else than a state.
    """

    apart = True

    def __init__(self, network: Recurrent, keep: str = "all"):
        super().__init__(FlatStep(network, keep))
        self.owner = self._owner()
        self.places = self._places()
        if not self._apart():
            where = "" if keep == "all" else " outside its linear maps"
            name = type(network.cells[0]).__name__
            raise InputError(f"the units of {name} read each other's states{where}.")

    @override
    def start(self, weights: Weights, batch: int) -> Tensor:
        return self._pull_start(weights, self._rows(weights)).repeat(batch, 1, 1)

    @override
    def advance(self, weights: Weights, x: Tensor, s: Tensor, influence: Tensor) -> Tensor:
        rows = self._rows(weights)
        immediate, carried = vmap(lambda x, s: self._pull(weights, x, s, rows))(x, s)
        return (self._of_owner(carried) * influence.unsqueeze(1)).sum(2) + immediate

    @override
    def gradient(self, influence: Tensor, by_state: Tensor) -> Tensor:
        return (self._of_owner(by_state) * influence).sum((0, 1))

    def _of_owner(self, by_state: Tensor) -> Tensor:
        """From (…, n), a number for each place in the states, to (…, k, P)."""
        return by_state[..., self.places][..., self.owner]

    def _rows(self, weights: Weights) -> Tensor:
        """Sums over units, (k, n): where units are apart, each has one term."""
        like = next(iter(weights.values()))
        rows = like.new_zeros(len(self.places), self.step.width)
        return rows.scatter(1, self.places, 1.0)

    def _owner(self) -> Tensor:
        """The unit, counted through all layers, that each parameter (P) belongs to.

        A row of a weight belongs to the unit of that number, in each block anew. The weights of
        links between layers have no influence on any state of their own layer.
        """
        network, owners = (
            self.step.network,
            dict.fromkeys(self.learned, torch.zeros(0, dtype=torch.int64)),
        )
        first = 0
        for layer, cell in enumerate(network.cells):
            for name, parameter in self.learned.items():
                if name.endswith(f"_l{layer}"):
                    units = first + torch.arange(len(parameter)) % cell.hidden_size
                    owners[name] = units.repeat_interleave(parameter[0].numel())
            first += cell.hidden_size
        return torch.cat(list(owners.values())).to(next(network.parameters()).device)

    def _places(self) -> Tensor:
        """Where in s the k numbers of each unit, counted through all layers, lie: (k, units)."""
        cells = self.step.network.cells
        sizes = [size for column in self.step.sizes for size in column]  # by state, by layer
        ends = list(itertools.accumulate(sizes))
        parts = [torch.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        of_layer: list[list[Tensor]] = [[] for _ in cells]
        for k, counts in enumerate(self._that_count(parts)):
            layer = k % len(cells)
            name, units = type(cells[layer]).__name__, cells[layer].hidden_size
            if counts and len(parts[k]) % units:
                raise InputError(f"the states of {name} are not whole numbers a unit.")
            of_layer[layer] += parts[k].split(units) if counts else []
        if len({len(places) for places in of_layer}) > 1:
            raise InputError("the layers have different numbers of state a unit.")
        return torch.cat([torch.stack(places) for places in of_layer], 1).to(self.owner.device)

    def _that_count(self, parts: Sequence[Tensor]) -> list[bool]:
        """Which parts of s depend on the parameters and are read by the next step; all, if none."""
        count = len(parts)
        changed = torch.zeros(count, dtype=torch.float64)
        reads = torch.zeros(count, count, dtype=torch.float64)
        for weights, x, s, draw in self._draws():
            rows = s.new_zeros(len(parts), len(s))
            for row, part in zip(rows, parts, strict=True):
                row[part] = draw(len(part))
            by_weights, by_state = self._pull(weights, x, s, rows)
            changed += by_weights.any(1).cpu()
            reads += torch.stack([by_state[:, part].any(1) for part in parts], 1).cpu()
        for _ in parts:  # what reads what has changed has changed, too
            changed += reads @ (changed > 0).double()
        counts = ((changed > 0) & reads.any(0)).tolist()
        return counts if any(counts) else [True] * len(parts)

    def _draws(self) -> Iterator[tuple[Weights, Tensor, Tensor, Callable[..., Tensor]]]:
        """Weights, x and s at random, and where from: a unit shut off in one is not in the next."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return drawn.to(self.owner.device)

        for _ in range(3):
            weights = {name: draw(*p.shape) for name, p in self.step.named_parameters()}
            yield weights, draw(self.step.network.input_size), draw(self.step.width), draw

    def _apart(self) -> bool:
        """Whether every sum over units has one term, for weights and states drawn at random.

        Then, and only then, a sum in which unit i counts u_i times is u_i times that one term.
        """
        for weights, x, s, draw in self._draws():
            rows, count = self._rows(weights), draw(self.places.shape[1]).abs() + 0.5
            known = self.places.flatten()  # what stands elsewhere depends on no parameter
            each = torch.zeros_like(s).scatter(0, known, count.repeat(len(rows)))
            once, again = self._pull(weights, x, s, rows)
            counted, counted_again = self._pull(weights, x, s, rows * each)
            if not torch.allclose(counted, once * count[self.owner], 1e-9, 1e-12):
                return False
            if not torch.allclose(counted_again[:, known], (again * each)[:, known], 1e-9, 1e-12):
                return False
        return True


class RankOne(Influence):
    """Two vectors a (B, n) and b (B, P) whose product a bᵀ is J in expectation.

    a' = ρ₀ ∂s'/∂s a + ρ₁ ν and b' = b / ρ₀ + νᵀ ∂s'/∂θ / ρ₁ with random signs ν = ±1. The scales
    ρ₀ = √(‖b‖ / ‖∂s'/∂s a‖), ρ₁ = √(‖νᵀ ∂s'/∂θ‖ / ‖ν‖) keep the two terms' variance low.
    Memory and time O(P).
    """

    TINY = 1e-7  # keeps the scales from being 0

    def __init__(self, network: Recurrent):
        super().__init__(FlatStep(network))

    @override
    def start(self, weights: Weights, batch: int) -> tuple[Tensor, Tensor]:
        signs = _signs(next(iter(weights.values())).new_empty(batch, self.step.width))
        return signs, self._pull_start(weights, signs)

    @override
    def advance(
        self, weights: Weights, x: Tensor, s: Tensor, influence: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        before, by_weights = influence
        signs = _signs(s)

        def push(x: Tensor, s: Tensor, along: Tensor) -> Tensor:
            return jvp(lambda s: self._next(weights, {}, x, s), (s,), (along,))[1]

        def pull(x: Tensor, s: Tensor, row: Tensor) -> Tensor:
            return self._pull(weights, x, s, row.unsqueeze(0))[0].squeeze(0)

        carried, immediate = vmap(push)(x, s, before), vmap(pull)(x, s, signs)
        old, new = self._scale(by_weights, carried), self._scale(immediate, signs)
        return old * carried + new * signs, by_weights / old + immediate / new

    @override
    def gradient(self, influence: tuple[Tensor, Tensor], by_state: Tensor) -> Tensor:
        a, b = influence
        return (by_state * a).sum(-1) @ b

    def _scale(self, b: Tensor, a: Tensor) -> Tensor:
        norms = [v.norm(dim=-1, keepdim=True) for v in (b, a)]
        return (norms[0] / (norms[1] + self.TINY)).sqrt() + self.TINY


def _signs(like: Tensor) -> Tensor:
    return 2 * torch.bernoulli(torch.full_like(like, 0.5)) - 1
