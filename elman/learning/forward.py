"""Learning forward in time: real-time recurrent learning and its cheaper kin.

What is carried from step to step is not the past itself but its influence on the present, so that
memory does not grow with the stream, and the weights may change after every step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from typing_extensions import override

from elman import nested
from elman.cells.contract import Cell
from elman.cells.options import Reading
from elman.errors import InputError
from elman.layers import Recurrent
from elman.layers.states import ordinary
from elman.learning.influence import ByUnit, Full, Influence, RankOne, Weights
from elman.learning.rule import Lengths, LossFunction, Rule, detach


class Forward(Rule):
    """What the rules that learn forward in time share.

    With s_t the states of all layers, y_t = y(x_t, s_{t−1}, θ) and J_t = ∂s_t/∂θ,

    ∂L_t/∂θ = ∂L_t/∂y_t (∂y_t/∂θ + ∂y_t/∂s_{t−1} J_{t−1}).

    The first term and the factor of J are PyTorch's gradients of a single step. The rules differ
    in how they carry J.
    """

    influence: Influence

    def __init__(self, network: Recurrent, loss: LossFunction):
        super().__init__(network, loss)
        self._one_direction()
        random = network.dropout or network.weight_drop
        if random or any(cell.noise_size for cell in network.cells):
            raise InputError(
                f"{type(self).__name__} differentiates a step that draws nothing at random: "
                "make the network without dropout, weight drop and zoneout."
            )
        self._graphs: dict[Any, Any] = {}
        self._traced_with: tuple[list[Reading], list[Tensor]] = ([], [])
        self.reset()

    @override
    def reset(self) -> None:
        super().reset()
        self._carried: Any = None

    @property
    def memory(self) -> Any:
        """The state, and the influence of the weights on it."""
        return None if self.state is None else (self.state, self._carried)

    @memory.setter
    def memory(self, kept: Any) -> None:
        self.reset()
        if kept is not None:
            self.state, self._carried = kept

    @torch.inference_mode(False)
    @torch.enable_grad()
    def gradients(
        self, x: Tensor, target: Any, *, resets: Tensor | None = None, lengths: Lengths = None
    ) -> Tensor:
        """As any rule's, whether or not gradients are wanted around it."""
        resets = self._check(x, resets, lengths)
        x, target = ordinary(x), ordinary(target)
        batch = x.shape[1]
        weights = {n: p.detach() for n, p in self.influence.step.named_parameters()}
        if self.state is None:
            self.state = detach(self.network.initial_state(batch))
            with torch.no_grad():
                self._carried = self.influence.start(weights, batch)
        loss, states, by_state = self._one_step_back(x, target, resets)
        anew = [None] * len(x) if resets is None else list(resets)
        with torch.no_grad():
            total: Tensor | float = 0.0
            for x_t, s, g, begins in zip(x, states, by_state, anew, strict=True):
                if begins is not None and bool(begins.any()):
                    start = self.influence.start(weights, batch)
                    self._carried = nested.map(partial(_where, begins), start, self._carried)
                total = total + self.influence.gradient(self._carried, g)
                self._carried = self._advance(weights, x_t, s)
            self._add(total)
        return loss

    def _check(self, x: Tensor, resets: Tensor | None, lengths: Any) -> Tensor | None:
        width = self.network.input_size
        if x.dim() != 3 or x.shape[-1] != width or not len(x):
            raise InputError(
                f"x must be a window (T, B, {width}), received the shape {tuple(x.shape)}; "
                f"one step of one stream is (1, 1, {width})."
            )
        real = next(self.network.parameters()).dtype
        if x.dtype != real:
            raise InputError(f"x must have the weights' dtype {real}, received {x.dtype}.")
        if x.requires_grad:
            raise InputError(
                f"x requires a gradient, and {type(self).__name__} does not follow through time "
                "what comes before the network: detach it, or use BPTT."
            )
        return self._goes_on(x, resets, lengths)

    def _one_step_back(
        self, x: Tensor, target: Any, resets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add to ``.grad`` what reaches no further back than the step itself.

        All T steps are taken side by side, each from the state that it found.

        Returns:
            the loss, the states before each step (T, B, n), and the gradients by them.
        """
        step = self.influence.step
        before = step.flat(self.state).unsqueeze(0)
        if len(x) > 1:
            with torch.no_grad():
                earlier = None if resets is None else resets[:-1]
                _, states = self.network(x[:-1], self.state, resets=earlier, return_states="all")
            before = torch.cat([before, step.flat(states)])
        if resets is not None:
            start = step.flat(self.network.initial_state(x.shape[1])).detach()
            before = torch.where(resets.unsqueeze(-1), start, before)
        before.requires_grad_()
        y, after = step(x, before)
        loss = self._back(y, target)
        self.state = step.state(after[-1].detach())
        by_state = torch.zeros_like(before) if before.grad is None else before.grad
        return loss, before.detach(), by_state

    def _advance(self, weights: Weights, x: Tensor, s: Tensor) -> Any:
        """The influence after a step, by a graph that is traced once for each shape.

        And again where the graph would hold what is no longer so: options of cells, constants.
        """
        arguments = (weights, x, s, self._carried)
        cells, buffers = self.network._noiseless, list(self.network.buffers())
        readings, before = self._traced_with
        if not (
            len(readings) == len(cells)
            and all(reading.holds(cell) for reading, cell in zip(readings, cells, strict=True))
            and all(a is b for a, b in zip(buffers, before, strict=True))
        ):
            self._graphs.clear()
            self._traced_with = [Reading(cell, Cell) for cell in cells], buffers
        key = (x.shape, x.dtype, x.device)
        if key not in self._graphs:
            advance = self.influence.advance  # make_fx counts a method's self as an argument
            # Tracing draws, too: the numbers to come are the same whenever it happens.
            with torch.random.fork_rng([] if x.device.type == "cpu" else [x.device]):
                self._graphs[key] = make_fx(lambda w, x, s, j: advance(w, x, s, j))(*arguments)
        return self._graphs[key](*arguments)

    def _add(self, gradient: Any) -> None:
        """Add a gradient (P) to every parameter's ``.grad``."""
        learned = list(self.influence.learned.values())
        parts = gradient.split([p.numel() for p in learned])
        for parameter, part in zip(learned, parts, strict=True):
            part = part.view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad.add_(part)


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a in the rows (B) of the mask, b in the others."""
    return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)


class RTRL(Forward):
    """Real-time recurrent learning (Williams & Zipser, 1989): exact, in memory O(n P).

    J_t = ∂s_t/∂s_{t−1} J_{t−1} + ∂s_t/∂θ, at O(n² P) a step for n states and P parameters. With
    constant weights the gradient is that of BPTT over the whole past. This is the memory in windows
    of one step; a window of T steps takes O(n T) beside it.

    Where no unit of the network's one layer reads the states of another, as in diagonal and
    element-wise recurrences, J has one entry for each parameter and state of a unit, and exact
    RTRL takes memory and time O(P) (Mozer, 1989; Zucchet et al., 2023). That is looked for, and
    used where it is so; ``rule.influence`` tells. States that no next step reads, as the output of
    :class:`elman.cells.LRU`, or that no parameter changes, as the window of inputs of
    :class:`elman.cells.QRNN`, do not count; a unit may have several numbers, as a complex one has.
    """

    def __init__(self, network: Recurrent, loss: LossFunction):
        super().__init__(network, loss)
        by_unit = network.num_layers == 1 and elementwise(network)
        self.influence = ByUnit(network) if by_unit else Full(network)


def elementwise(network: Recurrent) -> bool:
    """Whether in every layer of a network no unit reads the states of another."""
    try:
        ByUnit(network)
    except InputError:
        return False
    return True


class SnAp1(Forward):
    """Sparse n-step approximation, n = 1 (Menick et al., 2021), in memory and time O(P).

    Of J only ∂s_i/∂θ_p is kept, for the unit i that θ_p belongs to: what a parameter changes
    within one step. Carried with the diagonal of ∂s_t/∂s_{t−1}: e_t = diag(∂s_t/∂s_{t−1}) e_{t−1}
    + ∂s_t/∂θ. Exact for diagonal recurrences. A layer's parameters reach the layers above through
    the present step alone.

    Raises:
        InputError: the units meet elsewhere than in maps of the input and of the states: under
            layer normalisation or a projection, or where a map acts on what the step computes, as
            U (r ⊙ h) does in a GRU that resets before the product.
    """

    def __init__(self, network: Recurrent, loss: LossFunction):
        super().__init__(network, loss)
        self.influence = _by_unit(self, "diagonal")


class RFLO(Forward):
    """The local traces of RFLO (Murray, 2019) and e-prop (Bellec et al., 2020), O(P).

    As :class:`SnAp1`, but nothing goes through the recurrent weights: e_t = D_t e_{t−1} + ∂s_t/∂θ,
    with D_t what is left of ∂s_t/∂s_{t−1} where U h is held constant: 1 − 1/τ in a leaky net, f in
    the cell state of an LSTM, z in a GRU. In a plain tanh net nothing is left, and the gradient is
    that of one step. Errors come back through the true output weights, not through random ones.

    Raises:
        InputError: as :class:`SnAp1`.
    """

    def __init__(self, network: Recurrent, loss: LossFunction):
        super().__init__(network, loss)
        self.influence = _by_unit(self, "nothing")


def _by_unit(rule: Rule, keep: str) -> ByUnit:
    try:
        return ByUnit(rule.network, keep)
    except InputError as why:
        raise InputError(
            f"{type(rule).__name__} follows each unit on its own, and {why} Use RTRL or UORO."
        ) from None


class UORO(Forward):
    """Unbiased online recurrent optimisation (Tallec & Ollivier, 2018), in memory and time O(P).

    J is a bᵀ in expectation: two vectors, renewed at every step with random signs from PyTorch's
    generator. The gradient is unbiased, and noisy: use small learning rates.
    """

    def __init__(self, network: Recurrent, loss: LossFunction):
        super().__init__(network, loss)
        self.influence = RankOne(network)
