"""The simple recurrent networks, and the network without recurrence beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, sigmoid

from elman.cells.contract import Cell
from elman.cells.linear import LinearRecurrence
from elman.cells.maps import Affine, Diagonal, Linear
from elman.cells.sizes import positive
from elman.errors import InputError

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class _Simple(Cell):
    """A cell of one non-linearity, φ."""

    def __init__(
        self, input_size: int, hidden_size: int, nonlinearity: str = "tanh", **options: Any
    ):
        if nonlinearity not in NONLINEARITIES:
            raise InputError(
                f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, "
                f"received {nonlinearity!r}."
            )
        self.nonlinearity: str = nonlinearity
        super().__init__(input_size, hidden_size, **options)

    def phi(self, z: Tensor) -> Tensor:
        """φ(z)."""
        return NONLINEARITIES[self.nonlinearity](z)


class Perceptron(_Simple):
    """The multilayer perceptron (Rumelhart et al., 1986): no memory, the baseline.

    h' = φ(W x + b)

    Its one state is its output, which the next step does not read. Stacked with links past each
    layer, ``Recurrent(…, layers=50, skip="highway")`` or ``"residual"``, it is the highway or the
    residual network of any depth.

    Parameters: H·(M + 1).

    Args:
        nonlinearity: ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    net = Linear(of="x", bias=True)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return self.phi(self.net(x))


class Elman(_Simple):
    """The simple recurrent network (Elman, 1990).

    h' = φ(W x + U h + b)

    Parameters: H·(M + H + 1).

    Args:
        nonlinearity: φ, ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
    """

    state = ("h",)
    net = Affine()

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return self.phi(z)


class Jordan(_Simple):
    """The network whose output feeds back (Jordan, 1986).

    h = φ(W x + U y + b)    y' = φ(V h + b_o)

    Parameters: H·(M + O + 1) + O·(H + 1).

    Args:
        nonlinearity: φ, ``"tanh"`` (default), ``"relu"`` or ``"sigmoid"``.
        output_size: O, the width of y; the hidden size if not given.
    """

    state = ("y",)
    net = Affine()
    out = Linear(to="y", bias=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        output_size: int | None = None,
        **options: Any,
    ):
        if output_size is None:
            output_size = positive("hidden_size", hidden_size)
        self.output_size = positive("output_size", output_size)
        super().__init__(input_size, hidden_size, nonlinearity, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The output."""
        return (self.output_size,)

    def step(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.phi(z)
        return self.phi(self.out(h))


class IRNN(Elman):
    """The simple recurrent network of relu units that starts as the identity (Le et al., 2015).

    h' = relu(W x + U h + b), U starting at ``scale`` · I, b at 0, W from N(0, 0.001²)

    Parameters: H·(M + H + 1).

    Args:
        scale: what U starts as a multiple of the identity by; 1 by default. Below 1 it forgets.
    """

    def __init__(self, input_size: int, hidden_size: int, scale: float = 1.0, **options: Any):
        self.scale = scale
        super().__init__(input_size, hidden_size, "relu", **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The identity, small input weights, no bias."""
        for name, parameter in self.named_parameters():
            if name == "weight_hh":
                nn.init.eye_(parameter).mul_(self.scale)
            elif name == "weight_ih":
                nn.init.normal_(parameter, std=0.001)
            else:
                nn.init.zeros_(parameter)


class IdentityRNN(LinearRecurrence):
    """The identity recurrence: a constant error carousel alone (Hochreiter & Schmidhuber, 1997).

    h' = h + σ(W x + b)

    The gradient through it is 1 at every lag; but it can only grow.

    Parameters: H·(M + 1).
    """

    state = ("h",)
    net = Linear(of="x", bias=True)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        added = sigmoid(self.net(x))
        return torch.ones_like(added), added


class ResidualRNN(Cell):
    """The residual recurrence: a link past each step, as past a layer (He et al., 2016).

    h' = h + σ(W x + U h + b)

    Parameters: H·(M + H + 1).
    """

    state = ("h",)
    net = Affine()

    def step(self, z: Tensor, h: Tensor) -> Tensor:
        return h + sigmoid(z)


class IndRNN(_Simple):
    """Independently recurrent network: each unit sees its own past only (Li et al., 2018).

    h' = φ(W x + u ⊙ h + b), u starting uniform in ``recurrent_range``

    Parameters: H·(M + 2).

    Args:
        nonlinearity: φ, ``"relu"`` (default), ``"tanh"`` or ``"sigmoid"``.
        recurrent_range: (0, 1) by default. A unit of relu explodes over T steps unless
            ``|u|`` ≤ γ^(1/T), and forgets unless it is near 1.
    """

    state = ("h",)
    net = Linear(of="x", bias=True)
    recurrent = Diagonal()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "relu",
        recurrent_range: tuple[float, float] = (0.0, 1.0),
        **options: Any,
    ):
        pair = isinstance(recurrent_range, Sequence) and len(recurrent_range) == 2
        if not pair or not recurrent_range[0] <= recurrent_range[1]:
            raise InputError(
                "recurrent_range must be two numbers, the least and the greatest, "
                f"received {recurrent_range!r}."
            )
        self.recurrent_range = recurrent_range
        super().__init__(input_size, hidden_size, nonlinearity, **options)

    def reset_parameters(self) -> None:
        """Uniform, with a range of its own for u."""
        super().reset_parameters()
        nn.init.uniform_(self.get_parameter("weight_recurrent"), *self.recurrent_range)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return self.phi(self.net(x) + self.recurrent * h)
