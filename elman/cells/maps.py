"""What a cell's weights are declared as: by what they multiply."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex

from torch import Tensor
from torch.nn.functional import linear
from typing_extensions import override

from elman.cells.lines import at, calling_line
from elman.errors import InputError


class Owner(Protocol):
    """What a declared map asks of the cell that it belongs to."""

    input_size: int
    hidden_size: int
    biases: int

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state."""

    @classmethod
    def maps(cls) -> tuple[Map, ...]:
        """The cell's maps, in the order of their declaration."""

    def size_of(self, what: str) -> int:
        """The width of what a map multiplies."""


class Blocks:
    """The blocks of a linear map's output or of a diagonal weight, by name: ``z.i``, ``z.f``.

    Iterating yields them in the order of their declaration.
    """

    def __init__(self, names: Sequence[str], tensor: Tensor):
        self.__dict__.update(zip(names, tensor.chunk(len(names), dim=-1), strict=True))

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(f"no block {name!r}: the declared blocks are {', '.join(vars(self))}")

    def __iter__(self) -> Iterator[Tensor]:
        return iter(vars(self).values())


def _text(argument: str, value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{argument} must be {expected}, received {value!r}.")
    return value


class Map:
    """A declared weight of a cell: a descriptor that registers its parameters when a cell is made.

    ``blocks`` names the blocks of its output, separated by spaces, each one hidden size wide;
    without names the output is one plain tensor.
    """

    def __init__(self, blocks: str = ""):
        self.line = calling_line("__init__")
        """Where it is declared, as ``file:line``."""
        self.blocks = tuple(_text("blocks", blocks, "names with spaces, such as 'i f g o'").split())
        if len(set(self.blocks)) != len(self.blocks):
            raise InputError(f"blocks must have different names, received {blocks!r}.")
        for name in self.blocks:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise InputError(
                    f"blocks must be names that can follow a dot, as in z.i, received {name!r}."
                )

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, cell: Owner | None, owner: type) -> Any:
        return self if cell is None else self.bind(cell)

    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that this map adds to ``cell``."""
        raise NotImplementedError

    def bind(self, cell: Owner) -> Any:
        """What ``self.<name>`` is inside a step of ``cell``."""
        raise NotImplementedError

    def decaying(self, cell: Owner) -> tuple[str, ...]:
        """Those of its parameters that decay: its weights, not its biases."""
        return tuple(name for name in self.shapes(cell) if not name.startswith("bias_"))

    def state_matrices(self, cell: Owner) -> tuple[str, ...]:
        """Those of its parameters that are matrices which multiply a state."""
        return ()

    def named(self, tensor: Tensor) -> Blocks | Tensor:
        """``tensor`` cut into the declared blocks along its last axis."""
        return Blocks(self.blocks, tensor) if self.blocks else tensor

    def width(self, cell: Owner) -> int:
        """The width of the output: a hidden size for each block."""
        return max(1, len(self.blocks)) * cell.hidden_size

    def suffix(self, cell: Owner) -> str:
        """A cell's first map has the bare names of ``torch.nn``; the others carry their own."""
        return "" if type(cell).maps()[0] is self else f"_{self.name}"


def product(declared: Map, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``value`` (…, N) times ``weight`` (M, N), plus ``bias``.

    Raises:
        InputError: the value is not N wide.
    """
    try:
        return linear(value, weight, bias)
    except RuntimeError:
        if isinstance(value, Tensor) and value.shape[-1:] != weight.shape[-1:]:
            raise InputError(
                f"self.{declared.name} multiplies what is {weight.shape[-1]} wide, received a "
                f"value of shape {tuple(value.shape)}."
            ) from None
        raise


class Affine(Map):
    """``W x + U h + b``: the map of a step's input and of a state.

    Parameters, for n blocks of H units, input size M and first state of size S:
    ``weight_ih`` (n·H, M), ``weight_hh`` (n·H, S), and ``bias_ih``, ``bias_hh`` (n·H) for cells
    with two biases, ``bias_ih`` alone for cells with one. A map that is not the cell's first adds
    its name: ``weight_ih_candidate``.

    Inside a step, ``self.gates(x, h)`` gives the blocks of the sum, ``self.gates.input(x)`` those
    of ``W x + b`` and ``self.gates.hidden(h)`` those of ``U h`` (plus the second bias).

    Args:
        blocks: names of the output's blocks; each is a hidden size wide.
        mask: the name of a :class:`Constant` (n·H, S), such as of zeros and ones, that U is
            multiplied by element by element: the connections that there are.
    """

    def __init__(self, blocks: str = "", *, mask: str | None = None):
        super().__init__(blocks)
        self.mask = None if mask is None else _text("mask", mask, "the name of a Constant")

    @override
    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        n, end = self.width(cell), self.suffix(cell)
        shapes: dict[str, tuple[int, ...]] = {
            f"weight_ih{end}": (n, cell.input_size),
            f"weight_hh{end}": (n, cell.state_sizes[0]),
        }
        if cell.biases >= 1:
            shapes[f"bias_ih{end}"] = (n,)
        if cell.biases == 2:
            shapes[f"bias_hh{end}"] = (n,)
        return shapes

    @override
    def state_matrices(self, cell: Owner) -> tuple[str, ...]:
        return (f"weight_hh{self.suffix(cell)}",)

    @override
    def bind(self, cell: Owner) -> BoundAffine:
        return BoundAffine(self, cell)


class BoundAffine:
    """An :class:`Affine` with the weights of one cell."""

    def __init__(self, declared: Affine, cell: Owner):
        end = declared.suffix(cell)
        self._declared, self._named = declared, declared.named
        self._weight_ih: Tensor = getattr(cell, f"weight_ih{end}")
        self._weight_hh: Tensor = getattr(cell, f"weight_hh{end}")
        one, two = cell.biases >= 1, cell.biases == 2
        self._bias_ih: Tensor | None = getattr(cell, f"bias_ih{end}") if one else None
        self._bias_hh: Tensor | None = getattr(cell, f"bias_hh{end}") if two else None
        if declared.mask:
            self._weight_hh = self._weight_hh * getattr(cell, declared.mask)

    def __call__(self, x: Tensor, h: Tensor) -> Any:
        """The blocks of ``W x + U h + b``."""
        return self._named(self._input(x) + self._hidden(h))

    def input(self, x: Tensor) -> Any:
        """The blocks of ``W x + b``."""
        return self._named(self._input(x))

    def hidden(self, h: Tensor) -> Any:
        """The blocks of ``U h``, plus the second bias in a cell that has two."""
        return self._named(self._hidden(h))

    def _input(self, x: Tensor) -> Tensor:
        return product(self._declared, x, self._weight_ih, self._bias_ih)

    def _hidden(self, h: Tensor) -> Tensor:
        return product(self._declared, h, self._weight_hh, self._bias_hh)


class Linear(Map):
    """``A v``, or ``A v + b``: a linear map of one value.

    Args:
        blocks: names of the output's blocks; each is a hidden size wide.
        of: the width of what it multiplies: ``"x"`` the input, ``"hidden"`` the hidden size, or
            the name of a state.
        bias: whether it has a bias (left out in a cell made without biases).
        to: the width of the output where there are no blocks: as ``of``.
        weight: the parameter's name; ``weight_<attribute>`` if not given.
        repeat: the name of an attribute of the cell that says how many such maps there are:
            inside a step they are a list, and their parameters are numbered from 0 on.
    """

    def __init__(
        self,
        blocks: str = "",
        *,
        of: str = "hidden",
        bias: bool = False,
        to: str = "hidden",
        weight: str | None = None,
        repeat: str | None = None,
    ):
        super().__init__(blocks)
        self.of = _text("of", of, "'x', 'hidden' or the name of a state")
        self.to = _text("to", to, "'x', 'hidden' or the name of a state")
        self.bias = bias
        self.weight = None if weight is None else _text("weight", weight, "a parameter's name")
        self.repeat = None if repeat is None else _text("repeat", repeat, "an attribute's name")

    @override
    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        rows = self.width(cell) if self.blocks else cell.size_of(self.to)
        shapes: dict[str, tuple[int, ...]] = {}
        for weight, bias in self._parameters(cell):
            shapes[weight] = rows, cell.size_of(self.of)
            if self.bias and cell.biases:
                shapes[bias] = (rows,)
        return shapes

    @override
    def bind(self, cell: Owner) -> Any:
        biased = self.bias and cell.biases
        maps = [
            self._bound(getattr(cell, weight), getattr(cell, bias) if biased else None)
            for weight, bias in self._parameters(cell)
        ]
        return maps if self.repeat else maps[0]

    @override
    def decaying(self, cell: Owner) -> tuple[str, ...]:
        weights = {weight for weight, _ in self._parameters(cell)}
        return tuple(name for name in self.shapes(cell) if name in weights)

    @override
    def state_matrices(self, cell: Owner) -> tuple[str, ...]:
        of_state = self.of not in ("x", "hidden")
        return tuple(weight for weight, _ in self._parameters(cell)) if of_state else ()

    def _bound(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Any]:
        return lambda value: self.named(product(self, value, weight, bias))

    def _parameters(self, cell: Owner) -> list[tuple[str, str]]:
        """The names of the weight and of the bias of each map."""
        weight, bias = self.weight or f"weight_{self.name}", f"bias_{self.name}"
        if self.repeat is None:
            return [(weight, bias)]
        return [(f"{weight}_{k}", f"{bias}_{k}") for k in range(self._count(cell, self.repeat))]

    def _count(self, cell: Owner, attribute: str) -> int:
        count = getattr(cell, attribute, None)
        if not isinstance(count, SupportsIndex) or isinstance(count, bool) or int(count) < 0:
            raise InputError(
                f"{type(cell).__name__}.{self.name} is repeated as often as self.{attribute} says"
                f"{at(self.line)}, which must be an integer that is set before super().__init__, "
                f"received {count!r}."
            )
        return int(count)


class Diagonal(Map):
    """``v``: a weight for each unit, so that ``self.peephole.i * c`` is ``diag(v_i) c``.

    Its parameter is ``weight_<attribute>`` of shape (n·H); inside a step it is its blocks, or one
    vector where no blocks are named.

    Args:
        blocks: names of its blocks; each is a hidden size wide.
        decay: whether weight decay pulls it towards zero, as it does any weight. False where zero
            is no special value, as of a logarithm or of a gain.
    """

    def __init__(self, blocks: str = "", *, decay: bool = True):
        super().__init__(blocks)
        self.decay = decay

    @override
    def decaying(self, cell: Owner) -> tuple[str, ...]:
        return tuple(self.shapes(cell)) if self.decay else ()

    @override
    def shapes(self, cell: Owner) -> dict[str, tuple[int, ...]]:
        return {f"weight_{self.name}": (self.width(cell),)}

    @override
    def bind(self, cell: Owner) -> Any:
        return self.named(getattr(cell, f"weight_{self.name}"))
