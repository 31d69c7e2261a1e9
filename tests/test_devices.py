"""Another device gives what the CPU gives in double precision: outputs, gradients, last states.

``ELMAN_TEST_DEVICE`` names the device; the first GPU otherwise. Where there is none, the CPU in
single precision stands in for it, so that these tests are tested, too. Everything is made on the
CPU and moved: a tensor that is made without a place meets those of the device, and fails.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import elman
from elman import cells, decoding, layers, lens, nested
from elman.cells import transforms
from elman.errors import EngineWarning, InputError
from elman.layers import attention, dropout, pooling, softmax, weights
from elman.learning import OPTIMIZERS, RULES, clip_norm, clip_value, make_optimizer
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

pytestmark = [
    pytest.mark.names_devices,
    pytest.mark.filterwarnings("ignore::elman.EngineWarning"),
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous"),
]

CUDA = torch.cuda.is_available()
DEVICE = torch.device(os.environ.get("ELMAN_TEST_DEVICE") or ("cuda" if CUDA else "cpu"))
STAND_IN = DEVICE.type == "cpu"
REAL, TOLERANCE = (torch.float32, 2e-4) if STAND_IN else (torch.float64, 1e-9)
STEPS, BATCH, WIDTH, SIZE = 6, 3, 3, 4

Move = Callable[[Any], Any]


def _moved(value: Any, device: torch.device, real: torch.dtype) -> Any:
    """A module, or tensors in any nesting, on a device and in a precision."""
    if isinstance(value, nn.Module):
        return value.to(device, real)
    return nested.map(lambda t: t.to(device, real if t.is_floating_point() else None), value)


@pytest.fixture
def same(agree, leaves) -> Callable[..., None]:
    """Assert that a computation gives the same on the device as on the CPU."""

    def check(compute: Callable[[Move], Any], tolerance: float = TOLERANCE) -> None:
        torch.manual_seed(0)
        with elman.engine("reference"):
            expected = leaves(compute(lambda v: _moved(v, torch.device("cpu"), torch.float64)))
        torch.manual_seed(0)
        with elman.engine("reference" if STAND_IN else "auto"):
            found = leaves(compute(lambda v: _moved(v, DEVICE, REAL)))
        assert expected
        back = [t.detach().cpu() for t in found]
        agree([t.double() if t.is_floating_point() else t for t in back], expected, tolerance)

    return check


@pytest.fixture
def drawn_on_cpu(monkeypatch) -> None:
    """Let what is dropped be drawn on the CPU, so that it is the same wherever it is used."""

    def keep(p: Any, like: Tensor, shape: Any) -> Tensor:
        return (torch.rand(shape, dtype=torch.float64) < p).to(like)

    def drop(x: Tensor, p: float, *_: Any) -> Tensor:
        return x * keep(1 - p, x, x.shape) / (1 - p)

    monkeypatch.setattr(torch, "bernoulli", lambda p: keep(p.cpu(), p, p.shape))
    monkeypatch.setattr(transforms, "_drawn", keep)
    monkeypatch.setattr(dropout, "dropout", drop)
    monkeypatch.setattr(weights, "dropout", drop)


def real(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_there_is_a_device() -> None:
    if STAND_IN:
        pytest.skip("no GPU here: the CPU in single precision stands in for it")
    assert torch.ones(1, device=DEVICE).device.type == DEVICE.type


# -- cells and layers -------------------------------------------------------------------------

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "both directions": {"bidirectional": True},
    "lengths": {"bidirectional": True, "lengths": True},
    "resets": {"resets": True},
    "lengths and resets": {"bidirectional": True, "lengths": True, "resets": True},
    "all states": {"lengths": True, "return_states": "all"},
}


def run(rnn: Any, to: Move, gradients: Any, leaves: Any, **how: Any) -> Any:
    """Outputs, last states and all gradients of a network of some options."""
    x, state = real(STEPS, BATCH, rnn.input_size), None
    if not how.pop("fresh", False):
        state = nested.map(lambda s: to(real(*s.shape)).requires_grad_(), rnn.initial_state(BATCH))
    given: dict[str, Any] = {}
    if how.pop("lengths", False):
        given["lengths"] = to(torch.tensor([STEPS, 2, 0]))
    if how.pop("resets", False):
        given["resets"] = to(torch.rand(STEPS, BATCH) < 0.4)
    rnn, x = to(rnn), to(x).requires_grad_()
    out = rnn(x.transpose(0, 1) if rnn.batch_first else x, state, **given, **how)
    return [out, gradients(out, [x, *leaves(state), *rnn.parameters()])]


@pytest.mark.parametrize("mode", MODES)
def test_cells(kind, mode, same, gradients, leaves) -> None:
    how = dict(MODES[mode])
    both = how.pop("bidirectional", False)

    def compute(to: Move) -> Any:
        rnn = elman.Recurrent(kind(WIDTH, SIZE), 2, bidirectional=both)
        return run(rnn, to, gradients, leaves, **how)

    same(compute)


@pytest.mark.parametrize("grad", [True, False])
def test_steps(kind, grad, same, leaves) -> None:
    def compute(to: Move) -> Any:
        rnn, x = to(elman.Recurrent(kind(WIDTH, SIZE), 2)), to(real(STEPS, BATCH, WIDTH))
        resets, state, outputs = to(torch.rand(STEPS, BATCH) < 0.3), None, []
        with torch.set_grad_enabled(grad):
            for x_t, anew in zip(x, resets, strict=True):
                y, state = rnn.step(x_t, state, resets=anew)
                outputs.append(y)
        return outputs, state

    same(compute)


OPTIONS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.5},
    "variational": {"dropout": 0.5, "variational": True},
    "weight drop": {"weight_drop": 0.5},
    "residual": {"skip": "residual"},
    "highway": {"skip": "highway"},
    "learned start": {"learn_initial_state": True},
    "widths": {"hidden_sizes": [4, 2, 5]},
    "batch first": {"batch_first": True, "bidirectional": True},
}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "zoneout": lambda cell: cells.zoneout(cell, 0.3),
    "recurrent dropout": lambda cell: cells.recurrent_dropout(cell, 0.3),
    "layer norm": cells.layer_norm,
}


@pytest.mark.usefixtures("drawn_on_cpu")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lstm-peephole"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options(option, name, training, same, gradients, leaves) -> None:
    def compute(to: Move) -> Any:
        cell = cells.make(name, SIZE, SIZE, dtype=torch.float64)
        rnn = elman.Recurrent(cell, **{"layers": 1 if option == "widths" else 2, **OPTIONS[option]})
        fresh = bool(OPTIONS[option].keys() & {"hidden_sizes", "learn_initial_state"})
        return run(rnn.train(training), to, gradients, leaves, fresh=fresh)

    same(compute)


@pytest.mark.usefixtures("drawn_on_cpu")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_cells(change, name, training, same, gradients, leaves) -> None:
    def compute(to: Move) -> Any:
        cell = CHANGES[change](cells.make(name, WIDTH, SIZE, dtype=torch.float64))
        rnn = elman.Recurrent(cell, 2, bidirectional=True).train(training)
        return run(rnn, to, gradients, leaves, lengths=True)

    same(compute)


DROP_INS: dict[str, Callable[..., Any]] = {
    "lstm": elman.LSTM,
    "lstm, projected": lambda *a, **k: elman.LSTM(*a, proj_size=2, **k),
    "gru": elman.GRU,
    "rnn": elman.RNN,
    "rnn, relu": lambda *a, **k: elman.RNN(*a, nonlinearity="relu", **k),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DROP_INS)
def test_drop_ins(name, mode, bias, grad, same, gradients, leaves) -> None:
    how = dict(MODES[mode])
    both = how.pop("bidirectional", False)

    def compute(to: Move) -> Any:
        made: dict[str, Any] = {"num_layers": 2, "bidirectional": both, "bias": bias}
        rnn = DROP_INS[name](WIDTH, SIZE, dtype=torch.float64, **made)
        if not grad:
            with torch.no_grad():
                return run(rnn, to, lambda *_: [], leaves, **how)
        return run(rnn, to, gradients, leaves, **how)

    same(compute)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_drop_ins_made_on_the_device(name) -> None:
    """Weights that were made there, copied, loaded and learned give what torch.nn gives there."""
    made: dict[str, Any] = {"num_layers": 2, "device": DEVICE, "dtype": REAL}
    ours = DROP_INS[name](WIDTH, SIZE, **made)
    theirs = getattr(nn, name.upper())(WIDTH, SIZE, **made)
    theirs.load_state_dict(ours.state_dict())
    x = real(STEPS, BATCH, WIDTH).to(DEVICE, REAL)
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (ours, theirs)]
    for _ in range(3):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(x)[0].square().sum().backward()
            optimizer.step()
        torch.testing.assert_close(ours(x), theirs(x), rtol=TOLERANCE, atol=TOLERANCE)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=TOLERANCE, atol=TOLERANCE)


def test_streams_and_packs(same) -> None:
    def compute(to: Move) -> Any:
        rnn = to(elman.LSTM(WIDTH, SIZE, 2, bidirectional=True, dtype=torch.float64))
        x = to(real(STEPS, BATCH, WIDTH))
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 6, 1]), enforce_sorted=False)
        y, state = rnn(packed)
        return y.data, state, rnn(x[:, 0])

    same(compute)


# -- learning rules ---------------------------------------------------------------------------


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "indrnn", "lru", "sru"])
@pytest.mark.parametrize("rule", RULES)
def test_learning_rules(rule, name, resets, same) -> None:
    if name == "lru" and rule in ("snap1", "rflo"):
        with pytest.raises(InputError):
            RULES[rule](elman.Recurrent(cells.make(name, WIDTH, SIZE)), mse_loss)
        return

    def compute(to: Move) -> Any:
        rnn = to(elman.Recurrent(cells.make(name, WIDTH, SIZE, dtype=torch.float64)))
        head = to(nn.Linear(SIZE, 2, dtype=torch.float64))
        learned = RULES[rule](rnn, lambda y, target: mse_loss(head(y), target))
        losses = []
        for _ in range(2):
            x, target = to(real(STEPS, BATCH, WIDTH)), to(real(STEPS, BATCH, 2))
            marks = to(torch.rand(STEPS, BATCH) < 0.3) if resets else None
            losses.append(learned.gradients(x, target, resets=marks))
        found = [p.grad for p in (*rnn.parameters(), *head.parameters())]
        if rule == "uoro":  # of random signs that each device draws for itself
            assert all(g.isfinite().all() for g in found)
            return losses[0]
        return losses, found

    same(compute)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_clipping(name, same) -> None:
    def compute(to: Move) -> Any:
        rnn, x = to(elman.LSTM(WIDTH, SIZE, dtype=torch.float64)), to(real(STEPS, BATCH, WIDTH))
        optimizer, norms = make_optimizer(name, rnn, 0.01), []
        for _ in range(3):
            optimizer.zero_grad()
            rnn(x)[0].square().sum().backward()
            clip_value(rnn.parameters(), 0.5)
            norms.append(clip_norm(rnn.parameters(), 0.1))
            optimizer.step()
        return norms, list(rnn.parameters())

    same(compute, 1e-2 if STAND_IN else 1e-8)


# -- what stands around a recurrence ----------------------------------------------------------


@pytest.mark.parametrize("kind_", ["full", "adaptive", "sampled"])
def test_softmaxes(kind_, same, gradients) -> None:
    made: dict[str, Callable[[], Any]] = {
        "full": lambda: softmax.FullSoftmax(16, 30),
        "adaptive": lambda: softmax.AdaptiveSoftmax(16, 30, [7, 20]),
        "sampled": lambda: softmax.SampledSoftmax(16, 30, 9).eval(),
    }

    def compute(to: Move) -> Any:
        layer, h = to(made[kind_]().double()), to(real(40, 16)).requires_grad_()
        targets = to(torch.randint(30, (40,)))
        out = [layer(h), layer.nats(h, targets)]
        if kind_ == "sampled":
            out.append(layer.among(h, targets, to(torch.arange(9))))
            assert layer.train().nats(h, targets).isfinite().all()
        return out, gradients(out, [h, *layer.parameters()])

    same(compute)


@pytest.mark.parametrize("how", attention.KINDS)
def test_attention(how, same, gradients) -> None:
    def compute(to: Move) -> Any:
        layer = to(elman.Attention(SIZE, SIZE, how, dtype=torch.float64))
        query, memory = (to(real(n, BATCH, SIZE)).requires_grad_() for n in (2, STEPS))
        out = layer(query, layer.prepare(memory, [STEPS, 1, 0]))
        return out, gradients(out, [query, memory, *layer.parameters()])

    same(compute)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("how", pooling.KINDS)
def test_pooling(how, both, same, gradients) -> None:
    def compute(to: Move) -> Any:
        layer = to(elman.Pooling(how, SIZE, bidirectional=both, dtype=torch.float64))
        y = to(real(STEPS, BATCH, SIZE)).requires_grad_()
        out = [layer(y, [STEPS, 1, 0]), layer(y)]
        return out, gradients(out, [y, *layer.parameters()])

    same(compute)


def test_crf(same, gradients) -> None:
    def compute(to: Move) -> Any:
        crf = elman.CRF(5, dtype=torch.float64)
        for parameter in crf.parameters():
            nn.init.normal_(parameter)
        crf, emissions = to(crf), to(real(STEPS, BATCH, 5)).requires_grad_()
        tags, lengths = to(torch.randint(5, (STEPS, BATCH))), to(torch.tensor([STEPS, 2, 0]))
        out = crf.log_likelihood(emissions, tags, lengths)
        found = gradients(out, [emissions, *crf.parameters()])
        scores = crf.scores()
        paths, best = decoding.viterbi(emissions.detach(), *scores, lengths)
        several = decoding.k_best(emissions.detach(), *scores, lengths, k=3)
        told = torch.tensor([label for path in paths for label in path])
        ranked = torch.tensor([p.score for each in several for p in each], dtype=torch.float64)
        return out, found, best, crf.marginals(emissions, lengths), told, ranked

    same(compute)


def test_delay_lines_and_forecasts(same) -> None:
    def compute(to: Move) -> Any:
        series = to(real(60, 1, 1))
        ar = to(elman.AR(3, dtype=torch.float64)).fit(series)
        narx = to(elman.NARX(1, SIZE, 1, dtype=torch.float64))
        return ar.weight, ar.noise, ar(series), ar.forecast(series, 5), narx(series)

    same(compute, 1e-3 if STAND_IN else 1e-8)


def test_echo_state_networks_are_fitted(same) -> None:
    def compute(to: Move) -> Any:
        echo = to(layers.EchoState(1, 30, washout=20).double())
        wave = to(torch.sin(0.2 * torch.arange(200, dtype=torch.float64)).view(-1, 1))
        y, _ = echo.recurrent(wave.unsqueeze(1))
        found = echo.fit(wave).readout(y)
        return found if not STAND_IN else y  # a fit is as good as its precision

    same(compute, TOLERANCE if STAND_IN else 1e-4)


def test_pyramids(same, gradients) -> None:
    def compute(to: Move) -> Any:
        layer = layers.Pyramid(cells.LRU, WIDTH, 2, [4, 5], [2]).double()
        layer, x = to(layer).eval(), to(real(STEPS, BATCH, WIDTH)).requires_grad_()
        out = layer(x)
        return out, gradients(out, [x, *layer.parameters()])

    same(compute)


# -- decoding ---------------------------------------------------------------------------------


class Speller(nn.Module):
    """A small model of tokens, in the shape that decoding takes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, SIZE, dtype=torch.float64)
        self.recurrent = elman.LSTM(SIZE, SIZE, 2, dtype=torch.float64)
        self.output = nn.Linear(SIZE, 7, dtype=torch.float64)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.recurrent(self.embedding(tokens), state)
        return self.output(y), state

    def step(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.recurrent.step(self.embedding(tokens), state)
        return self.output(y), state


@torch.no_grad()
def test_sampling_and_beams(same) -> None:
    def compute(to: Move) -> Any:
        model = to(Speller()).eval()
        start = to(torch.tensor([1, 2, 3]))
        state = model.recurrent.initial_state(3)
        how: dict[str, Any] = {"max_length": 6, "no_repeat": 2}
        beams = decoding.beam(model.step, state, start, 0, 3, n_best=2, length_penalty=0.6, **how)
        drawn = decoding.draw(model.step, state, start, 0, seeds=[1, 2, 3], top_k=4, **how)
        written = []
        for choice in ({"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_p": 0.8}):
            written += decoding.sample(model, start, 8, barred=[0], **choice)
        rows = [h.tokens for each in [*beams, drawn] for h in each]
        scores = [h.score for each in [*beams, drawn] for h in each]
        tokens = [t for row in rows for t in [*row, -1]]
        return torch.tensor(tokens + written), torch.tensor(scores, dtype=torch.float64)

    same(compute)


# -- the lens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "clockwork", "lru"])
def test_lens(name, same, kinds, leaves) -> None:
    def compute(to: Move) -> Any:
        rnn = to(elman.Recurrent(kinds[name](WIDTH, SIZE), 2, bidirectional=True))
        x = to(real(STEPS, BATCH, WIDTH))
        flow = lens.gradient_flow(rnn, x, jacobians=True)
        watched = lens.activity(rnn, x, lengths=[STEPS, 2, 1])
        seen = [[*a.gates.values(), *a.candidates.values(), *a.states.values()] for a in watched]
        told = [[f.norms, *f.by_state.values(), f.jacobians, f.singular_values] for f in flow.cells]
        return seen, [[t.double().cpu() for t in row if t is not None] for row in told]

    same(compute, 1e-3 if STAND_IN else 1e-7)


# -- training ---------------------------------------------------------------------------------

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture
def train(tmp_path):
    """Train a small language model, anew or from where a run stands; the losses of its epochs."""
    book = tmp_path / "book.txt"
    book.write_text(TEXT)

    def go(name: str, epochs: int, resume: bool = False, **changed: Any) -> list[float]:
        settings = LanguageModelSettings.of(
            {
                "hidden": 12, "batch": 4, "steps": 10, "epochs": epochs, "prompts": ["the"],
                "layers": 2, "sample_length": 5, "optimizer": "adam", "learning_rate": 0.01,
                "device": str(DEVICE), "clip_norm": 0.25,
            },
            changed,
        )  # fmt: skip
        if resume:
            folder = Run.open(tmp_path / name)
            trainer = Trainer(restore(folder), folder, settings, resume=True)
        else:
            trainer = start(LanguageModeling, [str(book)], settings, tmp_path / name)
        trainer.train()
        assert next(trainer.model.parameters()).device.type == DEVICE.type
        return [line["loss"] for line in trainer.run.metrics()]

    return go


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer": "nadam"}, {"optimizer": "sgd", "learning_rate": 1.0}, {"dropout": 0.3},
        {"embedding": 8, "softmax": "adaptive", "cutoffs": [9]},
        {"learning": "rtrl", "layers": 1, "hidden": 4},
        {"cell": "lstm-peephole"}, {"weight_drop": 0.3, "activation_decay": 1.0, "slowness": 1.0},
        {"average": "exponential"}, {"watch_gradients": True, "watch_every": 7},
    ],
    ids=str,
)  # fmt: skip
def test_a_resumed_training_is_the_uninterrupted_one(train, changed) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        whole = train("whole", 4, **changed)
        train("parts", 2, **changed)
        parts = train("parts", 4, resume=True, **changed)
    assert len(whole) == 4
    assert parts == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    "changed",
    [{"optimizer": "nadam"}, {"optimizer": "sgd", "learning_rate": 0.5, "schedule": "cosine"},
     {"optimizer": "adamw", "weight_decay": 0.1, "embedding": 8}],
    ids=str,
)  # fmt: skip
def test_recorded_updates_learn_as_those_one_by_one_do(train, changed) -> None:
    one_by_one = train("eager", 6, graph="off", **changed)
    assert train("recorded", 6, **changed) == pytest.approx(one_by_one, rel=1e-4)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU here, whose kernels read flat weights")
@pytest.mark.parametrize("name", ["lstm", "lstm, projected", "gru", "rnn"])
def test_weights_lie_together_whatever_happens_to_them(name, tmp_path) -> None:
    """One piece of memory, in which they are learned, loaded, copied and moved; no warning."""

    def lies(rnn: Any) -> bool:
        return len({p.untyped_storage().data_ptr() for p in rnn.parameters()}) == 1

    x = torch.randn(STEPS, BATCH, WIDTH, device=DEVICE)
    rnn = DROP_INS[name](WIDTH, SIZE, 2, bidirectional=True).to(DEVICE)
    optimizer = torch.optim.Adam(rnn.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = [p.detach().clone() for p in rnn.parameters()]
        y = rnn(x)[0]
        assert lies(rnn)
        for p, q in zip(rnn.parameters(), before, strict=True):
            assert p.equal(q)
        y.sum().backward()
        optimizer.step()
        assert not next(rnn.parameters()).equal(before[0])
        other = copy.deepcopy(rnn)
        assert other(x)[0].equal(rnn(x)[0])
        assert lies(other)
        rnn.load_state_dict(dict(zip(rnn.state_dict(), before, strict=True)))
        torch.testing.assert_close(rnn(x)[0], y)
        rnn.cpu().to(DEVICE)
        torch.testing.assert_close(rnn(x)[0], y)
        assert lies(rnn)
        torch.save(rnn.state_dict(), tmp_path / "w.pt")
        other.load_state_dict(torch.load(tmp_path / "w.pt"))
        torch.testing.assert_close(other(x)[0], y)
