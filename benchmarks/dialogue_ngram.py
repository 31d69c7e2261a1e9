"""Dialogue beside an n-gram model: the perplexity of replies by interpolated Kneser–Ney.

    python benchmarks/dialogue_ngram.py benchmarks/recipes/dialogue-en.toml [--order 5] [--run RUN]

The data, its parts, the tokens, the vocabulary and ``<unk>`` are those of the recipe, and so is
what is counted: every token of a reply and its end. The n-gram model learns from every turn of the
dialogues that are learned from, the first ones too. It reads a dialogue as one line, each turn with
its end, so that for a reply's first words it sees the last ones of the turn before: n − 1 tokens in
all, whoever said them. Writes benchmarks/results/<recipe>-ngram.json.

DailyDialog has many dialogues more than once, in several parts. Those of which at least half of the
longer turns are among what is learned from are known by heart: figures are told of all dialogues,
and of the others alone; with ``--run``, also those of a trained network.

Before it answers, its probabilities are compared with those of nltk on the first dialogues.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import elman
from elman.networks.conversation import collate
from elman.tasks.dialogue.task import Conversation
from elman.training.settings import read_recipe
from elman.training.storage import to_json

Discounts = Callable[[int, np.ndarray], list[float]]
"""From n and how often each n-gram is there to what those of 0, 1, 2, and 3 or more lose."""


def modified(n: int, counts: np.ndarray) -> list[float]:
    """The discounts of Chen & Goodman (1998), from how many n-grams are there 1 to 4 times."""
    there = [max(1, int((counts == k).sum())) for k in range(5)]
    y = there[1] / (there[1] + 2 * there[2])
    return [0.0, *(max(0.0, k - (k + 1) * y * there[k + 1] / there[k]) for k in (1, 2, 3))]


class KneserNey:
    """Interpolated Kneser–Ney (Kneser & Ney, 1995; Chen & Goodman, 1998).

    p(w | h) = (c(h w) − D(c(h w))) / c(h ·) + γ(h) p(w | h')    γ(h) = Σ_w D(c(h w)) / c(h ·)

    with h' without its first token. c counts occurrences in the highest order, and in the lower
    ones the different tokens that stand in front. Below the unigrams all tokens are equally likely.

    An n-gram is numbered by its last token and the number of the (n − 1)-gram before that.

    Args:
        lines: the ids of each.
        order: n.
        size: how many ids there are.
        discounts: by order.
    """

    def __init__(
        self,
        lines: Sequence[Sequence[int]],
        order: int,
        size: int,
        discounts: Discounts = modified,
    ):
        self.order, self.size = order, size
        tokens, counted = self._stream(lines)
        ends, keys = [np.zeros(len(tokens), np.int64)], [np.zeros(1, np.int64)]
        for _ in range(order):
            found, numbers = np.unique(self._keys(ends[-1], tokens), return_inverse=True)
            keys.append(found)
            ends.append(numbers)
        self._levels = []
        for n in range(1, order + 1):
            number = ends[n][counted]
            if n < order:
                number = number[np.unique(ends[n + 1][counted], return_index=True)[1]]
            counts = np.bincount(number, minlength=len(keys[n]))
            lost = np.array(discounts(n, counts))[counts.clip(max=3)]
            history = keys[n] // (size + 1)
            total = np.bincount(history, counts, len(keys[n - 1]))
            divisor = total.clip(min=1)
            gamma = np.where(total, np.bincount(history, lost, len(total)) / divisor, 1)
            self._levels.append((keys[n], (counts - lost) / divisor[history], gamma))

    def log_probabilities(self, lines: Sequence[Sequence[int]]) -> np.ndarray:
        """log P of every token of lines, one line after the other, in nats."""
        tokens, counted = self._stream(lines)
        probability = np.full(len(tokens), 1 / self.size)
        ends = np.zeros(len(tokens), np.int64)  # the number of the n-gram; −1 of one never seen
        for keys, shares, gamma in self._levels:
            before, wanted = np.roll(ends, 1), self._keys(ends, tokens)
            found = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            ends = np.where(keys[found] == wanted, found, -1)
            rest = np.where(before < 0, 1, gamma[before])
            probability = np.where(ends < 0, 0, shares[found]) + rest * probability
        return np.log(probability[counted])

    def _keys(self, ends: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """What tells n-grams apart, by those of n − 1 that end at each token."""
        return np.roll(ends, 1) * (self.size + 1) + tokens

    def _stream(self, lines: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Lines one after the other, each begun with n − 1 tokens that are not counted."""
        begin = [self.size] * (self.order - 1)
        tokens = np.array([id for line in lines for id in (*begin, *line)], np.int64)
        return tokens, tokens != self.size


def check(lines: Sequence[Sequence[int]], order: int, size: int) -> None:
    """Compare with nltk, which knows one discount and none of the unigrams.

    Raises:
        AssertionError: they differ.
    """
    from nltk.lm import KneserNeyInterpolated

    def fixed(n: int, counts: np.ndarray) -> list[float]:
        return [0.0, 0.3, 0.3, 0.3] if n > 1 else [0.0] * 4

    own = KneserNey(lines, order, size, fixed).log_probabilities(lines)
    pad = ("<s>",) * (order - 1)
    padded = [(*pad, *map(str, line)) for line in lines]
    other = KneserNeyInterpolated(order, discount=0.3)
    other.fit(
        [
            [line[k - n : k] for k in range(order, len(line) + 1) for n in range(1, order + 1)]
            for line in padded
        ],
        {token for line in padded for token in line},
    )
    expected = [
        math.log(other.score(line[k], line[k - order + 1 : k]))
        for line in padded
        for k in range(len(pad), len(line))
    ]
    np.testing.assert_allclose(own, expected, rtol=1e-9)


def is_new(turns: Sequence[Sequence[int]], learned: set[tuple[int, ...]]) -> bool:
    """Whether less than half of a dialogue's turns of more than six tokens were learned from."""
    known = [tuple(turn) in learned for turn in turns if len(turn) > 6]
    return 2 * sum(known) < len(known) or not known


def _nats(network: Conversation, turns: list[list[int]]) -> float:
    """−log P of all replies of a dialogue."""
    with torch.inference_mode():
        sums, _ = network.tally(network.model.eval(), collate([turns], network.side.end), None)
    return sums["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--run", type=Path, help="a run of the recipe, to be measured beside it")
    options = parser.parse_args()
    recipe = read_recipe(options.recipe)
    data = recipe.pop("data")
    recipe.pop("task")
    task = Conversation.prepare(data, Conversation.Settings.of(recipe))
    size = task.side.size
    lines = {
        part: [[id for turn in turns for id in turn] for turns in task.coded(part)]
        for part in ("train", "validation", "test")
    }
    check(lines["train"][:3], 3, size)
    started = time.process_time()
    model = KneserNey(lines["train"], options.order, size)
    figures: dict[str, float] = {}
    unknown_id = task.side.vocabulary.unknown_id
    learned = {tuple(turn) for turns in task.coded("train") for turn in turns}
    for part in ("validation", "test"):
        turns = [(k > 0, turn) for each in task.coded(part) for k, turn in enumerate(each)]
        is_reply = np.array([later for later, turn in turns for _ in turn])
        nats = -model.log_probabilities(lines[part])[is_reply]
        new = np.array([is_new(each, learned) for each in task.coded(part)])
        replies = [sum(map(len, each[1:])) for each in task.coded(part)]
        unknown = sum(later * turn.count(unknown_id) for later, turn in turns) / len(nats)
        figures |= {
            f"{part} perplexity": float(np.exp(nats.mean())),
            f"{part} tokens": len(nats),
            f"{part} unknown share": unknown,
            f"{part} share of dialogues that are new": float(new.mean()),
            f"{part} perplexity of those": float(np.exp(nats[new.repeat(replies)].mean())),
        }
        if options.run:
            network = elman.open_run(options.run)
            assert isinstance(network, Conversation)
            nats = np.array([_nats(network, each) for each in task.coded(part)])
            count = np.array(replies)
            figures |= {
                f"{part} perplexity of the network": float(np.exp(nats.sum() / count.sum())),
                f"{part} perplexity of the network, new ones": float(
                    np.exp(nats[new].sum() / count[new].sum())
                ),
            }
    result = {
        "recipe": options.recipe.name,
        "command": f"python benchmarks/dialogue_ngram.py benchmarks/recipes/{options.recipe.name}",
        "order": options.order,
        "vocabulary": size,
        "figures": figures,
        "processor_seconds": round(time.process_time() - started, 1),
    }
    path = Path(__file__).parent / "results" / f"{options.recipe.stem}-ngram.json"
    path.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    print(to_json(result))


if __name__ == "__main__":
    main()
