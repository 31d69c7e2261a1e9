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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from elman.cells.changes import changed_options, write
from elman.cells.lines import at, attribute_set_at, changed_at, returned_at, step_line
from elman.cells.maps import Affine, Constant, Map
from elman.cells.options import INTERNAL, Memos
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
        for constant in type(self).constants():
            like = torch.empty(0, device=device, dtype=dtype)
            self.register_buffer(constant.parameter, constant.make(self).detach().to(like))
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
                        f"{type(self).__name__} declares the parameter {name} twice: "
                        f"rename {declared.name!r}, or give it a weight= of its own."
                    )
                shapes[name] = shape
        return shapes

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
        # What is neither a tensor nor several is for check_step to tell.
        return tuple(new) if isinstance(new, (tuple, list)) else (new,)

    def checked(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """As a call of the cell, but whatever its step does wrong is told, and at which line.

        Raises:
            InputError: the step failed, changed what it was given, or returned something else than
                the next states.
        """
        if torch.compiler.is_compiling():
            return self(x, *states)
        given = dict(zip(("x", *self.state), (x, *states), strict=True))
        versions = [0 if t.is_inference() else t._version for t in given.values()]
        attributes = dict(vars(self))
        try:
            new = self(x, *states)
        except (ElmanError, MemoryError):
            raise
        except Exception as error:
            if "memory" in str(error):
                raise
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in given.items())
            raise InputError(
                f"{type(self).__name__}.step failed{at(step_line(self, error))} for {shapes} "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): "
                "mend that line."
            ) from error
        for (name, tensor), version in zip(given.items(), versions, strict=True):
            if not tensor.is_inference() and tensor._version != version:
                raise InputError(
                    f"{type(self).__name__}.step{at(changed_at(self, x, states))} changes "
                    f"{name} in place; expected a new tensor, such as {name} = {name} + 1 in place "
                    f"of {name} += 1."
                )
        self.check_attributes(attributes, x, states)
        self.check_step(x, states, new)
        return new

    # What :mod:`elman.cells.transforms` changes: a cell may read noise beside its input.

    @property
    def noise_size(self) -> int:
        """How many columns of noise a step reads after its input."""
        return 0

    def noise(self, x: Tensor) -> Tensor:
        """The noise for sequences x (T, B, …): (T, B, noise_size)."""
        return x.new_empty(*x.shape[:2], 0)

    def at_rest(self) -> Self:
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
        return type(self)(input_size, hidden_size, *args[2:], **options)

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

    def check_weights(self) -> None:
        """Raise what is wrong with the cell's weights: each must be one that its class declares."""
        label = type(self).__name__
        declare = "declare a cell's weights as Affine, Linear or Diagonal"
        names = [name for name, _ in self.named_parameters()]
        constants = {constant.parameter for constant in type(self).constants()}
        for name, _ in self.named_buffers():
            if name not in constants:
                raise InputError(
                    f"{label} holds the buffer {name!r}, which nothing declares: "
                    "declare what a step reads but nobody learns as a Constant."
                )
        if not names:
            raise InputError(f"{label} has no weight: {declare}.")
        declared = {name for each in type(self).maps() for name in each.shapes(self)}
        for name in names:
            holder, inside, _ = name.partition(".")
            if name not in declared:
                what = "module" if inside else "parameter"
                raise InputError(
                    f"{label} holds the {what} {holder!r}, which nothing declares: {declare}."
                )

    def check_attributes(
        self, before: Mapping[str, Any], x: Tensor, states: Sequence[Tensor]
    ) -> None:
        """Raise where a step has set an attribute of the cell, which were ``before``."""
        for name, value in vars(self).items():
            if name not in INTERNAL and (name not in before or before[name] is not value):
                raise InputError(
                    f"{type(self).__name__}.step{at(attribute_set_at(self, name, x, states))} sets "
                    f"self.{name}, which no other step would see; expected a step that changes "
                    "nothing: what is kept from step to step is a state."
                )

    def check_step(self, x: Tensor, states: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Raise what is wrong with ``new``, the states that a step made of ``x`` and ``states``."""
        wrong = self._wrong(states, new)
        if wrong:
            received, expected = wrong
            line = at(returned_at(self, x, states))
            raise InputError(
                f"{type(self).__name__}.step returned {received}{line}; expected {expected}."
            )

    def _wrong(self, states: Sequence[Tensor], new: Sequence[Tensor]) -> tuple[str, str] | None:
        """What a step returned in place of what, if it did."""
        names = ", ".join(self.state)
        if len(new) == 1 and not isinstance(new[0], Tensor):
            return type(new[0]).__name__, f"a tensor for each state ({names})"
        if len(new) != len(self.state):
            return f"{len(new)} values", f"{len(self.state)}, one for each state ({names})"
        for label, before, after in zip(self.state, states, new, strict=True):
            if not isinstance(after, Tensor):
                return f"{label} as {type(after).__name__}", "a tensor"
            if after.shape != before.shape:
                return (
                    f"{label} of shape {tuple(after.shape)}",
                    f"{tuple(before.shape)}, the shape it received",
                )
        return None

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"{self.input_size}, {self.hidden_size}"

    def _check_contract(self) -> None:
        cls, maps = type(self), type(self).maps()
        label = cls.__name__
        if isinstance(self.state, str):
            raise InputError(
                f"{label}.state must be a tuple of names, such as ('h',), received {self.state!r}."
            )
        if not self.state or len(set(self.state)) != len(self.state):
            raise InputError(f"{label}.state must name each state once, received {self.state!r}.")
        if unknown := [name for name in self.bookkeeping if name not in self.state[1:]]:
            raise InputError(
                f"{label}.bookkeeping must be a tuple of names of states beside the output, "
                f"received {unknown[0]!r}: the states are {', '.join(self.state)}."
            )
        try:
            # By the class: where a property fails, nn.Module tells of the property instead.
            cls.state_sizes.__get__(self)
        except AttributeError as error:
            raise InputError(
                f"{label}.state_sizes could not be read ({error}): set what it reads before "
                "super().__init__, which asks for the sizes."
            ) from error
        if len(self.state_sizes) != len(self.state):
            raise InputError(
                f"{label}.state_sizes has {len(self.state_sizes)} values; expected "
                f"{len(self.state)}, one for each of {', '.join(self.state)}."
            )
        if cls.step is Cell.step:
            raise InputError(
                f"{label} has no step: write def step(self, x, {', '.join(self.state)}), which "
                "returns the next of each state."
            )
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
