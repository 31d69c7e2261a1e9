"""The recurrent highway network: many layers within one step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from elman.cells.contract import Cell
from elman.cells.maps import Affine, Linear
from elman.cells.sizes import positive


class RecurrentHighway(Cell):
    """Recurrent highway network: L highway layers within a step (Zilly et al., 2017).

    s_0 = h    n, t = tanh, σ(R_l s_{l−1} + b_l)    s_l = t ⊙ n + (1 − t) ⊙ s_{l−1}    h' = s_L

    The first layer alone also reads the input: W x is added there.

    Parameters: 2·H·(M + L·H + L).

    Args:
        depth: L; 3 by default.
        transform_bias: what the bias of the gates t starts at, −2 by default: a step then mostly
            carries the state on, so that deep ones learn at all.
    """

    state = ("h",)
    first = Affine("n t")
    deeper = Linear("n t", bias=True, repeat="more")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        depth: int = 3,
        transform_bias: float = -2.0,
        **options: Any,
    ):
        self.depth, self.transform_bias = positive("depth", depth), transform_bias
        super().__init__(input_size, hidden_size, **options)

    @property
    def more(self) -> int:
        """How many layers follow the first."""
        return self.depth - 1

    def reset_parameters(self) -> None:
        """Uniform, with a bias of its own for the gates."""
        super().reset_parameters()
        if self.biases:
            self.fill_bias("t", self.transform_bias)

    def step(self, z: Any, h: Tensor) -> Tensor:
        s = _layer(z, h)
        for deeper in self.deeper:
            s = _layer(deeper(s), s)
        return s


def _layer(z: Any, s: Tensor) -> Tensor:
    t = sigmoid(z.t)
    return t * tanh(z.n) + (1 - t) * s
