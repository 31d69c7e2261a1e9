"""Dynamic evaluation: a language model goes on learning from the text that it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from elman.data.streams import Evaluation, Tokens, Window
from elman.learning import detach
from elman.training.gradients import moved
from elman.training.measures import Loss, Sums, add, sums_of
from elman.training.settings import Settings, option

if TYPE_CHECKING:
    from elman.tasks.language_model.task import LanguageModeling

_DYNAMIC = ("dynamic", True)
_RATES = {"rms": 0.001, "sgd": 0.1}
_DECAYS = {"rms": 0.01, "sgd": 0.002}

# Segments of the training's text from which the gradient's size is known well enough.
_SEGMENTS = 500


def _by_update(values: dict[str, float]) -> str:
    return " or ".join(f"{value:g} for {update}" for update, value in values.items())


@dataclass
class EvaluationSettings(Settings):
    """How a language model is measured."""

    dynamic: bool = option(
        False, "Let it go on learning from the text that is measured; the run stays as it is."
    )
    dynamic_update: str = option("rms", "How.", choices=("rms", "sgd"), only=_DYNAMIC)
    dynamic_rate: float | None = option(
        None, "Step size.", above=0, unset=_by_update(_RATES), only=_DYNAMIC
    )
    dynamic_decay: float | None = option(
        None, "Share of the way back to the trained weights at each update.", least=0, below=1,
        unset=_by_update(_DECAYS), only=_DYNAMIC,
    )  # fmt: skip
    dynamic_steps: int = option(
        20, "Tokens between two updates.", least=1, below=2**31, only=_DYNAMIC
    )


def evaluate_dynamically(
    task: LanguageModeling, texts: Sequence[tuple[str, Tokens]], settings: EvaluationSettings
) -> Sums:
    """The sums of −log P over texts, by a model that learns from each segment once it is measured.

    Dynamic evaluation (Krause et al., 2018): each text is read in one row, segment by segment. Of
    the mean loss of a segment, with the state carried on as in truncated BPTT, the gradient g
    changes the weights for the segments to come:

    - ``sgd``: θ ← θ − η g + λ (θ₀ − θ);
    - ``rms``: θ ← θ − η g / (r + ε) + min(1, λ r / mean r) ⊙ (θ₀ − θ), with r the root of the mean
      square of each weight's gradient over segments of the texts that the model was trained on,
      as many of each from its beginning, and ε the mean of r.

    θ₀ are the trained weights, with which every text begins, and which the model has again in the
    end. No token is learned from before it was predicted.

    Args:
        task: with the trained model.
        texts: tokens by name.
        settings: η, λ and the length of a segment.
    """
    sums: Sums = {}
    task.model.eval()
    with _Adapting(task, settings) as adapting:
        for name, tokens in texts:
            adapting.restart()
            carry: Any = None
            for window in Evaluation(tokens, rows=1, steps=settings.dynamic_steps):
                loss = adapting.gradient(window, carry)
                adapting.update()
                carry, found = detach(loss.carry), sums_of(loss)
                add(sums, found)
                add(sums, {f"{key} of {name}": value for key, value in found.items()})
    return sums


class _Adapting:
    """A model's weights while they leave the trained ones; at the end they are those again."""

    def __init__(self, task: LanguageModeling, settings: EvaluationSettings):
        self._task, self._steps = task, settings.dynamic_steps
        update = settings.dynamic_update
        self._weights = [w for w in task.model.parameters() if w.requires_grad]
        self._trained = [w.detach().clone() for w in self._weights]
        rate, decay = settings.dynamic_rate, settings.dynamic_decay
        self._rate = _RATES[update] if rate is None else rate
        self._decay = _DECAYS[update] if decay is None else decay
        # By weight: what its gradient is multiplied by, and its share of the way back.
        self._pace: list[tuple[Any, Any]] = [(self._rate, self._decay)] * len(self._weights)
        if update == "rms":
            self._pace = self._paced(self._root_mean_squares())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Take the trained weights."""
        for weight, trained in zip(self._weights, self._trained, strict=True):
            weight.copy_(trained)
            weight.grad = None

    @torch.enable_grad()
    def gradient(self, window: Window, carry: Any) -> Loss:
        """The loss of a window, its gradient in every ``.grad``."""
        for weight in self._weights:
            weight.grad = None
        loss = self._task.loss(self._task.model, moved(window, self._weights[0].device), carry)
        loss.value.backward()
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """Change the weights by their gradients, and a little of the way back."""
        for weight, trained, (rate, decay) in zip(
            self._weights, self._trained, self._pace, strict=True
        ):
            weight.lerp_(trained, decay)
            if weight.grad is not None:
                weight.sub_(rate * weight.grad)

    def _paced(self, roots: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        mean = sum(float(r.sum()) for r in roots) / sum(r.numel() for r in roots)
        return [(self._rate / (r + mean), (self._decay * r / mean).clamp(max=1.0)) for r in roots]

    def _root_mean_squares(self) -> list[Tensor]:
        """The root of the mean square of each weight's gradient over segments of the training."""
        squares = [torch.zeros_like(w) for w in self._weights]
        texts = self._task.texts.parts("train")
        count, each = 0, -(-_SEGMENTS // len(texts))
        for _, tokens in texts:
            carry = None
            for window in islice(Evaluation(tokens, rows=1, steps=self._steps), each):
                carry, count = detach(self.gradient(window, carry).carry), count + 1
                for square, weight in zip(squares, self._weights, strict=True):
                    if weight.grad is not None:
                        square.addcmul_(weight.grad, weight.grad)
        return [square.div_(max(1, count)).sqrt_() for square in squares]
