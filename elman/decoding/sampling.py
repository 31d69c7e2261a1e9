"""Sampling: one token after the other, each drawn from what a model expects next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.decoding.steps import Allowed, Hypothesis, Rows, Rules, Step, check_told
from elman.errors import InputError
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
    _check_choice(temperature, top_k, top_p)
    randomness = _randomness(seed)

    def tokens(state: Any) -> Iterator[int]:
        with torch.inference_mode():
            every, state = model(prompt, state)
        logits, token = every[-1], prompt.new_empty(())
        check_told(logits)
        noise, allowed = (
            gumbel(len(logits), randomness),
            torch.zeros(len(logits), dtype=torch.float64),
        )
        allowed[list(barred)] = -torch.inf
        for k in range(length):
            if k > 0:
                with torch.inference_mode():
                    logits, state = model.step(token, state)
            chosen = choose(allowed + logits.cpu(), next(noise), temperature, top_k, top_p)
            yield int(chosen)
            token.copy_(chosen)

    return tokens(state)


@torch.inference_mode()
def draw(
    step: Step | Sequence[Step],
    state: Any,
    start: Tensor,
    end: int,
    *,
    max_length: int | Sequence[int] | Tensor,
    min_length: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seeds: Sequence[int] | None = None,
    no_repeat: int = 0,
    allowed: Tensor | Allowed | None = None,
    record: Callable[[Any], Tensor] | None = None,
    batch_dim: int = -2,
) -> list[Hypothesis]:
    """A sequence for each sentence of a batch, each token drawn from what a model expects.

    Args:
        step, state, start, end, max_length, min_length: as in :func:`elman.decoding.beam`.
        temperature, top_k, top_p: as in :func:`sample`.
        seeds: one for each sentence (B), which makes its draws the same whatever stands beside it.
        no_repeat, allowed, record, batch_dim: as in :func:`elman.decoding.beam`.

    Returns:
        A hypothesis for each sentence, whose score is its log-probability; −∞ where ``allowed``
        left no token to draw.

    Raises:
        InputError: a setting is out of bounds.
        ElmanError: the model expects NaN.
    """
    _check_choice(temperature, top_k, top_p)
    if seeds is not None and len(seeds) != len(start):
        raise InputError(f"seeds must be {len(start)}, one a sentence, received {len(seeds)}.")
    sources = [_randomness(seed) for seed in ([None] * len(start) if seeds is None else seeds)]
    rules = Rules(end, max_length, min_length, no_repeat, allowed)
    rows = Rows(step, state, start, 1, rules, batch_dim, record)
    found: dict[int, Hypothesis] = {}
    total = torch.zeros(len(start), dtype=torch.float64)
    noise: list[Iterator[Tensor]] = []
    while len(found) < len(start):
        expected = rows.expected().double().cpu()
        noise = noise or [gumbel(expected.shape[1], source) for source in sources]
        sentences = rows.sentences.tolist()
        drawn = torch.stack([next(noise[k]) for k in sentences])
        token = choose(expected, drawn, temperature, top_k, top_p)
        total += expected.gather(1, token.unsqueeze(1)).squeeze(1)
        ended = (token == end) | total.isneginf()
        for row in ended.nonzero().flatten().tolist():
            found[sentences[row]] = rows.hypothesis(row, float(total[row]), float(total[row]))
        on = (~ended).nonzero().flatten()
        total = total[on]
        rows.go_on(on.to(start.device), token[on].to(start.device))
    return [found[k] for k in range(len(start))]


def choose(
    logits: Tensor,
    noise: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Tokens (…) drawn from their logits (…, V) at a temperature, among the top k and the top p.

    The token is argmax_v (s_v + T g_v) with ``noise`` g_v ~ Gumbel(0, 1), which has the
    probability softmax(s / T)_v (Gumbel, 1954); with T = 0 it is the likeliest.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(descending=True)
        shares = ((ordered - ordered[..., :1]) / temperature).softmax(-1)
        # A token stays as long as those before it do not yet add up to p: one always does.
        beyond = shares.cumsum(-1) - shares >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logits.add(noise, alpha=temperature).argmax(-1)


def gumbel(size: int, source: torch.Generator) -> Iterator[Tensor]:
    """Gumbel(0, 1) noise (size) for one token after the other, drawn for many at a time."""
    while True:
        many = torch.empty(max(1, 4096 // size), size, dtype=torch.float64)
        yield from many.exponential_(generator=source).log_().neg_()


def _check_choice(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature <= 1e6:
        raise InputError(f"temperature must lie between 0 and 1,000,000, received {temperature}.")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, received {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], received {top_p}.")


def _randomness(seed: int | None) -> torch.Generator:
    if seed is not None:
        return generator(seed)
    source = torch.Generator()
    source.seed()
    return source


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
