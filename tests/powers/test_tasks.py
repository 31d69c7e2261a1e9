"""What the tests of power ask is what their papers ask; each can be run."""

from __future__ import annotations

import gzip
import random
import re

import pytest
import torch
from torch.nn.functional import layer_norm

from elman import cells
from elman.errors import ElmanError, InputError
from elman.powers import POWERS
from elman.powers.approximation import FUNCTIONS, fit
from elman.powers.dynamics import WARM, Dynamics
from elman.powers.echo import EchoState, free_run
from elman.powers.grammar import AnBn, AnBnCn, Reber, reber
from elman.powers.mnist import Block, PixelMNIST, Pyramid, read
from elman.powers.power import Batch, make_cell
from elman.powers.sequences import Adding, Copy, Multiplication, TemporalOrder, TwoSequence
from elman.training.report import Report


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(power, count=400, length=40, **given):
    return power(power.Settings(**given)).batch(drawn(), count, length)


@pytest.mark.parametrize("power", [Adding, Multiplication])
def test_two_marks_one_in_each_half(power):
    batch = batch_of(power)
    values, marks = batch.x.unbind(-1)
    assert batch.x.shape == (40, 400, 2)
    assert (marks[:20].sum(0) == 1).all() and (marks[20:].sum(0) == 1).all()
    assert values.min() >= 0 and values.max() <= 1 and abs(values.mean() - 0.5) < 0.01
    for k in range(400):
        first, second = (float(v) for v, m in zip(values[:, k], marks[:, k], strict=True) if m)
        expected = first + second if power is Adding else first * second
        assert float(batch.target[k]) == pytest.approx(expected, abs=1e-6)


def test_temporal_order():
    batch = batch_of(TemporalOrder, length=100)
    symbols = batch.x.argmax(-1)
    assert batch.x.sum(-1).eq(1).all()
    assert (symbols[0] == 6).all() and (symbols[-1] == 7).all()
    for k in range(400):
        places = [t for t in range(1, 99) if symbols[t, k] in (4, 5)]
        assert len(places) == 2 and 10 <= places[0] < 20 and 50 <= places[1] < 60
        first, second = (int(symbols[t, k]) - 4 for t in places)
        assert int(batch.target[k]) == 2 * first + second
    assert set(batch.target.tolist()) == {0, 1, 2, 3}


def test_copy():
    batch = batch_of(Copy, length=30)
    symbols = batch.x.argmax(-1)
    assert symbols.shape == (50, 400)
    assert torch.equal(symbols[:10], batch.target)
    assert (symbols[10:39] == 8).all() and (symbols[39] == 9).all() and (symbols[40:] == 8).all()


def test_two_sequences():
    for noise in ("distractors", "inputs", "targets"):
        batch = batch_of(TwoSequence, 4000, 40, noise=noise)
        x, label = batch.x[..., 0], (batch.x[:3, :, 0].sum(0) > 0).float()
        assert (batch.lengths >= 40).all() and (batch.lengths <= 44).all()
        assert abs(float(x[3:].var()) - 0.2) < 0.01
        if noise == "distractors":
            assert torch.equal(x[:3], (2 * label - 1).expand(3, -1))
        else:
            assert abs(float((x[0] - (2 * label - 1)).std()) - 0.2**0.5) < 0.03
        off = batch.target - (0.2 + 0.6 * label if noise == "targets" else label)
        assert float(off.std()) == pytest.approx(0.32 if noise == "targets" else 0.0, abs=0.04)


def test_reber_strings_are_of_the_grammar():
    # The same grammar as an expression: p and q are its two inner states with a loop.
    q = "T*V(?:PXT*V)*(?:V|PS)"
    inner = re.compile(f"B(?:TS*X(?:S|X{q})|P{q})E")
    seen = set()
    for k in range(200):
        text, legal = reber(random.Random(k))
        assert len(legal) == len(text) - 1
        assert all(after in allowed for after, allowed in zip(text[1:], legal, strict=True))
        assert text[0] == "B" and text[-1] == "E" and text[1] == text[-2] and text[1] in "TP"
        assert inner.fullmatch(text[2:-2])
        seen |= {(text[1], len(text))}
    assert {outer for outer, _ in seen} == {"T", "P"} and len({n for _, n in seen}) > 5


def test_reber_batches_are_padded():
    batch = Reber(Reber.Settings()).batch(drawn(), 8, 1)
    for k, length in enumerate(batch.lengths.tolist()):
        assert (batch.target[:length, k] >= 0).all() and (batch.target[length:, k] == -1).all()


@pytest.mark.parametrize(("power", "letters"), [(AnBn, "ab"), (AnBnCn, "abc")])
def test_counting_strings(power, letters):
    text, legal = power(power.Settings()).string(3)
    assert text == "S" + "".join(letter * 3 for letter in letters) + "T"
    after_a, after_b = [{"a", "b"}] * 3, [{"b"}] * 2
    if power is AnBn:
        assert legal == [{"a"}, *after_a, *after_b, {"T"}]
    else:
        assert legal == [{"a"}, *after_a, *after_b, *[{"c"}] * 3, {"T"}]


def test_counting_draws_every_n_and_judges_exactly():
    power = AnBn(AnBn.Settings(length=4))
    batch = power.batch(drawn(), 200, 4)
    assert {int(n) for n in batch.lengths} == {3, 5, 7, 9}

    class Oracle(torch.nn.Module):
        """Right up to n = 70, and wrong at one symbol of n = 71."""

        def forward(self, batch):
            y = batch.target * 2 - 1
            for k, length in enumerate(batch.lengths.tolist()):
                if length == 2 * 71 + 1:
                    y[length - 1, k, 0] = 1.0
            return y

    assert power.right_up_to(Oracle(), 60) == 60
    assert power.right_up_to(Oracle(), 200) == 70
    assert power.figure(Oracle(), drawn()) == 70
    # What training sees and what its checks see is n ≤ length; no score there ends it early.
    assert power.check(Oracle(), drawn()) == 4 < power.goal
    assert float(power.loss(Oracle(), batch)) == 0
    one_wrong = float(power.loss(Oracle(), power.strings([70, 71])))
    assert one_wrong == pytest.approx(2**2 / (4 * (141 + 143)))


def test_gates_start_for_long_memories():
    settings = Adding.Settings(memory=100, hidden=500)
    cell = make_cell(settings, 2)
    blocks = dict(zip("ifgo", cell.get_parameter("bias_ih").view(4, -1), strict=True))
    assert torch.equal(blocks["i"], -blocks["f"])
    assert blocks["f"].min() >= 0 and 99 * 0.9 < blocks["f"].exp().max() <= 99.01
    ring = make_cell(Copy.Settings(memory=100), 10)
    nu = ring.get_parameter("weight_decay").view(3, -1)[0]
    radius = torch.exp(-torch.exp(nu))
    assert (radius >= 0.9899).all() and (radius <= 1).all()
    gru = make_cell(AnBn.Settings(cell="gru", forget_bias=6.0), 4)
    assert (gru.get_parameter("bias_ih").view(3, -1)[1] == 6).all()
    make_cell(AnBn.Settings(cell="rnn"), 4)  # has no gate: nothing to set


TINY = {"hidden": 4, "updates": 6, "batch": 4, "every": 3, "seeds": 2}


TRAINED = ["reber", "two-sequence", "adding", "multiplication", "temporal-order", "copy"]
TRAINED += ["anbn", "anbncn"]


@pytest.mark.parametrize("name", TRAINED)
def test_every_training_runs(name, tmp_path):
    cell = "gru" if name == "anbncn" else "lstm"  # states and cell states
    power = POWERS[name](POWERS[name].Settings(**TINY, cell=cell, length=10))
    with Report() as report:
        outcome = power.run(report)
    assert [row["seed"] for row in outcome.rows] == [0, 1]
    assert [point[0] for point in outcome.details["curves"][0]] == [3, 6]
    assert not any(row["reached"] for row in outcome.rows)
    power.draw(outcome, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_training_ends_at_the_goal_and_is_the_same_for_the_same_seed():
    settings = Copy.Settings(length=5, hidden=64, updates=400, seeds=1)
    outcomes = []
    for _ in range(2):
        with Report() as report:
            outcomes.append(Copy(settings).run(report))
    (row,) = outcomes[0].rows
    assert row["reached"] and row["figure"] >= 0.99 and row["updates"] < 400
    assert outcomes[0].details["curves"] == outcomes[1].details["curves"]


def test_echo_state_has_its_radius_and_fits_a_wave():
    torch.manual_seed(0)
    wave = torch.sin(0.2 * torch.arange(1200, dtype=torch.float64)).view(-1, 1, 1)
    echo = EchoState(1, 100, radius=0.8).fit(wave[:1000, 0])
    largest = (
        torch.linalg.eigvals(echo.recurrent.get_parameter("weight_hh_l0").detach()).abs().max()
    )
    assert float(largest) == pytest.approx(0.8, rel=1e-6)
    ahead = free_run(echo.recurrent, echo.readout, wave[900:1000], 100)
    assert float((ahead - wave[1000:1100]).abs().max()) < 1e-3
    with pytest.raises(InputError, match="radius must be positive"):
        EchoState(1, radius=0.0)


@pytest.mark.parametrize("system", ["mackey-glass", "lorenz"])
def test_dynamics_beside_its_baselines(system, tmp_path, monkeypatch):
    monkeypatch.setattr("elman.powers.dynamics.TRAINED", 3000)
    monkeypatch.setattr("elman.powers.dynamics.STARTS", 4)
    settings = Dynamics.Settings(
        system=system, hidden=8, updates=4, every=2, batch=2, length=30, reservoir=400, order=20,
        seeds=1,
    )  # fmt: skip
    power = Dynamics(settings)
    with Report() as report:
        outcome = power.run(report)
    errors = {row["model"]: row[f"error at {power.horizons[0]}"] for row in outcome.rows}
    assert errors["echo state"] < errors["linear"] < 5
    assert errors["echo state"] < 0.3
    # The read-out is the best for the trained states: what it leaves is orthogonal to them.
    network = power._fitted(power.network)
    wanted = (power.train[1:] - power.train[:-1]) / power.step
    with torch.no_grad():
        states = network.recurrent(power.train[:-1])[0]
        left = (network.readout(states) - wanted)[WARM:]
    assert float((states[WARM:].t() @ left).abs().max()) < 1e-6 * len(left)
    power.draw(outcome, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_wider_layers_approximate_better():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    y = FUNCTIONS["wave"](x)
    narrow, wide = (float((fit(x, y, n, 60, 0)(x).detach() - y).square().mean()) for n in (1, 12))
    assert wide < 1e-3 < 0.1 < narrow


def test_a_block_hears_what_lies_between_its_strides():
    torch.manual_seed(0)
    x = torch.randn(25, 1, 1, requires_grad=True)
    y = Block(cells.LRU(5, 6), 2)(Block(cells.LRU(1, 5), 4)(x))
    assert y.shape == (3, 1, 6)
    (heard,) = torch.autograd.grad(y[1].sum(), x)
    assert (heard[:16] != 0).all() and (heard[16:] == 0).all()


def test_a_block_adds_to_what_it_reads():
    block = Block(cells.GRU(4, 4), 3)
    with torch.no_grad():
        block.gate.weight.zero_()
        block.gate.bias.fill_(-1e4)  # closed
    x = torch.randn(7, 2, 4)
    assert torch.equal(block(x), x[[2, 5]])


def test_a_pyramid_reads_the_mean_of_what_is_left():
    sizes = [5, 4, 4]
    pyramid = Pyramid(cells.GRU, 1, 3, sizes, [4, 2]).eval()
    assert [block.recurrent.hidden_size for block in pyramid.blocks] == sizes
    assert [block.stride for block in pyramid.blocks] == [4, 2, 1]
    x = torch.randn(24, 2, 1)
    h = x
    for block in pyramid.blocks:
        h = block(h)
    assert h.shape == (3, 2, 4)
    y = pyramid(Batch(x, torch.empty(0)))
    torch.testing.assert_close(y, pyramid.readout(layer_norm(h.mean(0), (4,))))
    with pytest.raises(InputError, match="strides must be at most 3, one a layer"):
        Pyramid(cells.GRU, 1, 3, sizes, [4, 2, 2, 2])


def test_mnist_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path))
    with pytest.raises(ElmanError, match="put MNIST's four files there"):
        read("t10k", torch.arange(784))
    (tmp_path / "mnist").mkdir()
    images = torch.randint(256, (2, 784), dtype=torch.uint8)
    files = {"images-idx3": bytes(16) + bytes(images.flatten().tolist()), "labels-idx1": bytes(8)}
    for labels in (b"\x07\x01", b"\x07"):
        for kind, content in files.items():
            whole = content + labels if kind == "labels-idx1" else content
            (tmp_path / "mnist" / f"t10k-{kind}-ubyte.gz").write_bytes(gzip.compress(whole))
        if len(labels) == 2:
            order = torch.randperm(784)
            got, digits = read("t10k", order)
            assert torch.equal(got, images[:, order]) and digits.tolist() == [7, 1]
        else:
            with pytest.raises(ElmanError, match="not MNIST"):
                read("t10k", torch.arange(784))


@pytest.mark.parametrize("plain", [False, True])
def test_pixel_mnist_learns_and_judges(plain, tmp_path, monkeypatch):
    """Digits that a 28 × 28 picture of one grey tells apart are told apart."""
    monkeypatch.setenv("ELMAN_DATA", str(tmp_path))
    monkeypatch.setattr("elman.powers.mnist.HELD_OUT", 20)
    (tmp_path / "mnist").mkdir()
    for part, count in (("train", 80), ("t10k", 30)):
        labels = torch.arange(count, dtype=torch.uint8) % 2
        images = (labels * 200).unsqueeze(1).expand(-1, 784)
        for kind, head, content in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            whole = bytes(head) + bytes(content.flatten().tolist())
            (tmp_path / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(whole))
    settings = PixelMNIST.Settings(
        cell="lru", hidden=4, layers=2, strides=[8, 4], permuted=True, plain=plain, length=64,
        updates=40, every=20, batch=8, learning_rate=0.02,
    )  # fmt: skip
    power = PixelMNIST(settings)
    with Report() as report:
        (row,) = power.run(report).rows
    assert row["figure"] == 1.0 and row["reached"] and power.network.training
    with pytest.raises(InputError, match="leave nothing of 31 pixels"):
        PixelMNIST(PixelMNIST.Settings(layers=2, strides=[8, 4], length=31))


@pytest.mark.parametrize(("name", "length"), [("adding", 1), ("temporal-order", 7)])
def test_sequences_that_are_too_short_are_refused(name, length):
    power = POWERS[name]
    with pytest.raises(InputError, match=f"at least, received `length` {length}"):
        power(power.Settings(length=length))
    power(power.Settings(length=length + 1)).batch(torch.Generator(), 3, length + 1)
