"""PyTorch's optimisers by name."""

from __future__ import annotations

from typing import Any

from torch import nn, optim

from elman.errors import InputError
from elman.learning.decay import decaying
from elman.learning.fused import NAdam

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "asgd": optim.ASGD,
    "rprop": optim.Rprop,
}
_WITH_MOMENTUM = ("sgd", "rmsprop")
_WITHOUT_DECAY = ("rprop",)


def check_optimizer(name: str, weight_decay: float, momentum: float) -> None:
    """Refuse an optimiser that there is not, and options that it would silently ignore.

    Raises:
        InputError: which of them it is.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, received {name!r}.")
    if momentum and name not in _WITH_MOMENTUM:
        raise InputError(
            f"momentum is for {' and '.join(_WITH_MOMENTUM)}; {name} has none: leave it out."
        )
    if weight_decay and name in _WITHOUT_DECAY:
        raise InputError(f"{name} has no weight_decay: leave it out.")


def make_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> optim.Optimizer:
    """The optimiser called ``name`` for the parameters of ``model``.

    Args:
        name: one of :data:`OPTIMIZERS`.
        model: whose parameters it changes.
        learning_rate: its step size.
        weight_decay: L2 decay of the weights as the optimiser defines it: added to the gradient
            (SGD, Adam, …) or taken from the weight (AdamW). Which those are, and that biases are
            not, :func:`elman.learning.decaying` says.
        momentum: for ``sgd`` and ``rmsprop``; the others have none.

    Raises:
        InputError: as :func:`check_optimizer`.
    """
    check_optimizer(name, weight_decay, momentum)
    weights = decaying(model)
    known = {id(p) for p in weights}
    others = [p for p in model.parameters() if id(p) not in known]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others}]
    if name not in _WITHOUT_DECAY:
        groups[0]["weight_decay"], groups[1]["weight_decay"] = weight_decay, 0.0
    options: dict[str, Any] = {"lr": learning_rate}
    if name == "asgd":
        options["lambd"] = 0.0  # a decay of its own, of biases too
    if name in _WITH_MOMENTUM:
        options["momentum"] = momentum
    return OPTIMIZERS[name]([group for group in groups if group["params"]], **options)
