"""What a cell is: its states, its weights by what they multiply, and one step.

A cell is written as its paper writes it::

    class PeepholeLSTM(Cell):
        state = ("h", "c")                    # the first is the output
        gates = Affine("i f g o")             # W x + U h + b, one block a gate
        peephole = Diagonal("i f o")

        def step(self, z, h, c):
            v = self.peephole
            i, f, o = sigmoid(z.i + v.i * c), sigmoid(z.f + v.f * c), sigmoid(z.o + v.o * c)
            c = f * c + i * tanh(z.g)
            return o * tanh(c), c

``step`` takes the states by position, after one argument whose name says what it is:

``z``
    the first declared :class:`Affine` of the input and of the first state, block by block;
``x``
    the input itself, for a cell that applies its maps on its own.

A step is a pure function of tensors whose last axis is the unit. It is made of pointwise torch
functions, of the declared maps, and of reductions over the last axis; nothing depends on the
values of the data, nothing is changed in place. What keeps to this can be traced, differentiated
and compiled for every batch and every length.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from elman.errors import InputError


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


class Map:
    """A declared weight of a cell: a descriptor that registers its parameters when a cell is made.

    ``blocks`` names the blocks of its output, separated by spaces, each one hidden size wide;
    without names the output is one plain tensor.
    """

    def __init__(self, blocks: str = ""):
        self.blocks = tuple(blocks.split())
        if len(set(self.blocks)) != len(self.blocks):
            raise InputError(f"blocks must have different names, received {blocks!r}.")

    def __set_name__(self, owner: type[Cell], name: str) -> None:
        self.name = name

    def __get__(self, cell: Cell | None, owner: type[Cell]) -> Any:
        return self if cell is None else self.bind(cell)

    def shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter that this map adds to ``cell``."""
        raise NotImplementedError

    def bind(self, cell: Cell) -> Any:
        """What ``self.<name>`` is inside a step of ``cell``."""
        raise NotImplementedError

    def named(self, tensor: Tensor) -> Blocks | Tensor:
        """``tensor`` cut into the declared blocks along its last axis."""
        return Blocks(self.blocks, tensor) if self.blocks else tensor

    def width(self, cell: Cell) -> int:
        """The width of the output: a hidden size for each block."""
        return max(1, len(self.blocks)) * cell.hidden_size

    def suffix(self, cell: Cell) -> str:
        """A cell's first map has the bare names of ``torch.nn``; the others carry their own."""
        return "" if type(cell).maps()[0] is self else f"_{self.name}"


class Affine(Map):
    """``W x + U h + b``: the map of a step's input and of a state.

    Parameters, for n blocks of H units, input size M and first state of size S:
    ``weight_ih`` (n·H, M), ``weight_hh`` (n·H, S), and ``bias_ih``, ``bias_hh`` (n·H) for cells
    with two biases, ``bias_ih`` alone for cells with one. A map that is not the cell's first adds
    its name: ``weight_ih_candidate``.

    Inside a step, ``self.gates(x, h)`` gives the blocks of the sum, ``self.gates.input(x)`` those
    of ``W x + b`` and ``self.gates.hidden(h)`` those of ``U h`` (plus the second bias).
    """

    def shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """See :meth:`Map.shapes`."""
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

    def bind(self, cell: Cell) -> BoundAffine:
        """See :meth:`Map.bind`."""
        return BoundAffine(self, cell)


class BoundAffine:
    """An :class:`Affine` with the weights of one cell."""

    def __init__(self, declared: Affine, cell: Cell):
        end = declared.suffix(cell)
        self._named = declared.named
        self._weight_ih: Tensor = getattr(cell, f"weight_ih{end}")
        self._weight_hh: Tensor = getattr(cell, f"weight_hh{end}")
        self._bias_ih: Tensor | None = getattr(cell, f"bias_ih{end}", None)
        self._bias_hh: Tensor | None = getattr(cell, f"bias_hh{end}", None)

    def __call__(self, x: Tensor, h: Tensor) -> Any:
        """The blocks of ``W x + U h + b``."""
        return self._named(
            linear(x, self._weight_ih, self._bias_ih) + linear(h, self._weight_hh, self._bias_hh)
        )

    def input(self, x: Tensor) -> Any:
        """The blocks of ``W x + b``."""
        return self._named(linear(x, self._weight_ih, self._bias_ih))

    def hidden(self, h: Tensor) -> Any:
        """The blocks of ``U h``, plus the second bias in a cell that has two."""
        return self._named(linear(h, self._weight_hh, self._bias_hh))


class Linear(Map):
    """``A v``, or ``A v + b``: a linear map of one value.

    Args:
        blocks: names of the output's blocks; each is a hidden size wide.
        of: the width of what it multiplies: ``"x"`` the input, ``"hidden"`` the hidden size, or
            the name of a state.
        bias: whether it has a bias (left out in a cell made without biases).
        to: the width of the output where there are no blocks: as ``of``.
        weight: the parameter's name; ``weight_<attribute>`` if not given.
    """

    def __init__(
        self,
        blocks: str = "",
        *,
        of: str = "hidden",
        bias: bool = False,
        to: str = "hidden",
        weight: str | None = None,
    ):
        super().__init__(blocks)
        self.of, self.to, self.bias, self.weight = of, to, bias, weight

    def shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """See :meth:`Map.shapes`."""
        rows = self.width(cell) if self.blocks else cell.size_of(self.to)
        shapes: dict[str, tuple[int, ...]] = {self.parameter: (rows, cell.size_of(self.of))}
        if self.bias and cell.biases:
            shapes[f"bias_{self.name}"] = (rows,)
        return shapes

    @property
    def parameter(self) -> str:
        """The name of the weight."""
        return self.weight or f"weight_{self.name}"

    def bind(self, cell: Cell) -> Any:
        """See :meth:`Map.bind`."""
        weight = getattr(cell, self.parameter)
        bias = getattr(cell, f"bias_{self.name}", None)
        return lambda value: self.named(linear(value, weight, bias))


class Diagonal(Map):
    """``v``: a weight for each unit, so that ``self.peephole.i * c`` is ``diag(v_i) c``.

    Its parameter is ``weight_<attribute>`` of shape (n·H); inside a step it is its blocks, or one
    vector where no blocks are named.
    """

    def shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """See :meth:`Map.shapes`."""
        return {f"weight_{self.name}": (self.width(cell),)}

    def bind(self, cell: Cell) -> Any:
        """See :meth:`Map.bind`."""
        return self.named(getattr(cell, f"weight_{self.name}"))


class Cell(nn.Module):
    """One step of a recurrence. Subclass it, declare ``state`` and weights, write ``step``.

    Calling a cell runs one step: ``h, c = cell(x, h, c)`` with x (…, input_size) and each state
    (…, its size). :class:`elman.Recurrent` runs it over time.

    Args:
        input_size: M, the width of the input.
        hidden_size: H, the number of units.
        biases: how many biases an :class:`Affine` has: 0, 1, or 2 as in ``torch.nn``.
        device, dtype: of the weights.

    Weights start uniform in ±1/√H, as in ``torch.nn``; override :meth:`reset_parameters` for
    another start.

    Raises:
        InputError: a size is not positive, or the class does not keep to the contract.
    """

    state: ClassVar[tuple[str, ...]] = ("h",)
    _options: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember how the cell was made, so that a stack can make its deeper layers alike."""
        cell = super().__new__(cls)
        cell.__dict__["_options"] = (args, kwargs)
        return cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        biases: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive integer, received {value!r}.")
        if biases not in (0, 1, 2):
            raise InputError(f"biases must be 0, 1 or 2, received {biases!r}.")
        self.input_size, self.hidden_size, self.biases = input_size, hidden_size, biases
        self._check_contract()
        for name, shape in self.weight_shapes().items():
            self.register_parameter(
                name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            )
        self.reset_parameters()

    # -- what a subclass writes -------------------------------------------------------------

    def step(self, *args: Any) -> Tensor | tuple[Tensor, ...]:
        """The next states, from ``z`` or ``x`` and the states; the first is the output."""
        raise NotImplementedError

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state; the hidden size unless a subclass says otherwise."""
        return (self.hidden_size,) * len(self.state)

    def reset_parameters(self) -> None:
        """Draw every weight uniformly from ±1/√H, in the order of their declaration."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    # -- what elman does with it ------------------------------------------------------------

    @classmethod
    def maps(cls) -> tuple[Map, ...]:
        """The declared maps, in the order of their declaration, bases first."""
        found: dict[str, Map] = {}
        for base in reversed(cls.__mro__):
            found.update((k, v) for k, v in vars(base).items() if isinstance(v, Map))
        return tuple(found.values())

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its parameter's name, in the order of declaration."""
        return {k: v for m in type(self).maps() for k, v in m.shapes(self).items()}

    @classmethod
    def first_argument(cls) -> str:
        """The name of the step's first argument: ``"x"`` or ``"z"``."""
        return next(iter(list(inspect.signature(cls.step).parameters)[1:]), "")

    def size_of(self, what: str) -> int:
        """The width of ``"x"``, of ``"hidden"`` or of the state of that name."""
        sizes = {"x": self.input_size, "hidden": self.hidden_size}
        sizes.update(zip(self.state, self.state_sizes, strict=True))
        if what not in sizes:
            raise InputError(
                f"{type(self).__name__} has no {what!r}: expected one of {', '.join(sizes)}."
            )
        return sizes[what]

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One step: x (…, M) and the states (…, size) to the next states."""
        cls = type(self)
        if cls.first_argument() == "z":
            affine = next(m for m in cls.maps() if isinstance(m, Affine))
            x = affine.bind(self)(x, states[0])
        new = self.step(x, *states)
        return (new,) if isinstance(new, Tensor) else tuple(new)

    def bind(self, weights: Mapping[str, Tensor]) -> Self:
        """This cell computing with ``weights``, by parameter name, in place of its own."""
        bound = copy.copy(self)
        bound.__dict__["_parameters"] = dict(weights)
        return bound

    def resized(self, input_size: int, hidden_size: int) -> Self:
        """A new cell of the same kind and options for other sizes, freshly initialised."""
        args, kwargs = self._options
        given = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        sizes = list(given.signature.parameters)[1:3]
        given.arguments.update(zip(sizes, (input_size, hidden_size), strict=True))
        return type(self)(*given.args[1:], **given.kwargs)

    def blocks_of(self, parameter: str) -> tuple[str, ...]:
        """The names of the blocks that the rows of ``parameter`` are cut into, or nothing."""
        for declared in type(self).maps():
            if parameter in declared.shapes(self):
                return declared.blocks
        raise InputError(f"{type(self).__name__} has no parameter {parameter!r}.")

    @torch.no_grad()
    def fill_bias(self, block: str, value: float) -> None:
        """Set the bias of every block of that name to ``value`` (where there are two, their sum).

        Raises:
            InputError: the cell has no biased block of that name.
        """
        filled = False
        for name, parameter in self.named_parameters():
            names = self.blocks_of(name)
            if name.startswith("bias_") and block in names:
                rows = parameter.view(len(names), -1)[names.index(block)]
                rows.fill_(0.0 if name.startswith("bias_hh") else value)
                filled = True
        if not filled:
            raise InputError(f"{type(self).__name__} has no block {block!r} with a bias to set.")

    def check_step(self, x: Tensor, states: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Raise what is wrong with ``new``, the states that a step made of ``x`` and ``states``."""
        name = f"{type(self).__name__}.step"
        if len(new) != len(self.state):
            raise InputError(
                f"{name} returned {len(new)} values; expected {len(self.state)}, "
                f"one for each state ({', '.join(self.state)})."
            )
        for label, before, after in zip(self.state, states, new, strict=True):
            if after.shape != before.shape:
                raise InputError(
                    f"{name} returned {label} of shape {tuple(after.shape)}; expected "
                    f"{tuple(before.shape)}, the shape it received."
                )

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"{self.input_size}, {self.hidden_size}"

    def _check_contract(self) -> None:
        cls, maps = type(self), type(self).maps()
        label = cls.__name__
        if not self.state or len(set(self.state)) != len(self.state):
            raise InputError(f"{label}.state must name each state once, received {self.state!r}.")
        parameters = list(inspect.signature(cls.step).parameters.values())[1:]
        if not parameters or parameters[0].name not in ("x", "z"):
            received = parameters[0].name if parameters else "nothing"
            raise InputError(
                f"{label}.step must take x (the input) or z (its affine map) first, "
                f"received {received!r}."
            )
        positional = [p for p in parameters[1:] if p.kind is not p.VAR_POSITIONAL]
        if len(positional) == len(parameters) - 1 and len(positional) != len(self.state):
            raise InputError(
                f"{label}.step takes {len(positional)} states; expected {len(self.state)}, "
                f"one for each of {', '.join(self.state)}."
            )
        if parameters[0].name == "z" and not any(isinstance(m, Affine) for m in maps):
            raise InputError(
                f"{label}.step takes z, but {label} declares no Affine map: "
                f"declare one, such as gates = Affine('i f'), or take x."
            )
