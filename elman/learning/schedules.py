"""How the learning rate changes while training, and when training has gone on long enough."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from elman.errors import InputError

SCHEDULES = ("constant", "plateau", "cosine", "linear")


class Schedule:
    """The learning rate at every update.

    With base rate η, warm-up w and total S updates, update s = 0, 1, … runs at η · m(s), where
    m rises from 1/w to 1 over the first w updates and then is

    - ``constant``: 1;
    - ``plateau``: 1 / division^k after k epochs that brought no better loss than the best before;
    - ``cosine``: (1 + cos(π (s − w)/(S − w))) / 2;
    - ``linear``: 1 − (s − w)/(S − w).

    Args:
        optimizer: whose rate is set.
        name: one of the above.
        rate: η.
        warmup: w, in updates.
        total: S, in updates (for cosine and linear).
        division: for plateau, what the rate is divided by.
        patience: for plateau, how many epochs without a better loss are borne before a division.

    Raises:
        InputError: there is no schedule of that name.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        rate: float,
        warmup: int = 0,
        total: int = 1,
        division: float = 4.0,
        patience: int = 0,
    ):
        if name not in SCHEDULES:
            raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, received {name!r}.")
        self.optimizer, self.name, self.base = optimizer, name, rate
        self.warmup, self.total = warmup, total
        self.division, self.patience = division, patience
        self.divisions, self.waited, self.best = 0, 0, math.inf

    def rate(self, update: int) -> float:
        """The learning rate of that update, counted from 0."""
        if update < self.warmup:
            return self.base * (update + 1) / self.warmup
        done = min(1.0, (update - self.warmup) / max(1, self.total - self.warmup))
        if self.name == "cosine":
            return self.base * (1 + math.cos(math.pi * done)) / 2
        if self.name == "linear":
            return self.base * (1 - done)
        try:
            return self.base / self.division**self.divisions
        except OverflowError:  # after hundreds of divisions
            return 0.0

    def set(self, update: int) -> float:
        """Give the optimiser the rate of that update, and return it."""
        rate = self.rate(update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def observe(self, loss: float) -> None:
        """Tell the loss of an epoch, on held-out data where there is some."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.name == "plateau" and self.waited > self.patience:
            self.divisions, self.waited = self.divisions + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on later."""
        best = None if math.isinf(self.best) else self.best
        return {"divisions": self.divisions, "waited": self.waited, "best": best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a kept state."""
        self.divisions, self.waited = state["divisions"], state["waited"]
        self.best = math.inf if state["best"] is None else state["best"]


class EarlyStopping:
    """Stop after ``patience`` epochs in a row without a better loss; None never stops."""

    def __init__(self, patience: int | None):
        self.patience = patience
        self.best, self.waited = math.inf, 0

    def observe(self, loss: float) -> bool:
        """Tell the loss of an epoch; true where it is the best so far."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on later."""
        return {"best": None if math.isinf(self.best) else self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a kept state."""
        self.waited = state["waited"]
        self.best = math.inf if state["best"] is None else state["best"]
