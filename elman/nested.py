"""Nested states: tensors in tuples, lists, named tuples and dictionaries, as deep as one likes.

What walks a state walks it here, so that a detach, a checkpoint or a beam is the same for any cell
and any stack of them::

    state = nested.map(Tensor.detach, state)
    state = nested.map(lambda s: s.index_select(-2, parents), state)

Whatever else stands in a state, such as None or a number, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from elman.errors import InputError

# Not by torch.utils._pytree, which is PyTorch's own and private.


def map(function: Callable[..., Any], state: Any, *others: Any) -> Any:
    """A state, nested as ``state``, with ``function`` of every tensor.

    Args:
        function: takes a tensor, and what each of ``others`` has in its place.
        state: any nesting of tensors.
        others: states nested alike, a list or a tuple in each other's place.

    Raises:
        InputError: one of ``others`` is nested differently.
    """
    if others:
        _check_alike(state, others)
    if isinstance(state, Tensor):
        return function(state, *others)
    if isinstance(state, (tuple, list)):
        parts = [map(function, *each) for each in zip(state, *others, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if isinstance(state, dict):
        return {key: map(function, *(each[key] for each in (state, *others))) for key in state}
    return state


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [leaf for _, leaf in places(state) if isinstance(leaf, Tensor)]


def places(state: Any, name: str = "state") -> Iterator[tuple[str, Any]]:
    """All that a state is made of but None, each with its place as ``state[1]['h']`` names it."""
    if isinstance(state, (tuple, list)):
        for k, part in enumerate(state):
            yield from places(part, f"{name}[{k}]")
    elif isinstance(state, dict):
        for key, part in state.items():
            yield from places(part, f"{name}[{key!r}]")
    elif state is not None:
        yield name, state


def _check_alike(state: Any, others: tuple[Any, ...]) -> None:
    for other in others:
        if isinstance(state, (tuple, list)):
            alike = isinstance(other, (tuple, list)) and len(other) == len(state)
        elif isinstance(state, dict):
            alike = isinstance(other, dict) and other.keys() == state.keys()
        else:
            alike = isinstance(other, Tensor) == isinstance(state, Tensor)
        if not alike:
            raise InputError(
                f"two states must be nested alike, received {_shown(state)} and {_shown(other)} in "
                "the same place: take both from one network."
            )


def _shown(state: Any) -> str:
    if isinstance(state, (tuple, list, dict)):
        return f"a {type(state).__name__} of {len(state)}"
    return f"a {type(state).__name__}"
