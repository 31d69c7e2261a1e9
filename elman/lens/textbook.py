"""The textbook's experiments on vanishing and exploding gradients, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.errors import InputError
from elman.seeds import generator

MATRICES = ("gaussian", "orthogonal")

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Chain:
    """A gradient that goes back through one matrix again and again.

    Attributes:
        scale: what the matrix was multiplied with.
        norms: ‖δ_k‖ for k = 0, 1, … multiplications (steps + 1).
        spectral_radius: the largest |eigenvalue| of W, the factor a step in the long run.
        largest_singular_value: the largest factor that any single step can have.
    """

    scale: float
    norms: Tensor
    spectral_radius: float
    largest_singular_value: float

    @property
    def rate(self) -> float:
        """The mean factor a step, over the second half of the steps."""
        half = (len(self.norms) - 1) // 2
        return float(self.norms[-1] / self.norms[half]) ** (1 / (len(self.norms) - 1 - half))


def repeated_products(
    scales: Sequence[float] = (0.5, 0.9, 1.0, 1.1, 1.5),
    *,
    hidden: int = 64,
    steps: int = 20,
    matrix: str = "gaussian",
    seed: int = 0,
) -> list[Chain]:
    """δ ← Wᵀ δ, again and again, with W = scale · M: the norm grows or shrinks exponentially.

    M is the same for every scale: ``"gaussian"`` with entries from N(0, 1) divided by their own
    spectral radius, so that W's is the scale and its largest singular value about twice that; or
    ``"orthogonal"``, all of whose singular values are 1, so that ‖δ_k‖ = scale^k exactly. δ_0 is a
    random unit vector.

    Args:
        scales: positive.
        hidden: H, W being (H, H).
        steps: multiplications.
        matrix: as above.
        seed: fixes M and δ_0.

    Raises:
        InputError: an argument has a value that cannot be used.
    """
    if not scales or min(scales) <= 0 or not all(map(math.isfinite, scales)):
        raise InputError(f"scales must be positive numbers, received {list(scales)}.")
    _at_least("hidden", hidden, 1)
    _at_least("steps", steps, 2)
    if matrix not in MATRICES:
        raise InputError(f"matrix must be one of {', '.join(MATRICES)}, received {matrix!r}.")
    draw = generator(seed)
    entries = torch.randn(hidden, hidden, generator=draw, dtype=torch.float64)
    start = torch.randn(hidden, generator=draw, dtype=torch.float64)
    if matrix == "orthogonal":
        unit = torch.linalg.qr(entries).Q
    else:
        unit = entries / torch.linalg.eigvals(entries).abs().max()
    radius = float(torch.linalg.eigvals(unit).abs().max())
    largest = float(torch.linalg.svdvals(unit)[0])
    chains = []
    for scale in scales:
        delta = start / start.norm()
        norms = [delta.norm()]
        for _ in range(steps):
            delta = scale * (unit.t() @ delta)
            norms.append(delta.norm())
        chains.append(Chain(scale, torch.stack(norms), scale * radius, scale * largest))
    return chains


def depth(
    nonlinearity: str = "tanh",
    *,
    layers: int = 30,
    hidden: int = 64,
    gain: float = 1.0,
    batch: int = 64,
    seed: int = 0,
) -> Tensor:
    """How a gradient goes down a plain feed-forward chain a_l = φ(W_l a_{l−1}).

    Every W_l has its own entries from N(0, gain²/H); a_0 is from N(0, 1), and so is ∂L/∂a_L, which
    the loss L = Σ v ⊙ a_L with a random v gives.

    Args:
        nonlinearity: φ: ``"linear"``, ``"relu"``, ``"tanh"`` or ``"sigmoid"``.
        layers: L.
        hidden: H.
        gain: as above.
        batch: inputs that the norms are averaged over.
        seed: fixes every draw.

    Returns:
        ‖∂L/∂a_{L−l}‖ for l = 0 … L, as a share of that at l = 0 (L + 1), float64.

    Raises:
        InputError: an argument has a value that cannot be used.
    """
    if nonlinearity not in NONLINEARITIES:
        raise InputError(
            f"nonlinearity must be one of {', '.join(NONLINEARITIES)}, received {nonlinearity!r}."
        )
    for name, value in (("layers", layers), ("hidden", hidden), ("batch", batch)):
        _at_least(name, value, 1)
    draw = generator(seed)
    phi = NONLINEARITIES[nonlinearity]
    a = torch.randn(batch, hidden, generator=draw, dtype=torch.float64).requires_grad_()
    activations = [a]
    for _ in range(layers):
        weight = torch.randn(hidden, hidden, generator=draw, dtype=torch.float64)
        a = phi(a @ (weight * gain / hidden**0.5).t())
        activations.append(a)
    v = torch.randn(batch, hidden, generator=draw, dtype=torch.float64)
    found = torch.autograd.grad((v * a).sum(), activations)
    norms = torch.stack([g.norm(dim=-1).mean() for g in reversed(found)])
    return norms / norms[0]


def derivative(nonlinearity: str, z: Tensor) -> Tensor:
    """φ'(z), element by element: at most 1 for tanh, at most 1/4 for the logistic sigmoid."""
    z = z.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(NONLINEARITIES[nonlinearity](z).sum(), z)
    return slope


def values_and_slopes(nonlinearity: str, z: Tensor) -> tuple[Tensor, Tensor]:
    """φ(z) and φ'(z) of a non-linearity by its name."""
    return NONLINEARITIES[nonlinearity](z), derivative(nonlinearity, z)


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}, received {value!r}.")
