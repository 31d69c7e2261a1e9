"""Cells made for parallel time: their memory is a linear recurrence, element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn, sigmoid, tanh
from torch.nn.functional import linear, logsigmoid

from elman.cells.contract import Cell
from elman.cells.delay import shifted
from elman.cells.maps import Diagonal, Linear, Owner
from elman.cells.sizes import positive
from elman.errors import InputError


class LinearRecurrence(Cell):
    """A cell whose memory is c' = a ⊙ c + b, with a and b of the input alone.

    Two such steps after each other are again one, a₂ ⊙ (a₁ ⊙ c + b₁) + b₂, so that all steps can
    be computed together in a time that grows with log T (Blelloch, 1990; Martin & Cundy, 2018).

    A subclass writes :meth:`coefficients`, and :meth:`output` where the output is not the memory
    itself. Its states are ``("h",)``, the memory, or ``("h", "c")``, the output and the memory; a
    third, ``"past"``, is a window of the inputs before, which both methods then read as well.
    Both take whole sequences (T, B, M) as well as steps, and treat every step by itself.

    Where ``complex`` is true, a, b and c are rows of complex numbers, real parts first.
    """

    complex: ClassVar[bool] = False

    def coefficients(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """a and b, from the input (and the window of those before); a may be without a batch."""
        raise NotImplementedError

    def output(self, c: Tensor, *inputs: Any) -> Tensor:
        """The output, from the memory after the step and the input (and the window)."""
        return c

    def product(self, a: Tensor, c: Tensor) -> Tensor:
        """a ⊙ c, of real numbers or of complex ones."""
        if not self.complex:
            return a * c
        (p, q), (re, im) = a.chunk(2, -1), c.chunk(2, -1)
        return torch.cat([p * re - q * im, p * im + q * re], -1)

    def step(self, x: Tensor, *states: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One step, from :meth:`coefficients` and :meth:`output`."""
        past = states[2:]
        a, b = self.coefficients(x, *past)
        c = self.product(a, states[min(1, len(states) - 1)]) + b
        if len(states) == 1:
            return c
        return self.output(c, x, *past), c, *(shifted(window, x) for window in past)


class _Bypass(Linear):
    """x itself where it is as wide as the output, A x elsewhere."""

    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        return {} if cell.input_size == cell.hidden_size else super().shapes(cell)

    def bind(self, cell: Owner) -> Any:
        if cell.input_size == cell.hidden_size:
            return lambda x: x
        return super().bind(cell)


class SRU(LinearRecurrence):
    """Simple recurrent unit, with g the identity (Lei & Zhang, 2017).

    f, r = σ(W x + b)    c' = f ⊙ c + (1 − f) ⊙ (W x)    h' = r ⊙ c' + (1 − r) ⊙ x

    The paper has h' = r ⊙ g(c') + (1 − r) ⊙ x with g the identity or tanh. Where input and hidden
    size differ, A x stands in place of the last x.

    Parameters: 3·H·M + 2·H + (M ≠ H)·H·M.
    """

    state = ("h", "c")
    value = Linear(of="x")
    forget = Linear("f", of="x", bias=True)
    reset = Linear(of="x", bias=True)
    bypass = _Bypass(of="x")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = sigmoid(self.forget(x).f)
        return f, (1 - f) * self.value(x)

    def output(self, c: Tensor, x: Tensor) -> Tensor:
        r = sigmoid(self.reset(x))
        return r * c + (1 - r) * self.bypass(x)


class PeepholeSRU(Cell):
    """Simple recurrent unit whose gates see the memory (Lei et al., 2018).

    f, r = σ(W x + v ⊙ c + b)    c' = f ⊙ c + (1 − f) ⊙ (W x)    h' = r ⊙ c' + (1 − r) ⊙ x

    No matrix multiplies the memory, but it is no linear recurrence. Where input and hidden size
    differ, A x stands in place of the last x.

    Parameters: 3·H·M + 4·H + (M ≠ H)·H·M.
    """

    state = ("h", "c")
    value = Linear(of="x")
    gates = Linear("f r", of="x", bias=True)
    peephole = Diagonal("f r")
    bypass = _Bypass(of="x")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        z, v = self.gates(x), self.peephole
        f, r = sigmoid(z.f + v.f * c), sigmoid(z.r + v.r * c)
        c = f * c + (1 - f) * self.value(x)
        return r * c + (1 - r) * self.bypass(x), c


class QRNN(LinearRecurrence):
    """Quasi-recurrent network: gates by convolution (Bradbury et al., 2017).

    z, f, o = tanh, σ, σ(W_0 x_t + W_1 x_{t−1} + … + b)    c' = f ⊙ c + (1 − f) ⊙ z    h' = o ⊙ c'

    The third state is the window of the K − 1 inputs before, the oldest first.

    Parameters: 3·H·(K·M + 1).

    Args:
        kernel_size: K, how many inputs a step sees; 2 by default.
    """

    state = ("h", "c", "past")
    bookkeeping = ("past",)
    memory = Linear("z f", of="x", bias=True)
    memory_past = Linear("z f", of="past")
    reading = Linear(of="x", bias=True)
    reading_past = Linear(of="past")

    def __init__(self, input_size: int, hidden_size: int, kernel_size: int = 2, **options: Any):
        self.kernel_size = positive("kernel_size", kernel_size)
        if self.kernel_size < 2:
            raise InputError(f"kernel_size must be an integer of at least 2, got {kernel_size!r}.")
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The output, the memory, and the inputs before."""
        return self.hidden_size, self.hidden_size, (self.kernel_size - 1) * self.input_size

    def coefficients(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        now, before = self.memory(x), self.memory_past(past)
        f = sigmoid(now.f + before.f)
        return f, (1 - f) * tanh(now.z + before.z)

    def output(self, c: Tensor, x: Tensor, past: Tensor) -> Tensor:
        return sigmoid(self.reading(x) + self.reading_past(past)) * c


class MinGRU(LinearRecurrence):
    """The GRU with gates of the input alone (Feng et al., 2024).

    z = σ(W x + b)    h' = (1 − z) ⊙ h + z ⊙ (W x + b)

    Parameters: 2·H·(M + 1).
    """

    state = ("h",)
    gates = Linear("z n", of="x", bias=True)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.gates(x)
        z = sigmoid(gates.z)
        return 1 - z, z * gates.n


class MinLSTM(LinearRecurrence):
    """The LSTM with gates of the input alone, which sum to 1 (Feng et al., 2024).

    f, i = σ(W x + b)    h' = f / (f + i) ⊙ h + i / (f + i) ⊙ (W x + b)

    Parameters: 3·H·(M + 1).
    """

    state = ("h",)
    gates = Linear("f i n", of="x", bias=True)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.gates(x)
        # f / (f + i), by their logarithms: both may be too small to be told from 0.
        share = sigmoid(logsigmoid(gates.f) - logsigmoid(gates.i))
        return share, (1 - share) * gates.n


class LRU(LinearRecurrence):
    """Linear recurrent unit: a diagonal of complex numbers (Orvieto et al., 2023).

    c' = λ ⊙ c + γ ⊙ (B x)    h' = Re(C c') + D x    λ = exp(−exp(ν) + i·exp(θ)), so that |λ| < 1

    The complex memory is a row of 2·H numbers, real parts first. λ starts uniform in a ring of the
    complex plane, γ at √(1 − |λ|²), which keeps the size of c whatever λ is.

    Parameters: 3·H + 3·H·M + 2·H·H.

    Args:
        radius: the inner and the outer radius of the ring, (0, 1) by default.
        phase: the greatest phase that λ starts at, 2π by default; small for long sequences.
    """

    state = ("h", "c")
    complex = True
    decay = Diagonal("nu theta gamma", decay=False)
    drive = Linear(of="x", to="c")
    read = Linear(of="c")
    direct = Linear(of="x")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        radius: tuple[float, float] = (0.0, 1.0),
        phase: float = 2 * math.pi,
        **options: Any,
    ):
        pair = isinstance(radius, Sequence) and len(radius) == 2
        if not pair or not 0 <= radius[0] < radius[1] <= 1:
            raise InputError(f"radius must be two numbers 0 ≤ r < R ≤ 1, received {radius!r}.")
        self.radius, self.phase = tuple(radius), phase
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The output, and the memory in pairs."""
        return self.hidden_size, 2 * self.hidden_size

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The ring; B and C normal, of variance 1 / (2 M) and 1 / H; D as any other map."""
        super().reset_parameters()
        nn.init.normal_(self.get_parameter("weight_drive"), std=(2 * self.input_size) ** -0.5)
        nn.init.normal_(self.get_parameter("weight_read"), std=self.hidden_size**-0.5)
        decay = self.get_parameter("weight_decay")
        inner, outer = self.radius
        share, angle = torch.rand(2, self.hidden_size, dtype=torch.float64)
        squared = (inner**2 + share * (outer**2 - inner**2)).clamp(1e-12, 1 - 1e-12)
        nu = (-0.5 * squared.log()).log()
        theta = (self.phase * angle).clamp(min=1e-12).log()
        gamma = 0.5 * (1 - squared).log()
        decay.copy_(torch.cat([nu, theta, gamma]))

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        d = self.decay
        size, angle, gamma = torch.exp(-torch.exp(d.nu)), torch.exp(d.theta), torch.exp(d.gamma)
        a = torch.cat([size * torch.cos(angle), size * torch.sin(angle)], -1)
        gamma = torch.cat([gamma, gamma], -1)
        if x.dim() < 3:
            return a, gamma * self.drive(x)
        # Of a sequence (γ B) x, which is the same, does not go through all of it once more.
        weight: Tensor = self.weight_drive  # type: ignore[assignment]
        return a, linear(x, gamma.unsqueeze(-1) * weight, None)

    def output(self, c: Tensor, x: Tensor) -> Tensor:
        return self.read(c) + self.direct(x)
