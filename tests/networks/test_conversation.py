"""A conversation's network: all replies at once are each alone, and none sees what comes later."""

from __future__ import annotations

import pytest
import torch

from elman import nested
from elman.networks.conversation import ConversationNetwork, collate
from elman.networks.encoder_decoder import EncoderDecoderSettings

END = 12
DIALOGUES = [
    [[1, 2, END], [3, END], [4, 5, 6, 7, END], [8, END]],
    [[9, END], [1, 1, 2, END]],
    [[3, 4, 5, END], [END], [6, END]],
]
KINDS = ["none", "general", "dot"]


def made(attention="none", **settings):
    torch.manual_seed(0)
    given = {"cell": "gru", "hidden": 6, "embedding": 5, "bidirectional": False, **settings}
    its = EncoderDecoderSettings(attention=attention, **given)
    return ConversationNetwork(END + 1, its).double().eval()


def told(model, dialogues):
    """The log-probabilities of every reply, by dialogue and turn, from one call."""
    batch = collate(dialogues, END)
    expected = model.output(model(batch)).log_softmax(-1)
    target = torch.cat([group.target for group in batch.replies])
    places = torch.cat([group.places for group in batch.replies])
    picked = expected.gather(1, target[:, None])[:, 0]
    found = {}
    for place, value in sorted(zip(places.tolist(), picked, strict=True)):
        step, row = divmod(place, len(dialogues))
        found.setdefault((row, int(batch.begins[step, row])), []).append(value)
    return {key: torch.stack(values) for key, values in found.items()}


def alone(model, before, reply):
    """The log-probabilities of a reply, a step at a time, after the turns before it."""
    ids = [id for turn in before for id in turn]
    heard = model.hear(torch.tensor(ids)[:, None], torch.tensor([len(ids)]))
    state, found = model.answer(heard), []
    for previous, token in zip([END, *reply], reply, strict=False):
        logits, state = model.step(torch.tensor([previous]), state)
        found.append(logits.log_softmax(-1)[0, token])
    return torch.stack(found)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("shape", [{}, {"cell": "lstm", "layers": 2}, {"hidden_sizes": [4, 6]}])
def test_all_replies_at_once_are_each_alone(attention, shape):
    model = made(attention, **shape)
    found = told(model, DIALOGUES)
    assert len(found) == 6
    for (row, begin), values in found.items():
        turns, read = DIALOGUES[row], []
        while sum(map(len, read)) < begin:
            read.append(turns[len(read)])
        expected = alone(model, read, turns[len(read)])
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_what_is_said_later_changes_nothing(attention):
    model = made(attention)
    first = told(model, [DIALOGUES[0]])
    changed = told(model, [[*DIALOGUES[0][:2], [9, 9, 1, 2, END], [5, END]]])
    assert torch.equal(first[0, 3], changed[0, 3])
    assert not torch.equal(first[0, 5], changed[0, 5])


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_padding_is_never_read(attention):
    model = made(attention)
    model.target.weight[11] = torch.nan
    batch = collate(DIALOGUES, END)
    steps = torch.arange(len(batch.tokens))[:, None]
    poisoned = batch._replace(
        tokens=batch.tokens.where(steps < batch.lengths, 11),
        replies=[
            group._replace(
                previous=group.previous.where(
                    torch.arange(len(group.previous))[:, None] < group.lengths, 11
                )
            )
            for group in batch.replies
        ],
    )
    assert (poisoned.tokens == 11).any()
    assert torch.equal(model(poisoned), model(batch))
    assert not model(batch).isnan().any()


@pytest.mark.parametrize("attention", KINDS)
def test_gradients_reach_every_weight_but_those_of_padding(attention):
    model = made(attention).train()
    batch = collate(DIALOGUES, END)
    target = torch.cat([group.target for group in batch.replies])
    torch.nn.functional.cross_entropy(model.output(model(batch)), target).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_a_state_that_is_carried_is_all_that_was_heard(attention):
    for cell in ("gru", "lstm", "clockwork"):
        model = made(attention, cell=cell)
        ids = torch.tensor([id for turn in DIALOGUES[0] for id in turn])[:, None]
        whole = model.answer(model.hear(ids, torch.tensor([len(ids)])))
        heard = None
        for turn in DIALOGUES[0]:
            heard = model.hear(torch.tensor(turn)[:, None], torch.tensor([len(turn)]), heard)
        carried = model.answer(heard)
        for one, other in zip(
            *map(nested.leaves, (whole.recurrent, carried.recurrent)), strict=True
        ):
            assert torch.equal(one, other)
        if attention != "none":
            assert torch.equal(whole.memory.values, carried.memory.values)
            # A product of more rows adds up in another order.
            torch.testing.assert_close(whole.memory.keys, carried.memory.keys, rtol=0, atol=1e-14)


@torch.no_grad()
def test_scores_of_attention_in_parts_are_those_at_once(monkeypatch):
    model = made("general")
    whole = told(model, DIALOGUES)
    monkeypatch.setattr("elman.networks.conversation._SCORES", 1)
    for key, values in told(model, DIALOGUES).items():
        torch.testing.assert_close(values, whole[key], rtol=0, atol=1e-12)
