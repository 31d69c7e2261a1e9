"""Sampling: one token after the other, each drawn from what a model expects next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.errors import ElmanError, InputError
from elman.seeds import generator


class Predictor(Protocol):
    """What decoding asks of a model: logits of the next token, over a prompt and step by step."""

    def __call__(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T) and a state to logits (T, V) and the state after them."""

    def step(self, token: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token () and a state to logits (V) and the state after it."""


def sample(
    model: Predictor,
    prompt: Tensor,
    length: int,
    *,
    state: Any = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    barred: Sequence[int] = (),
) -> Iterator[int]:
    """The tokens that follow a prompt, each drawn when it is asked for.

    Args:
        model: in evaluation mode.
        prompt: the tokens that it reads first (T), T ≥ 1, on its device.
        length: how many are drawn.
        state: what the model goes on from; its own start where it is None.
        temperature: what the logits are divided by; 0 takes the likeliest token always.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest tokens whose probabilities add up to p (Holtzman et al., 2020).
        seed: makes the draws the same each time.
        barred: tokens that are never drawn.

    Raises:
        InputError: a setting is out of bounds.
        ElmanError: the model expects NaN, when the first token is asked for.
    """
    if length < 1:
        raise InputError(f"length must be at least 1, received {length}.")
    if not 0 <= temperature <= 1e6:
        raise InputError(f"temperature must lie between 0 and 1,000,000, received {temperature}.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, received {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], received {top_p}.")
    draw = torch.Generator() if seed is None else generator(seed)
    if seed is None:
        draw.seed()

    def tokens(state: Any) -> Iterator[int]:
        with torch.inference_mode():
            every, state = model(prompt, state)
        logits, token = every[-1], prompt.new_empty(())
        if logits.isnan().any():
            raise ElmanError(
                "the model expects NaN of every token: its training diverged; train anew, with a "
                "smaller learning rate."
            )
        noise, allowed = gumbel(len(logits), draw), torch.zeros(len(logits), dtype=torch.float64)
        allowed[list(barred)] = -torch.inf
        for k in range(length):
            if k > 0:
                with torch.inference_mode():
                    logits, state = model.step(token, state)
            chosen = choose(allowed + logits.cpu(), next(noise), temperature, top_k, top_p)
            yield chosen
            token.fill_(chosen)

    return tokens(state)


def choose(
    logits: Tensor,
    noise: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """A token drawn from its logits (V) at a temperature, among the top k and the top p.

    The token is argmax_v (s_v + T g_v) with ``noise`` g_v ~ Gumbel(0, 1), which has the
    probability softmax(s / T)_v (Gumbel, 1954); with T = 0 it is the likeliest.
    """
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(descending=True)
        shares = ((ordered - ordered[0]) / temperature).softmax(-1)
        # A token stays as long as those before it do not yet add up to p: one always does.
        beyond = shares.cumsum(-1) - shares >= top_p
        logits = logits.index_fill(0, order[beyond], -torch.inf)
    return int(logits.add(noise, alpha=temperature).argmax())


def gumbel(size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Gumbel(0, 1) noise (size) for one token after the other, drawn for many at a time."""
    while True:
        many = torch.empty(max(1, 4096 // size), size, dtype=torch.float64)
        yield from many.exponential_(generator=draw).log_().neg_()


def until(pieces: Iterator[str], stop: str) -> Iterator[str]:
    """Pieces of a text up to ``stop``; what may be its beginning is held back until that is clear.

    Raises:
        InputError: ``stop`` is empty.
    """
    if not stop:
        raise InputError("stop must be a text, received an empty one: leave it out.")

    def before() -> Iterator[str]:
        held = ""
        for piece in pieces:
            held += piece
            if stop in held:
                yield held[: held.index(stop)]
                return
            ends = range(min(len(stop) - 1, len(held)), 0, -1)
            keep = next((n for n in ends if stop.startswith(held[-n:])), 0)
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
        yield held

    return before()
