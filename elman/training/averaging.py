"""Averages of the weights over the updates, which judge better than any one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

AVERAGES = ("none", "exponential", "stochastic")


class Average:
    """The average of a model's weights, in whose place it is measured and kept.

    With θ_s the weights after update s,

    - ``exponential``: θ̄_s = d_s θ̄_{s−1} + (1 − d_s) θ_s, d_s = min(decay, s / (s + 9)): a young
      average forgets the first weights sooner (Polyak & Juditsky, 1992);
    - ``stochastic``: the mean of all θ_s since the trigger, which comes once the measure was
      better ``patience`` epochs ago than it has been since: NT-ASGD, as AWD-LSTM is trained
      (Merity, Keskar & Socher, 2018).

    Args:
        model: whose parameters are averaged; buffers are as they are.
        kind: one of :data:`AVERAGES`; ``none`` does nothing.
        decay: d.
        patience: epochs.
    """

    def __init__(self, model: nn.Module, kind: str, decay: float, patience: int):
        self.kind, self.decay, self.patience = kind, decay, patience
        self.count = 0
        self.waited: int | None = 0 if kind == "stochastic" else None  # None: triggered
        self._weights = dict(model.named_parameters())
        self._means: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after an update in."""
        if self.kind == "none" or self.waited is not None:
            return
        self.count += 1
        if not self._means:
            self._means = {name: w.detach().clone() for name, w in self._weights.items()}
            return
        share = 1 / self.count
        if self.kind == "exponential":
            share = 1 - min(self.decay, self.count / (self.count + 9))
        for name, mean in self._means.items():
            mean.lerp_(self._weights[name], share)

    def observe(self, better: bool) -> None:
        """Tell whether an epoch brought a better measure: without any for long, it begins."""
        if self.waited is not None:
            self.waited = 0 if better else self.waited + 1
            if self.waited > self.patience:
                self.waited = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has its average weights inside, and those that it learns with again after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self._means.items():
            weight = self._weights[name]
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on later."""
        return {
            "kind": self.kind, "count": self.count, "waited": self.waited,
            "means": dict(self._means),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a kept state; from nothing, where it is of another kind of average."""
        if state["kind"] != self.kind:
            return
        self.count, self.waited = state["count"], state["waited"]
        self._means = {name: mean.to(self._weights[name]) for name, mean in state["means"].items()}
