"""A model's weights and buffers, given to a model that was made anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from elman.training import schema


def give_weights(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Give a model these weights, once each is seen to be one of its own: shape, finite numbers.

    Raises:
        Mismatch: one of them is not.
    """
    make_room(model, kept)
    wanted = model.state_dict()
    schema.record({name: schema.tensor(like, cast=True) for name, like in wanted.items()})(kept, "")
    model.load_state_dict(kept)


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that are no part of a model's weights, and may change while it learns."""
    kept = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


@torch.no_grad()
def give_buffers(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give a model what :func:`unsaved_buffers` gave of another."""
    for name, buffer in unsaved_buffers(model).items():
        if name in kept:
            buffer.copy_(kept[name])


def make_room(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Make those buffers that a model declares as None until it has run for the first time."""
    like = next(model.parameters(), torch.empty(0))
    for name, value in kept.items():
        owner, _, leaf = str(name).rpartition(".")
        try:
            buffers = model.get_submodule(owner)._buffers
        except AttributeError:  # no such module: the weights' names will tell
            continue
        if leaf in buffers and buffers[leaf] is None and isinstance(value, Tensor):
            buffers[leaf] = torch.zeros_like(value, device=like.device)
