"""Cells from cells: zoneout, recurrent dropout and layer normalisation.

Each gives a cell whose step is the changed step, so that it is traced, differentiated and compiled
like any other. What is drawn at random comes to the step as columns beside its input.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm as normalised
from typing_extensions import override

from elman.cells.changes import follow
from elman.cells.contract import Cell
from elman.cells.lstm import LSTM
from elman.cells.maps import Affine, BoundAffine, Owner
from elman.errors import InputError

if TYPE_CHECKING:
    _Base = Cell
else:
    _Base = object


def zoneout(cell: Cell, p: float = 0.1) -> Cell:
    """``cell``, some of whose units keep their state for a step (Krueger et al., 2017).

    s' = m ⊙ s + (1 − m) ⊙ s̃ for each state s, with s̃ the cell's own next state and m drawn for
    each unit and step, 1 with probability p; p itself in evaluation. States that are no memory of
    the units, such as a clock (:attr:`Cell.bookkeeping`), go on as they are.

    Args:
        cell: any cell; its weights are shared with the new one.
        p: the probability that a unit keeps its state, in [0, 1).

    Raises:
        InputError: p is no such probability.
    """
    return _changed(cell, Zoneout, p)


def recurrent_dropout(cell: Cell, p: float = 0.25) -> Cell:
    """``cell``, whose maps of the state miss the same units all along (Gal & Ghahramani, 2016).

    U (m ⊙ h) in place of U h, with m drawn once for each sequence: 0 with probability p, else
    1 / (1 − p); 1 in evaluation. Only an :class:`Affine` is changed: in multiplicative cells it is
    U (m ⊙ h) that is masked, not the map that h comes in by, and in a recurrent highway network the
    first layer of a step alone.

    Args:
        cell: any cell with an :class:`Affine`; its weights are shared with the new one.
        p: the probability that a unit is missing, in [0, 1).

    Raises:
        InputError: p is no such probability.
    """
    return _changed(cell, RecurrentDropout, p)


def layer_norm(cell: Cell) -> Cell:
    """``cell`` with normalised maps (Ba et al., 2016).

    LN(W x) ⊙ α + LN(U h) ⊙ β + b in place of W x + U h + b, block by block, with gains α and β
    that start at 1: ``weight_norm_ih``, ``weight_norm_hh``.

    Args:
        cell: any cell with an :class:`Affine`; its weights are shared with the new one.
    """
    return _changed(cell, LayerNorm, None)


class Noisy(_Base):
    """A cell that reads columns of noise beside its input, while it is trained."""

    noiseless: bool = False

    def without_noise(self) -> Self:
        """This cell as it is evaluated: without noise."""
        noiseless = copy.copy(self)
        noiseless.__dict__["noiseless"] = True
        return noiseless


class Zoneout(Noisy):
    """Units that keep their state for a step, as :func:`zoneout` says."""

    zoneout_rate: ClassVar[float]

    @override
    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        sizes = self._zoned
        if self.noiseless:
            keep: dict[str, Any] = dict.fromkeys(sizes, self.zoneout_rate)
        else:
            own = sum(sizes.values())
            x, noise = x[..., :-own], x[..., -own:]
            keep = dict(zip(sizes, noise.split(list(sizes.values()), -1), strict=True))
        return tuple(
            keep[name] * s + (1 - keep[name]) * n if name in keep else n
            for name, s, n in zip(self.state, states, super().forward(x, *states), strict=True)
        )

    @property
    @override
    def noise_size(self) -> int:
        return 0 if self.noiseless else super().noise_size + sum(self._zoned.values())

    @override
    def noise(self, x: Tensor) -> Tensor:
        own = _drawn(self.zoneout_rate, x, (*x.shape[:2], sum(self._zoned.values())))
        return torch.cat([super().noise(x), own], -1) if super().noise_size else own

    @property
    def _zoned(self) -> dict[str, int]:
        """The width of each state that units may keep, by name."""
        sizes = zip(self.state, self.state_sizes, strict=True)
        return {name: size for name, size in sizes if name not in self.bookkeeping}


def _drawn(p: float, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Ones with probability p, to 1 / 65,536, and zeros.

    One number of 64 bits decides for four: to draw one for each takes as long as a step.
    """
    count = math.prod(shape)
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device)
    fours = numbers.random_(-(2**63), None).view(torch.int16)[:count]
    least = min(round(p * 65536), 65535) - 32768
    return (fours < least).to(like.dtype).view(shape)


class RecurrentDropout(Noisy):
    """Units that no map of the state reads, as :func:`recurrent_dropout` says."""

    dropout_rate: ClassVar[float]

    @override
    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if self.noiseless:
            return super().forward(x, *states)
        own = self.state_sizes[0]
        masked = copy.copy(self)
        masked.__dict__["_mask"] = x[..., -own:]
        return super(RecurrentDropout, masked).forward(x[..., :-own], *states)

    @property
    @override
    def noise_size(self) -> int:
        return 0 if self.noiseless else super().noise_size + self.state_sizes[0]

    @override
    def noise(self, x: Tensor) -> Tensor:
        left = 1 - self.dropout_rate
        once = torch.bernoulli(x.new_full((1, x.shape[1], self.state_sizes[0]), left)) / left
        own = once.expand(x.shape[0], -1, -1)
        return torch.cat([super().noise(x), own], -1) if super().noise_size else own


class MaskedAffine(Affine):
    """An affine map whose state is masked."""

    @override
    def bind(self, cell: Owner) -> BoundAffine:
        return _BoundMasked(self, cell)


class _BoundMasked(BoundAffine):
    def __init__(self, declared: Affine, cell: Owner):
        super().__init__(declared, cell)
        self._mask: Tensor | None = vars(cell).get("_mask")

    def __call__(self, x: Tensor, h: Tensor) -> Any:
        return super().__call__(x, h if self._mask is None else h * self._mask)

    def hidden(self, h: Tensor) -> Any:
        return super().hidden(h if self._mask is None else h * self._mask)


class LayerNorm(_Base):
    """Maps with normalised products, as :func:`layer_norm` says."""

    def reset_parameters(self) -> None:
        """As the cell's own, with gains of 1."""
        super().reset_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith("weight_norm_"):
                nn.init.ones_(parameter)


class NormalisedAffine(Affine):
    """An affine map whose two products are normalised, block by block."""

    @override
    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        n, end = self.width(cell), self.suffix(cell)
        gains = {f"weight_norm_ih{end}": (n,), f"weight_norm_hh{end}": (n,)}
        return {**super().shapes(cell), **gains}

    def decaying(self, cell: Owner) -> tuple[str, ...]:
        """The weights; the gains, whose middle is 1, do not."""
        return tuple(n for n in super().decaying(cell) if not n.startswith("weight_norm_"))

    @override
    def bind(self, cell: Owner) -> BoundAffine:
        return _BoundNormalised(self, cell)


class _BoundNormalised(BoundAffine):
    def __init__(self, declared: Affine, cell: Owner):
        super().__init__(declared, cell)
        end = declared.suffix(cell)
        self._count = max(1, len(declared.blocks))
        self._gain_ih: Tensor = getattr(cell, f"weight_norm_ih{end}")
        self._gain_hh: Tensor = getattr(cell, f"weight_norm_hh{end}")

    def __call__(self, x: Tensor, h: Tensor) -> Any:
        return self._named(self._of_input(x) + self._of_state(h))

    def input(self, x: Tensor) -> Any:
        return self._named(self._of_input(x))

    def hidden(self, h: Tensor) -> Any:
        return self._named(self._of_state(h))

    def _of_input(self, x: Tensor) -> Tensor:
        return self._normal(x @ self._weight_ih.t(), self._gain_ih, self._bias_ih)

    def _of_state(self, h: Tensor) -> Tensor:
        return self._normal(h @ self._weight_hh.t(), self._gain_hh, self._bias_hh)

    def _normal(self, z: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        biases = [None] * self._count if bias is None else bias.chunk(self._count)
        parts = zip(z.chunk(self._count, -1), gain.chunk(self._count), biases, strict=True)
        return torch.cat([normalised(part, part.shape[-1:], g, b) for part, g, b in parts], -1)


REPLACED: dict[type, type[Affine]] = {RecurrentDropout: MaskedAffine, LayerNorm: NormalisedAffine}
"""What a transform makes of a cell's affine maps."""


class _Transformed(_Base):
    """A cell of a class that is made when it is asked for, and made again when it is unpickled."""

    _made_of: ClassVar[tuple[Any, ...]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (_recipe(type(self)),), self.__getstate__()


def _recipe(kind: type) -> Any:
    """What pickle can store of a class: the class, or how it was made."""
    made_of = vars(kind).get("_made_of")
    return (made_of[0], _recipe(made_of[1]), made_of[2]) if made_of else kind


def _made(recipe: Any) -> type[Cell]:
    if isinstance(recipe, type):
        return recipe
    transform, cell, rate = recipe
    return _kind(transform, _made(cell), rate)  # type: ignore[arg-type]


def _blank(recipe: Any) -> Cell:
    kind = _made(recipe)
    return kind.__new__(kind)


@functools.cache
def _kind(transform: type, cell: type[Cell], rate: float | None) -> type[Cell]:
    members: dict[str, Any] = {
        "__doc__": cell.__doc__, "__module__": __name__, "_made_of": (transform, cell, rate)
    }  # fmt: skip
    if rate is not None:
        members["zoneout_rate" if transform is Zoneout else "dropout_rate"] = rate
    if transform in REPLACED:
        for declared in cell.maps():
            if type(declared) is Affine:
                members[declared.name] = REPLACED[transform](
                    " ".join(declared.blocks), mask=declared.mask
                )
            elif isinstance(declared, Affine):
                raise InputError(
                    f"{transform.__name__} cannot change the maps of {cell.__name__}, which "
                    "another transform has changed: apply zoneout to it, or one of the two alone."
                )
        if not any(isinstance(member, Affine) for member in members.values()):
            raise InputError(
                f"{cell.__name__} has no Affine map for {transform.__name__} to change."
            )
    bases = (transform, cell) if issubclass(cell, _Transformed) else (_Transformed, transform, cell)
    return type(f"{transform.__name__}{cell.__name__}", bases, members)


def _changed(cell: Cell, transform: type, rate: float | None) -> Cell:
    if rate is not None and not 0 <= rate < 1:
        raise InputError(f"p must lie in [0, 1), received {rate!r}.")
    changed = cell.bind(cell.state_dict(keep_vars=True))
    changed.__class__ = _kind(transform, type(cell), rate)  # type: ignore[arg-type]
    del changed.__dict__["_bound"]
    follow(cell, changed)
    like = next(cell.parameters())
    for name, shape in changed.weight_shapes().items():
        if name not in changed._parameters:
            changed.register_parameter(name, nn.Parameter(like.new_ones(shape)))
    return changed


LayerNormLSTM: type[Cell] = _kind(LayerNorm, LSTM, None)
"""The layer-normalised LSTM: what :func:`layer_norm` makes of an LSTM, as a class."""
LayerNormLSTM.__doc__ = """LSTM with normalised maps (Ba et al., 2016).

    i, f, o = σ(z)    c' = f ⊙ c + i ⊙ tanh(z)    h' = o ⊙ tanh(c')
    z = LN(W x) ⊙ α + LN(U h) ⊙ β + b, block by block

    The gains α and β, ``weight_norm_ih`` and ``weight_norm_hh``, start at 1. The paper also
    normalises the memory on its way out, h' = o ⊙ tanh(LN(c')); that is left out here.

    Parameters: 4·H·(M + H + 3).
    """
