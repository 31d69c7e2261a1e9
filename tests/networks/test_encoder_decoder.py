"""An encoder and decoder: one call is its steps, its equations, and padding that nothing reads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import elman
from elman import nested
from elman.networks.encoder_decoder import EncoderDecoder, EncoderDecoderSettings

SIZES = 11, 13
KINDS = [("none", False), ("additive", False), ("general", False), ("general", True)]


def made(**settings):
    torch.manual_seed(0)
    given = {"cell": "gru", "hidden": 6, "embedding": 5, **settings}
    return EncoderDecoder(*SIZES, EncoderDecoderSettings(**given)).double().eval()


def tokens(*shape):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(min(SIZES), shape, generator=draw)


def steps(model, source, lengths, previous):
    """Logits and the weights of attention, a step at a time."""
    state, found, weights = model.encode(source, lengths), [], []
    for token in previous:
        logits, state = model.step(token, state)
        found.append(logits)
        weights.append(state.weights)
    return torch.stack(found), weights


@pytest.mark.parametrize(("attention", "input_feeding"), [*KINDS, ("dot", False)])
@pytest.mark.parametrize(
    "shape", [{}, {"hidden_sizes": [4, 6], "tied": False}, {"bidirectional": False}]
)
@pytest.mark.parametrize("cell", ["gru", "lstm", "clockwork"])
def test_one_call_is_its_steps(cell, attention, input_feeding, shape):
    if attention == "dot":
        shape = {**shape, "bidirectional": False}
    model = made(cell=cell, attention=attention, input_feeding=input_feeding, **shape)
    given = tokens(7, 3), torch.tensor([7, 2, 5]), tokens(4, 3)
    readouts, weights = model(*given)
    with torch.no_grad():
        logits, own = steps(model, *given)
    torch.testing.assert_close(model.output(readouts), logits, rtol=0, atol=1e-10)
    if attention == "none":
        assert weights is None
    else:
        torch.testing.assert_close(weights, torch.stack(own), rtol=0, atol=1e-10)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@pytest.mark.parametrize(("attention", "input_feeding"), KINDS)
def test_what_stands_past_the_end_of_a_source_is_never_read(attention, input_feeding):
    model = made(attention=attention, input_feeding=input_feeding, hidden_sizes=[4, 6])
    alone, previous = tokens(4, 1).clamp(max=9), tokens(5, 1)
    expected, _ = model(alone, torch.tensor([4]), previous)
    with torch.no_grad():
        model.source.weight[10] = torch.nan
    beside = torch.cat([torch.cat([alone, torch.full((3, 1), 10)]), tokens(7, 1).clamp(max=9)], 1)
    lengths = torch.tensor([4, 7])
    readouts, _ = model(beside, lengths, previous.expand(5, 2))
    torch.testing.assert_close(readouts[:, :1], expected, rtol=0, atol=1e-10)
    readouts.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def torch_gru(network, direction=""):
    """A layer of a network as PyTorch has it."""
    theirs = nn.GRU(network.input_size, network.hidden_size).double()
    theirs.load_state_dict(
        {f"{n}_l0": getattr(network, f"{n}_l0{direction}").detach()
         for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    )  # fmt: skip
    return theirs


@pytest.mark.parametrize(("attention", "input_feeding"), KINDS)
def test_it_computes_its_equations(attention, input_feeding):
    model = made(attention=attention, input_feeding=input_feeding)
    source, previous = tokens(4, 1), tokens(3, 1)
    scale = model.target.embedding_dim**0.5
    x, e = scale * model.source(source), scale * model.target(previous)
    forward, last = torch_gru(model.encoder)(x)
    backward, first = torch_gru(model.encoder, "_reverse")(x.flip(0))
    m = torch.cat([forward, backward.flip(0)], -1)[:, 0]
    h = model.bridge.maps["h_l0"](torch.cat([last, first], -1))
    decoder, look = torch_gru(model.decoder), model.attention

    def context(q):
        if attention == "additive":
            scores = look.score(torch.tanh(look.query(q) + look.key(m)))[:, 0]
        else:
            scores = look.key(m) @ q / len(q) ** 0.5
        return scores.softmax(0) @ m

    r, found = torch.zeros(5).double(), []
    for each in e[:, 0]:
        c = [context(h[0, 0])] if attention == "additive" else []
        fed = [each, *c, *([r] if input_feeding else [])]
        _, h = decoder(torch.cat(fed)[None, None], h)
        seen = [*c, each] if attention == "additive" else []
        if attention == "general":
            seen = [context(h[0, 0])]
        r = torch.tanh(model.readout(torch.cat([h[0, 0], *seen])))
        found.append(r)
    readouts, _ = model(source, torch.tensor([4]), previous)
    torch.testing.assert_close(readouts[:, 0], torch.stack(found), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("attention", "input_feeding"), KINDS)
def test_scheduled_sampling_feeds_what_is_likeliest(attention, input_feeding):
    model = made(attention=attention, input_feeding=input_feeding)
    source, lengths, previous = tokens(4, 2), torch.tensor([4, 3]), tokens(6, 2)
    readouts, _ = model(source, lengths, previous, own=1.0)
    with torch.no_grad():
        state, token, found = model.encode(source, lengths), previous[0], []
        for _ in range(6):
            logits, state = model.step(token, state)
            token = logits.argmax(-1)
            found.append(logits)
    torch.testing.assert_close(model.output(readouts), torch.stack(found), rtol=0, atol=1e-10)


def test_a_share_of_what_is_fed_is_its_own():
    model, source = made(), tokens(4, 50)
    given = source, torch.full((50,), 4), tokens(6, 50)
    forced, own = (model(*given, share)[0] for share in (0.0, 1.0))
    torch.manual_seed(0)
    mixed = model(*given, 0.5)[0]
    torch.testing.assert_close(mixed[0], forced[0])
    alike = [torch.isclose(mixed[1], each[1]).all(-1).double().mean() for each in (forced, own)]
    assert all(0.25 < share < 0.9 for share in alike), alike


def test_embeddings_are_shared_and_tied():
    settings = EncoderDecoderSettings(cell="gru", hidden=6)
    model = EncoderDecoder(13, 13, settings, shared=True)
    assert model.source.weight is model.target.weight is model.output.weight
    model = EncoderDecoder(11, 13, EncoderDecoderSettings(cell="gru", hidden=6, tied=False))
    assert model.output.weight is not model.target.weight


def test_input_feeding_needs_attention_after_the_step():
    for attention in ("none", "additive"):
        with pytest.raises(elman.InputError, match="`input_feeding`"):
            EncoderDecoderSettings(attention=attention, input_feeding=True)


def test_the_batch_is_the_second_last_axis_of_all_that_a_decoder_goes_on_from():
    for attention, input_feeding in KINDS:
        model = made(attention=attention, input_feeding=input_feeding, cell="lstm")
        state = model.encode(tokens(4, 3), torch.tensor([4, 2, 3]))
        state = model.step(tokens(3), state)[1]
        assert all(leaf.shape[-2] == 3 for leaf in nested.leaves(state))
