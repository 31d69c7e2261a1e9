"""What a recurrent network is told when it is made or run, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from elman.errors import InputError
from elman.layers.links import LINKS


def check_arguments(
    rates: Mapping[str, float], hidden_sizes: Sequence[int] | None, skip: Any, states: Any
) -> None:
    """Refuse what no network can be made with; ``rates`` are probabilities by name."""
    for name, rate in rates.items():
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate <= 1:
            raise InputError(f"{name} must be a number in [0, 1], received {rate!r}.")
    if hidden_sizes is not None and not (isinstance(hidden_sizes, Sequence) and hidden_sizes):
        received = "none" if isinstance(hidden_sizes, Sequence) else repr(hidden_sizes)
        raise InputError(
            f"hidden_sizes must list the width of at least one layer, received {received}."
        )
    one_of("skip", skip, LINKS)
    one_of("return_states", states, ("last", "all"))


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """``value``, which must be one of those that are allowed."""
    if value not in allowed:
        raise InputError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, received {value!r}."
        )
    return value
