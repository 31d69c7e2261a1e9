"""Settings of a job: declared once, used by the command line, recipe files and run folders."""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from elman.errors import ElmanError, InputError, brief, one_line
from elman.learning import OPTIMIZERS, RULES, SCHEDULES, check_optimizer
from elman.training.averaging import AVERAGES

# What a setting may be at most where float32 must hold it, and ten times more.
_FLOAT = 1e31


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    unset: str = "none",
    only: tuple[Any, ...] = (),
    fixed: bool = False,
) -> Any:
    """Declare a setting: its default, what it is for, and the values that it may have.

    Args:
        default: a value, or a list, which is copied for every job.
        help: one line for ``--help``.
        choices: the names that are allowed.
        least, above, below: bounds: value ≥ least, value > above, value < below.
        unset: what ``--help`` says of a default that is None or empty.
        only: another setting and the values of it with which this one has an effect; with others
            it must be left at its default.
        fixed: it cannot change when a run is resumed.
    """
    rules = {
        "help": help, "choices": choices, "least": least, "above": above, "below": below,
        "unset": unset, "only": only, "fixed": fixed,
    }  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rules)
    return field(default=default, metadata=rules)


@dataclass
class Settings:
    """The base of every group of settings: checked when made, to and from plain JSON.

    Attributes:
        panel: under which heading ``--help`` shows the settings that this group declares.
    """

    panel: ClassVar[str] = "Options"

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for declared in fields(self):
            value = getattr(self, declared.name)
            kind = kinds[declared.name]
            setattr(self, declared.name, _typed(declared.name, value, kind))
            _check(declared, getattr(self, declared.name))
        for declared in fields(self):
            self._check_effect(declared)

    def _check_effect(self, declared: Field[Any]) -> None:
        """Refuse what another setting leaves without effect."""
        name, *values = declared.metadata.get("only") or (None,)
        if name is None or getattr(self, declared.name) == default_of(declared):
            return
        chosen = getattr(self, name)
        if chosen not in values:
            wanted, received = (
                " or ".join({True: "on", False: "off", None: "none"}.get(v, str(v)) for v in some)
                for some in (values, [chosen])
            )
            raise InputError(
                f"`{declared.name}` has an effect only where `{name}` is {wanted}, received "
                f"{received}: choose that, or leave it out."
            )

    @classmethod
    def of(cls, *groups: Mapping[str, Any]) -> Self:
        """Settings from mappings by name, the later ones overriding the earlier.

        Raises:
            InputError: a name is unknown, or a value has the wrong type or lies out of bounds.
        """
        merged: dict[str, Any] = {}
        known = [f.name for f in fields(cls)]
        for group in groups:
            for name, value in group.items():
                plain = name.replace("-", "_")
                if plain not in known:
                    near = difflib.get_close_matches(plain, known, n=1)
                    hint = (
                        f": did you mean {near[0]!r}?"
                        if near
                        else f"; known: {', '.join(known) or 'none'}."
                    )
                    raise InputError(f"unknown setting {brief(name)}{hint}")
                merged[plain] = value
        return cls(**merged)

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe, a TOML file; ``data`` lists its sources.

    Raises:
        ElmanError: the file is missing or is not TOML.
    """
    if path.is_char_device():  # which may never end
        raise ElmanError(f"{str(path)!r} is no recipe: name a TOML file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ElmanError(f"no recipe {str(path)!r}: name an existing TOML file.") from None
    except OSError as error:
        raise ElmanError(f"the recipe {str(path)!r} cannot be read ({error.strerror}).") from error
    # Also for what tomllib lets through: integers of too many digits, and nesting too deep.
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise ElmanError(f"the recipe {str(path)!r} is not TOML ({why}): mend it.") from None


@dataclass
class DataSettings(Settings):
    """What every job's data can be told: its parts may be files of their own."""

    panel: ClassVar[str] = "Data"
    validation: float = option(
        0.1, "Share to hold out: the end of each text; of records, every so many.", least=0, below=1
    )
    validation_data: list[str] = option(
        [], "Data to hold out in place of that share, such as valid.txt; again for more."
    )
    test_data: list[str] = option(
        [], "Data to judge the trained model by at the end, such as test.txt; again for more."
    )
    batch: int = option(32, "Sequences side by side, in each process.", least=1, below=2**31)


@dataclass
class OptimizationSettings(Settings):
    """How a model learns."""

    panel: ClassVar[str] = "Learning"
    optimizer: str = option("adamw", "How to update.", choices=tuple(OPTIMIZERS), fixed=True)
    learning_rate: float = option(2e-3, "The optimiser's step size.", above=0, below=_FLOAT)
    momentum: float = option(0.0, "Momentum of sgd and rmsprop.", least=0, below=1)
    weight_decay: float = option(
        0.0, "L2 decay of the weights, not of biases.", least=0, below=_FLOAT
    )
    l1: float = option(0.0, "L1 decay of the weights, not of biases.", least=0, below=_FLOAT)
    clip_norm: float = option(1.0, "Clip the gradient's norm to this; 0: never.", least=0)
    clip_value: float | None = option(
        None, "Clip each entry of the gradient to this.", above=0, below=_FLOAT
    )
    schedule: str = option("constant", "How the rate changes.", choices=SCHEDULES)
    warmup: int = option(0, "Updates over which the rate rises to the full one.", least=0)
    division: float = option(
        4.0, "What the plateau schedule divides the rate by.", above=1, only=("schedule", "plateau")
    )
    plateau_patience: int = option(
        0, "Epochs without progress before it divides.", least=0, only=("schedule", "plateau")
    )
    accumulate: int = option(
        1, "Batches of an update, whose gradients add up.", least=1, fixed=True
    )
    learning: str | None = option(
        None, "A learning rule of elman's, for models that read a stream.",
        choices=tuple(RULES), unset="backpropagation through each batch", fixed=True)  # fmt: skip
    reach: int | None = option(
        None,
        "How many steps tbptt goes back.",
        least=1,
        unset="to the batch's start",
        fixed=True,
        only=("learning", "tbptt"),
    )
    average: str = option("none", "Average the weights over updates.", choices=AVERAGES, fixed=True)
    average_decay: float = option(
        0.999,
        "What the exponential average keeps of itself.",
        least=0,
        below=1,
        only=("average", "exponential"),
    )
    average_patience: int = option(
        5,
        "Epochs without progress before the stochastic average begins.",
        least=0,
        only=("average", "stochastic"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.optimizer, self.weight_decay, self.momentum)


@dataclass
class RunSettings(Settings):
    """How long, where, and with what to be seen."""

    panel: ClassVar[str] = "Run"
    epochs: int = option(10, "How often to go through the data, in all.", least=1, below=10**12)
    seconds: float | None = option(None, "Stop after this many seconds of training.", above=0)
    patience: int | None = option(None, "Stop after so many epochs without progress.", least=1)
    seed: int = option(0, "Fixes every draw.", least=0, below=2**63, fixed=True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps …")
    devices: int = option(
        1, "Processes on this machine, each with a device and a share.", least=1, below=1025
    )
    nodes: int = option(1, "Machines that train together.", least=1, below=10**6)
    precision: str = option(
        "32-true", "Arithmetic.", choices=("32-true", "64-true", "bf16-mixed"), fixed=True
    )
    graph: str = option(
        "auto", "Record an update as a CUDA graph, where it can be, and replay it.",
        choices=("auto", "off"),
    )  # fmt: skip
    save_every: float = option(30.0, "Seconds between two checkpoints.", least=0)
    tensorboard: bool = option(False, "Write the measures for TensorBoard, too.")
    watch_gradients: bool = option(False, "Log the gradient by lag, gates and states, and plot.")
    watch_every: int = option(
        100, "Updates between two looks at the gradient.", least=1, only=("watch_gradients", True)
    )


@dataclass
class TrainingSettings(RunSettings, OptimizationSettings):
    """What every training can be told, whatever the job."""

    panel: ClassVar[str] = "Job"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_learning()

    def _check_learning(self) -> None:
        """Refuse what a learning rule, or that there is none, would leave without effect."""
        if self.learning is not None and self.precision == "bf16-mixed":
            raise InputError(
                f"`precision` bf16-mixed is for backpropagation through each batch, received "
                f"`learning` {self.learning}: leave out the one or the other."
            )
        if self.learning is not None and self.watch_gradients:
            raise InputError(
                "`watch_gradients` looks at backpropagation through each batch, received "
                f"`learning` {self.learning}: leave out the one or the other."
            )


def _typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, where nothing is lost by it: an int for a float, say."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        kind = next(a for a in args if a is not type(None))
        origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        if isinstance(value, (list, tuple)):
            return [_typed(name, item, args[0]) for item in value]
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # of more digits than any float has
            return math.inf if value > 0 else -math.inf
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = f"a list of {args[0].__name__}" if origin is list else kind.__name__
    raise InputError(f"{name} must be {_article(expected)}, received {brief(value)}.")


def _article(noun: str) -> str:
    return {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false"}.get(
        noun, noun
    )


def _check(declared: Field[Any], value: Any) -> None:
    rules, name = declared.metadata, declared.name
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        if rules.get("choices") and item not in rules["choices"]:
            raise InputError(
                f"{name} must be one of {', '.join(rules['choices'])}, received {brief(item)}."
            )
        bounds: list[tuple[str, str, Callable[[Any, Any], bool]]] = [
            ("least", "at least", lambda a, b: a >= b),
            ("above", "more than", lambda a, b: a > b),
            ("below", "less than", lambda a, b: a < b),
        ]
        for key, words, holds in bounds:
            if rules.get(key) is not None and not holds(item, rules[key]):
                raise InputError(f"{name} must be {words} {rules[key]}, received {brief(item)}.")
        # Whatever its bounds: torch counts in 64 bits, and JSON knows no infinity.
        if isinstance(item, int) and abs(item) >= 2**63:
            raise InputError(f"{name} must be less than 2**63, received {brief(item)}.")
        if isinstance(item, float) and not math.isfinite(item):
            raise InputError(f"{name} must be a finite number, received {item}.")


def default_of(declared: Field[Any]) -> Any:
    """The default of a declared setting."""
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default
