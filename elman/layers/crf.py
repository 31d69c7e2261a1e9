"""The linear-chain conditional random field: a probability of whole sequences of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elman.cells.sizes import positive
from elman.errors import InputError
from elman.layers.sequences import mask_of


class Scores(NamedTuple):
    """The scores of a chain of L labels, beside those of its steps.

    Attributes:
        transitions: (L, L), of a label (second) after another (first).
        starts: (L), of a label at the first step.
        ends: (L), of a label at the last step.
    """

    transitions: Tensor
    starts: Tensor
    ends: Tensor


class Constraints(NamedTuple):
    """What a chain of L labels may be: as :class:`Scores`, bool, true where it is allowed."""

    transitions: Tensor
    starts: Tensor
    ends: Tensor


class CRF(nn.Module):
    """A conditional random field on a chain of labels (Lafferty et al., 2001).

    score(y) = b_{y_1} + Σ_t e_{t, y_t} + Σ_t A_{y_t, y_{t+1}} + c_{y_T}
    P(y) = exp(score(y)) / Z    Z = Σ_y exp(score(y))

    The emissions e are a network's; A, b and c are learned here, from zero. Sums over all sequences
    are exact. A sequence of length 0 has one labelling, of probability 1::

        loss = -crf.log_likelihood(emissions, tags, lengths).sum() / lengths.sum()
        paths, scores = viterbi(emissions, *crf.scores(), lengths)

    Args:
        labels: L, how many labels there are.
        constraints: what sequences may be, such as :func:`elman.decoding.spans.allowed` gives. They
            hold in :meth:`scores` and :meth:`marginals`: for what is decoded.
        constrain_training: they hold in :meth:`log_likelihood`, too: no probability goes to what
            they bar, and no sequence of tags may break them.
        device, dtype: of the weights.

    Raises:
        InputError: a size or a shape does not fit.
    """

    def __init__(
        self,
        labels: int,
        constraints: Constraints | None = None,
        *,
        constrain_training: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.labels = positive("labels", labels)
        self.constrain_training = constrain_training
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.transitions = nn.Parameter(torch.zeros(labels, labels, **made))
        self.starts = nn.Parameter(torch.zeros(labels, **made))
        self.ends = nn.Parameter(torch.zeros(labels, **made))
        for name, own in zip(Scores._fields, self._own(), strict=True):
            allowed = None if constraints is None else getattr(constraints, name).to(device)
            if allowed is not None and (allowed.shape != own.shape or allowed.dtype != torch.bool):
                raise InputError(
                    f"constraints on {name} must be bool of shape {tuple(own.shape)}, received "
                    f"{allowed.dtype} of shape {tuple(allowed.shape)}."
                )
            # Follows from the labels, which whoever loads the weights knows.
            self.register_buffer(f"allowed_{name}", allowed, persistent=False)

    def _own(self) -> Scores:
        return Scores(self.transitions, self.starts, self.ends)

    def scores(self, constrained: bool = True) -> Scores:
        """A, b and c; −∞ for what the constraints bar, where they hold."""
        if not constrained or self.allowed_starts is None:
            return self._own()
        return Scores(
            *(
                own.masked_fill(~getattr(self, f"allowed_{name}"), -torch.inf)
                for name, own in zip(Scores._fields, self._own(), strict=True)
            )
        )

    def log_likelihood(
        self, emissions: Tensor, tags: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """log P(tags) of each sequence (B), in nats.

        Args:
            emissions: (T, B, L).
            tags: (T, B) integers; whatever stands past the end of a sequence.
            lengths: (B), from 0 to T; T by default.

        Raises:
            InputError: a shape, a tag or a length does not fit, or tags break the constraints that
                hold in training.
        """
        emissions, mask = self._within(emissions, lengths)
        if tags.shape != mask.shape:
            raise InputError(
                f"tags must have the shape {tuple(mask.shape)}, received {tuple(tags.shape)}."
            )
        tags = torch.where(mask, tags, 0)
        if tags.numel() and not 0 <= int(tags.min()) <= int(tags.max()) < self.labels:
            raise InputError(
                f"tags must lie between 0 and {self.labels - 1}, received values from "
                f"{int(tags.min())} to {int(tags.max())}."
            )
        scores = self.scores(self.constrain_training)
        score = path_score(emissions, tags, mask, scores)
        if self.constrain_training and bool(score.isneginf().any()):
            where = score.isneginf().nonzero().flatten().tolist()
            raise InputError(
                f"the tags of sequence {where[0]} of the batch break the constraints: correct "
                "them, or leave out `constrain_training`."
            )
        return score - _LogPartition.apply(emissions, mask, *scores)

    @torch.no_grad()
    def marginals(self, emissions: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """P(y_t = l) of every step and label (T, B, L), without a gradient; zeros past the end.

        Args:
            emissions: (T, B, L).
            lengths: (B), from 0 to T; T by default.

        Raises:
            InputError: a shape or a length does not fit.
        """
        emissions, mask = self._within(emissions, lengths)
        chain = _Chain(emissions, mask, self.scores())
        return chain.gradients(emissions.new_ones(mask.shape[1]))[0]

    def _within(
        self, emissions: Tensor, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Emissions in the weights' precision, zero past the end, and the mask (T, B) of steps."""
        if emissions.dim() != 3 or emissions.shape[-1] != self.labels:
            raise InputError(
                f"emissions must have the shape (T, B, {self.labels}), "
                f"received {tuple(emissions.shape)}."
            )
        mask = mask_of(emissions, lengths)
        return torch.where(mask.unsqueeze(-1), emissions, 0).to(self.starts.dtype), mask

    def extra_repr(self) -> str:
        """Labels and constraints, for ``repr``."""
        return f"{self.labels}" + (", constrained" * (self.allowed_starts is not None))


def path_score(emissions: Tensor, tags: Tensor, mask: Tensor, scores: Scores) -> Tensor:
    """score(y) of sequences of labels (T, B), which are 0 past the end: (B)."""
    if not len(tags):
        return emissions.new_zeros(tags.shape[1])
    transitions, starts, ends = scores
    score = emissions.gather(-1, tags.unsqueeze(-1)).squeeze(-1).sum(0)
    between = transitions[tags[:-1], tags[1:]]
    score = score + torch.where(mask[1:], between, 0).sum(0)
    last = tags.gather(0, (mask.sum(0) - 1).clamp(min=0).unsqueeze(0)).squeeze(0)
    return score + torch.where(mask[0], starts[tags[0]] + ends[last], 0)


class _Chain:
    """log Z of chains, by the forward algorithm, and what its gradient is made of.

    α_1 = b + e_1    α_{t+1, j} = e_{t+1, j} + log Σ_i exp(α_{t, i} + A_ij)

    The gradient goes back through the weights w_ij = exp(α_i + A_ij) / Σ_i exp(α_i + A_ij), which
    are P(y_t = i | y_{t+1} = j), so that it is made of probabilities and nothing overflows.

    Args:
        emissions: (T, B, L), finite past the end, too.
        mask: (T, B) bool.
        scores: of the chain.
    """

    def __init__(self, emissions: Tensor, mask: Tensor, scores: Scores):
        # Barred far below anything that adds up, yet finite: sums have no NaN.
        emissions, transitions, starts, ends = (s.clamp(min=-1e30) for s in (emissions, *scores))
        self.mask = mask.unsqueeze(-1)
        steps, batch, labels = emissions.shape
        # (i, B, j): sums over i go through memory in order.
        self.weights = emissions.new_empty(max(steps - 1, 0), labels, batch, labels)
        if not steps:
            self.total, self.last = emissions.new_zeros(batch), emissions.new_zeros(batch, labels)
            return
        alpha = starts + emissions[0]
        for w, emission, inside in zip(self.weights, emissions[1:], self.mask[1:], strict=True):
            torch.add(alpha.t().unsqueeze(-1), transitions.unsqueeze(1), out=w)
            highest = w.amax(0)
            total = w.sub_(highest).exp_().sum(0)
            w.div_(total)
            new = total.log_().add_(highest).add_(emission)
            alpha = torch.where(inside, new, alpha)
        final = alpha + ends
        self.last = final.softmax(-1) * self.mask[0]
        self.total = torch.where(mask[0], final.logsumexp(-1), 0)

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of emissions, A, b and c, from that of log Z (B); of ones, they are marginals."""
        last = self.last * gradient.unsqueeze(-1)
        if not len(self.mask):
            size = last.shape[-1]
            none = last.sum(0)
            return last.new_empty(0, *last.shape), last.new_zeros(size, size), none, none
        marginals = [last]
        for t in reversed(range(len(self.weights))):
            after, w = marginals[-1], self.weights[t].transpose(0, 1)
            before = torch.bmm(w, after.unsqueeze(-1)).squeeze(-1)
            marginals.append(torch.where(self.mask[t + 1], before, after))
        unary = torch.stack(marginals[::-1]) * self.mask
        transitions = (self.weights * unary[1:].unsqueeze(1)).sum((0, 2))
        return unary, transitions, unary[0].sum(0), last.sum(0)


class _LogPartition(torch.autograd.Function):
    """log Z of each chain (B)."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, mask: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor
    ) -> Tensor:
        ctx.chain = _Chain(emissions, mask, Scores(transitions, starts, ends))
        return ctx.chain.total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        emissions, *others = ctx.chain.gradients(gradient)
        return emissions, None, *others
