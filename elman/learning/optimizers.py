"""PyTorch's optimisers by name."""

from __future__ import annotations

from typing import Any

from torch import nn, optim

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
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
        weight_decay: L2 decay of the matrices as the optimiser defines it: added to the gradient
            (SGD, Adam, …) or taken from the weight (AdamW). Biases do not decay.
        momentum: for ``sgd`` and ``rmsprop``; the others have none.
    """
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors}]
    if name not in _WITHOUT_DECAY:
        groups[0]["weight_decay"], groups[1]["weight_decay"] = weight_decay, 0.0
    options: dict[str, Any] = {"lr": learning_rate}
    if name in _WITH_MOMENTUM:
        options["momentum"] = momentum
    return OPTIMIZERS[name]([group for group in groups if group["params"]], **options)
