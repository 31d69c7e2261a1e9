"""Output layers over a vocabulary: softmax as a whole, in clusters, or by samples while learning.

Each gives, from hidden vectors h (…, S), logits (…, V) whose softmax is P(v | h), and −log P of
given targets, which two of them compute without all V logits. The ids must count from the most
frequent token on, as those of a vocabulary do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, linear

from elman.errors import InputError


class FullSoftmax(nn.Linear):
    """P(v | h) = exp(s_v) / Σ_u exp(s_u), s = V h + b."""

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """−log P of targets (N) given h (N, S), in nats (N)."""
        return cross_entropy(self(h), targets, reduction="none")


class SampledSoftmax(FullSoftmax):
    """The full softmax, which learns to tell each target from a few candidates.

    −log exp(s_t − log Q(t)) / Σ_{k ∈ K ∪ {t}} exp(s_k − log Q(k))

    in place of −log P(t | h), with the candidates K drawn anew for each batch, with replacement,
    from the log-uniform Q(k) = log((k + 2) / (k + 1)) / log(V + 1), which is near a language's own
    distribution (Jean et al., 2015; Jozefowicz et al., 2016). The softmax of the s that minimise it
    is P(t | h), however few the candidates (Ma & Collins, 2018); its value is none of P's, and is
    no measure. In evaluation the softmax is exact.

    Args:
        in_features: S.
        out_features: V.
        samples: how many candidates, fewer than V.

    Raises:
        InputError: there would be as many candidates as tokens.
    """

    def __init__(self, in_features: int, out_features: int, samples: int):
        super().__init__(in_features, out_features)
        if samples >= out_features:
            raise InputError(
                f"the sampled softmax draws {samples:,} candidates from {out_features:,} tokens: "
                "lower `softmax_samples`, or take the full one."
            )
        self.samples = samples

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """−log P of targets (N) given h (N, S), in nats (N); while training, what is learned."""
        if not self.training:
            return super().nats(h, targets)
        drawn = torch.rand(self.samples, dtype=torch.float64, device=h.device)
        ids = ((self.out_features + 1) ** drawn - 1).long().clamp(max=self.out_features - 1)
        return self.among(h, targets, ids)

    def among(self, h: Tensor, targets: Tensor, candidates: Tensor) -> Tensor:
        """−log of each target's share (N) among these candidates, ids (K), and itself."""
        # embedding, because its gradient adds up faster than that of an index.
        own = (h * embedding(targets, self.weight)).sum(-1) + self.bias[targets]
        others = linear(h, embedding(candidates, self.weight), self.bias[candidates])
        own, others = (
            s - self.probabilities(ids).log().to(s.dtype)
            for s, ids in ((own, targets), (others, candidates))
        )
        return torch.cat([own.unsqueeze(-1), others], -1).logsumexp(-1) - own

    def probabilities(self, ids: Tensor) -> Tensor:
        """Q of ids, in float64."""
        return (1 / (ids.double() + 1)).log1p() / math.log(self.out_features + 1)


class AdaptiveSoftmax(nn.Module):
    """P(v | h) by clusters of frequent and of rare tokens (Grave et al., 2017).

    P(v | h) = P(cluster of v | h) P(v | h, cluster of v): the most frequent tokens stand among the
    clusters' names in the head; the k-th cluster of the others reads a projection of h to S / 4^k
    numbers. The time of an update goes with how often a cluster is met. PyTorch's
    ``AdaptiveLogSoftmaxWithLoss``.

    Args:
        in_features: S.
        out_features: V.
        cutoffs: the first ids of the clusters after the head, ascending, each below V; a tenth and
            a half of V where there are none.

    Raises:
        InputError: the cutoffs are no such ids.
    """

    def __init__(self, in_features: int, out_features: int, cutoffs: Sequence[int] = ()):
        super().__init__()
        size = out_features
        cuts = list(cutoffs) or sorted({max(1, size // 10), max(1, size // 2)})
        if cuts != sorted(set(cuts)) or not 0 < cuts[0] <= cuts[-1] < size:
            raise InputError(
                f"`cutoffs` must ascend between 1 and {size - 1:,}, the last of {size:,} tokens, "
                f"received {', '.join(map(str, cuts))}."
            )
        if in_features < 4 ** len(cuts):
            raise InputError(
                f"the adaptive softmax halves what it reads twice for each of {len(cuts)} clusters "
                f"of rare tokens, and of {in_features} numbers nothing is left: widen the network, "
                "or give fewer `cutoffs`."
            )
        self.clusters = nn.AdaptiveLogSoftmaxWithLoss(in_features, size, cuts)

    def forward(self, h: Tensor) -> Tensor:
        """Log P (…, V), which are logits, too."""
        with _as_it_is(h):
            log_p: Tensor = self.clusters.log_prob(h.reshape(-1, h.shape[-1]))
        return log_p.view(*h.shape[:-1], -1)

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """−log P of targets (N) given h (N, S), in nats (N)."""
        with _as_it_is(h):
            return -self.clusters(h, targets).output


def _as_it_is(h: Tensor) -> Any:
    """Without autocast, by which PyTorch's module mixes precisions that it cannot put together."""
    return torch.autocast(h.device.type, enabled=False)
