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

(All its gates see the memory before the step; in the paper's, :class:`elman.cells.PeepholeLSTM`,
the output gate sees the one after it.)

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

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from elman.allocation import is_out_of_memory
from elman.cells.changes import changed_options, write
from elman.cells.checks import check_class, check_made, check_shapes
from elman.cells.constants import Constant, in_precision
from elman.cells.lines import at, calling_line, reason, step_line
from elman.cells.maps import Affine, Map
from elman.cells.options import Memos
from elman.cells.sizes import positive
from elman.errors import ElmanError, InputError

_T = TypeVar("_T")


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
    bookkeeping: ClassVar[tuple[str, ...]] = ()
    """States that are no memory of the units, such as a clock or a window of past inputs."""
    __defined_at__: ClassVar[str] = ""
    """Where the class is defined, as ``file:line``, for messages to name."""
    _options: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__defined_at__ = calling_line("__init_subclass__")

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
        input_size = positive("input_size", input_size)
        hidden_size = positive("hidden_size", hidden_size)
        if biases not in (0, 1, 2):
            raise InputError(f"biases must be 0, 1 or 2, received {biases!r}.")
        if dtype is not None and not dtype.is_floating_point:
            raise InputError(f"dtype must be of real numbers, as torch.float32, received {dtype}.")
        self.input_size, self.hidden_size, self.biases = input_size, hidden_size, biases
        check_class(self, Cell)
        for name, shape in self.weight_shapes().items():
            self.register_parameter(
                name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            )
        like = torch.empty(0, device=device, dtype=dtype)
        for constant in type(self).constants():
            made = constant.made(self, like.dtype, like.device)
            self.register_buffer(constant.parameter, made)
        check_shapes(self)
        self.reset_parameters()
        self.__dict__["_made"] = True

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
        return cls._declared(Map)

    @classmethod
    def constants(cls) -> tuple[Constant, ...]:
        """The declared constants, in the order of their declaration, bases first."""
        return cls._declared(Constant)

    @classmethod
    def _declared(cls, kind: type[_T]) -> tuple[_T, ...]:
        found: dict[str, _T] = {}
        for base in reversed(cls.__mro__):
            found.update((k, v) for k, v in vars(base).items() if isinstance(v, kind))
        return tuple(found.values())

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by its parameter's name, in the order of declaration."""
        shapes: dict[str, tuple[int, ...]] = {}
        for declared in type(self).maps():
            for name, shape in declared.shapes(self).items():
                if name in shapes:
                    raise InputError(
                        f"{type(self).__name__} declares the parameter {name} twice"
                        f"{at(declared.line)}: "
                        f"rename {declared.name!r}, or give it a weight= of its own."
                    )
                shapes[name] = shape
        return shapes

    def decaying(self) -> frozenset[str]:
        """The names of the weights that decay pulls towards zero: see :meth:`Map.decaying`."""
        return frozenset(n for declared in type(self).maps() for n in declared.decaying(self))

    def state_matrices(self) -> frozenset[str]:
        """The names of the matrices that multiply a state: see :meth:`Map.state_matrices`."""
        return frozenset(n for declared in type(self).maps() for n in declared.state_matrices(self))

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
        # What is neither a tensor nor several, check_step refuses.
        return tuple(new) if isinstance(new, (tuple, list)) else (new,)

    # What :mod:`elman.cells.transforms` changes: a cell may read noise beside its input.

    @property
    def noise_size(self) -> int:
        """How many columns of noise a step reads after its input."""
        return 0

    def noise(self, x: Tensor) -> Tensor:
        """The noise for sequences x (T, B, …): (T, B, noise_size)."""
        return x.new_empty(*x.shape[:2], 0)

    def without_noise(self) -> Self:
        """This cell as it is evaluated: without noise."""
        return self

    def bind(self, weights: Mapping[str, Tensor]) -> Self:
        """This cell computing with ``weights``, by parameter name, in place of its own.

        Constants may be among them; those that are not stay the cell's own.
        """
        bound, constants = object.__new__(type(self)), self._buffers
        bound.__dict__.update(self.__dict__)
        bound.__dict__["_parameters"] = {n: w for n, w in weights.items() if n not in constants}
        bound.__dict__["_buffers"] = {n: weights.get(n, c) for n, c in constants.items()}
        bound.__dict__["_bound"] = True
        bound.__dict__["_memo"] = Memos()
        return bound

    # -- options that change ------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """The mode; a step that reads it has a kernel for each."""
        own = self.__dict__
        if "_mode_read" in own:
            own["_mode_read"].append(True)
        return bool(own["training"])

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["training"] = mode

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option, also of the networks that were made from this cell.

        Raises:
            InputError: it decides how many weights there are, or a constant was made from it; or it
                is a weight, and those of a network are its own.
        """
        write(self, name, lambda cell: nn.Module.__setattr__(cell, name, value))

    def __delattr__(self, name: str) -> None:
        """As setting: a class's own value may come to light."""

        def delete(cell: Cell) -> None:
            if cell is self or name in vars(cell) or name in cell._modules:
                nn.Module.__delattr__(cell, name)

        write(self, name, delete)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not what engines know of this very cell."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_memo", "tag", "_mutable")}

    def resized(self, input_size: int, hidden_size: int) -> Self:
        """A new cell of the same kind and options for other sizes, freshly initialised."""
        cell = self._remade(input_size, hidden_size)
        like = next(self.parameters(), None)
        if like is not None:
            cell.to(like)
        for name, value in changed_options(self).items():
            setattr(cell, name, value)
        return cell

    def _remade(self, input_size: int, hidden_size: int, *without: str) -> Self:
        """A cell made as this one was, for other sizes; ``without`` some of the options."""
        args, kwargs = self._options
        # The sizes come first, by position or by name; the rest is passed on as it was given.
        parameters = inspect.signature(type(self)).parameters.values()
        named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][:2]
        out = {"input_size", "hidden_size", *named, *without}
        options = {name: value for name, value in kwargs.items() if name not in out}
        try:
            cell = type(self)(input_size, hidden_size, *args[2:], **options)
        except ElmanError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            line = at(step_line(self, error) or type(self).__defined_at__)
            raise InputError(
                f"{type(self).__name__} could not be made with {input_size} inputs and "
                f"{hidden_size} units{line} ({reason(error)}): expected "
                "def __init__(self, input_size, hidden_size, **options), which can make any."
            ) from error
        check_made(cell)
        return cell

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

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As any module, but constants are made anew in another precision."""
        before = self.bind({})
        super()._apply(fn, recurse)
        held = self._parameters | self._buffers
        self._buffers.update(in_precision(before, {n: t for n, t in held.items() if t is not None}))
        return self

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"{self.input_size}, {self.hidden_size}"
