"""What counting reaches: an n-gram model of the tokens that a run learned from and is judged by.

    python benchmarks/ngram.py RUN [--orders 3,5,7] [--json]

Interpolated Kneser–Ney (Chen & Goodman, 1999), with one discount an order, D = n₁ / (n₁ + 2 n₂):

    P_k(w | c) = max(C_k(c w) − D_k, 0) / C_k(c) + D_k N(c) / C_k(c) · P_{k−1}(w | c')

C_k counts occurrences at the highest order and the different tokens that came before below it, N(c)
the different tokens that follow c, and c' is c without its first token. Below the first order,
every token is as likely as any other.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path

from elman.data.streams import Tokens
from elman.tasks import open_run
from elman.training.storage import to_json


class KneserNey:
    """An n-gram model of texts.

    Args:
        texts: tokens as characters, one for each id.
        order: n.
        vocabulary: how many tokens there are.
    """

    def __init__(self, texts: list[str], order: int, vocabulary: int):
        self.order, self.floor = order, 1 / vocabulary
        found = Counter(t[i : i + order] for t in texts for i in range(len(t) - order + 1))
        self._counts: list[Counter[str]] = [found]
        for _ in range(order - 1):
            self._counts.insert(0, Counter(gram[1:] for gram in self._counts[0]))
        self._sums: list[Counter[str]] = []
        self._kinds: list[Counter[str]] = []
        self._discounts: list[float] = []
        for counts in self._counts:
            sums, kinds = Counter[str](), Counter[str]()
            for gram, count in counts.items():
                sums[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            self._sums.append(sums)
            self._kinds.append(kinds)
            sizes = Counter(counts.values())
            self._discounts.append(sizes[1] / max(1, sizes[1] + 2 * sizes[2]))

    def probability(self, gram: str) -> float:
        """Of the last token of a gram, given those before it."""
        p = self.floor
        for k in range(min(self.order, len(gram))):
            context, whole = gram[len(gram) - k - 1 : -1], gram[len(gram) - k - 1 :]
            total, discount = self._sums[k][context], self._discounts[k]
            if not total:
                return p
            p *= discount * self._kinds[k][context] / total
            p += max(self._counts[k][whole] - discount, 0) / total
        return p

    def nats(self, text: str) -> float:
        """The sum of −log P of every token but the first."""
        begins = (max(0, i - self.order) for i in range(2, len(text) + 1))
        return -sum(
            math.log(self.probability(text[begin:end]))
            for begin, end in zip(begins, range(2, len(text) + 1), strict=True)
        )


def characters(tokens: Tokens) -> str:
    """Tokens as characters, so that an n-gram is a piece of a text."""
    return "".join(map(chr, tokens[:].tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--orders", default="3,5,7")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    job = open_run(options.run)
    learned = [characters(tokens) for _, tokens in job.texts.parts("train")]
    judged = [characters(tokens) for _, tokens in job.texts.parts(job.judged_part())]
    count = sum(len(text) - 1 for text in judged)
    for order in map(int, options.orders.split(",")):
        model = KneserNey(learned, order, len(job.vocabulary))
        mean = sum(map(model.nats, judged)) / count
        figures = {"order": order, "perplexity": math.exp(mean), "nats_per_token": mean}
        print(to_json(figures) if options.json else f"{order}  {math.exp(mean):.5g}  {mean:.4f}")


if __name__ == "__main__":
    main()
