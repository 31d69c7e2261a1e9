"""Steps that are recorded and replayed: the same numbers, whatever happens between them.

The CPU records no graphs. Here, what is recorded is done again at each replay, in its own memory.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
import torch

import elman
from elman import nested
from elman.cells.registry import make
from elman.errors import EngineWarning, InputError
from elman.layers import replay

CELLS = {
    "lstm": lambda **how: elman.LSTM(5, 7, 2, **how),
    "gru": lambda **how: elman.GRU(5, 7, **how),
    "own": lambda **how: elman.Recurrent(make("lstm-peephole", 5, 7), layers=2, **how),
    "widths": lambda **how: elman.Recurrent(
        elman.cells.LSTM(5, 7), hidden_sizes=[7, 4], **how
    ),
}  # fmt: skip


@pytest.fixture
def replays(monkeypatch):
    """Let the CPU record; what was recorded and replayed."""
    seen = []

    def captured(device, work):
        into = []

        def record():
            work()
            into[:] = [cell.cell_contents for cell in work.__closure__ if isinstance(
                cell.cell_contents, list)]  # fmt: skip

        record()
        (made,) = into
        out = made[0]
        seen.append("recorded")

        def again():
            seen.append("replayed")
            work()
            out.copy_(made[0])  # a graph writes where it wrote before

        return again

    monkeypatch.setattr(replay, "_DEVICES", ("cpu",))
    monkeypatch.setattr(replay, "_captured", captured)
    return seen


def by_cells(network, x, state):
    """A step as it is with a gradient, by no graph."""
    with torch.enable_grad():
        y, new = network.step(x, state)
    return y.detach(), nested.map(torch.detach, new)


def same(found, expected):
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(nested.leaves(found[1]), nested.leaves(expected[1]))
    assert nested.map(lambda t: t.shape, found[1]) == nested.map(lambda t: t.shape, expected[1])


@pytest.mark.parametrize("rows", [3, None])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_stream_is_the_same(replays, name, batch_first, rows):
    network = CELLS[name](batch_first=batch_first)
    x = torch.randn(8, *(() if rows is None else (rows,)), 5)
    state = given = network.initial_state(rows)
    for t in range(8):
        with torch.no_grad():
            found = network.step(x[t], state)
        same(found, by_cells(network, x[t], given))
        state = given = found[1]
    assert replays == ["recorded", *["replayed"] * 7]


def test_what_is_handed_out_stays_and_what_is_changed_is_read(replays):
    network = CELLS["lstm"]()
    with torch.no_grad():
        state = network.initial_state(3)
        kept = []
        for _ in range(6):
            x = torch.randn(3, 5)
            y, state = network.step(x, state)
            kept.append((y, y.clone(), state, nested.map(torch.clone, state)))
        for y, y_then, s, s_then in kept:
            torch.testing.assert_close(y, y_then, rtol=0, atol=0)
            torch.testing.assert_close(s, s_then, rtol=0, atol=0)
        state[0].data[:, 1] = 0  # as nobody counts it
        y.zero_()
        same(network.step(x, state), by_cells(network, x, state))
        early = kept[1][2]
        same(network.step(x, early), by_cells(network, x, early))
        resets = torch.tensor([True, False, True])
        found = network.step(x, state, resets=resets)
        again = nested.map(lambda s: s.masked_fill(resets.unsqueeze(-1), 0), state)
        same(found, by_cells(network, x, again))
    assert replays.count("recorded") == 1


def test_weights_that_change_are_read_and_those_that_move_are_recorded_anew(replays):
    network = CELLS["lstm"]()
    with torch.no_grad():
        state, x = network.initial_state(2), torch.randn(2, 5)
        for _ in range(3):
            network.step(x, state)
        network.weight_hh_l0.mul_(3)
        same(network.step(x, state), by_cells(network, x, state))
        assert replays.count("recorded") == 1
        network.weight_hh_l0.data = network.weight_hh_l0 * 2
        for _ in range(3):
            same(network.step(x, state), by_cells(network, x, state))
        assert replays.count("recorded") == 2


def test_a_first_step_that_moves_the_weights_leaves_no_graph_behind(replays, monkeypatch):
    """As cuDNN's first call does, after a graph of other shapes was recorded."""
    network = CELLS["lstm"]()
    run, moved = replay._run, []
    one, two = torch.randn(1, 5), torch.randn(2, 5)

    def moves(network, x, state):
        found = run(network, x, state)
        if len(x) == 2 and not moved:
            moved.append(network.weight_hh_l0.data)  # which stays, so that nobody else lies there
            network.weight_hh_l0.data = 2 * moved[0]
        return found

    monkeypatch.setattr(replay, "_run", moves)
    with torch.no_grad():
        for x in (one, one, two, one, one, one):
            state = nested.map(torch.ones_like, network.initial_state(len(x)))
            found = network.step(x, state)
            if x is one:
                same(found, by_cells(network, x, state))
    assert replays.count("recorded") == 2


def test_an_option_that_changes_is_recorded_anew(replays):
    network = elman.RNN(5, 7, nonlinearity="tanh")
    with torch.no_grad():
        state, x = network.initial_state(2), torch.randn(2, 5)
        for _ in range(3):
            network.step(x, state)
        network.cells[0].nonlinearity = "relu"
        for _ in range(3):
            same(network.step(x, state), by_cells(network, x, state))
    assert replays.count("recorded") == 2


def test_inference_mode_and_its_end(replays):
    network = CELLS["gru"]()
    x = torch.randn(2, 5)
    with torch.inference_mode():
        state = network.initial_state(2)
        for _ in range(3):
            _, state = network.step(x, state)
    with torch.no_grad():
        for _ in range(3):
            same(network.step(x, state), by_cells(network, x, nested.map(torch.clone, state)))
    assert replays.count("recorded") == 1


@pytest.mark.parametrize(
    "how",
    ["gradient", "training", "reference", "parametrized", "bidirectional", "no state", "autocast"],
)
def test_what_is_not_recorded(replays, how):
    network = elman.LSTM(5, 7, 2, dropout=0.5 if how == "training" else 0.0)
    if how == "parametrized":
        torch.nn.utils.parametrizations.weight_norm(network, "weight_hh_l0")
    if how == "bidirectional":
        with torch.no_grad(), pytest.raises(InputError, match="bidirectional"):
            both = elman.LSTM(5, 7, bidirectional=True)
            both.step(torch.randn(2, 5), both.initial_state(2))
        return
    state = None if how == "no state" else network.initial_state(2)
    with torch.set_grad_enabled(how == "gradient"):
        for _ in range(3):
            if how == "autocast":
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    network.step(torch.randn(2, 5), state)
            elif how == "reference":
                with elman.engine("reference"):
                    network.step(torch.randn(2, 5), state)
            else:
                network.step(torch.randn(2, 5), state)
    assert not replays


def test_what_cannot_be_recorded_is_said_once(replays, monkeypatch):
    def fails(device, work):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "_captured", fails)
    network = CELLS["lstm"]()
    x, state = torch.randn(2, 5), network.initial_state(2)
    with torch.no_grad():
        network.step(x, state)
        with pytest.warns(EngineWarning, match="stream is capturing"):
            found = network.step(x, state)
        same(found, by_cells(network, x, state))
        same(network.step(x, state), by_cells(network, x, state))


def test_weights_that_move_all_the_time_are_left(replays):
    network = CELLS["lstm"]()
    x, state = torch.randn(2, 5), network.initial_state(2)
    kept, said = [], pytest.warns(EngineWarning, match="changed 8 times")
    with torch.no_grad():
        for _ in range(20):
            kept.append(network.weight_hh_l0.data)
            network.weight_hh_l0.data = kept[-1].clone()
            with said if len(kept) == replay._AGAIN + 1 else nullcontext():
                same(network.step(x, state), by_cells(network, x, state))
    assert not replays


def test_shapes_that_are_too_many_are_said_once(replays, monkeypatch):
    monkeypatch.setattr(replay, "_MOST", 2)
    network = CELLS["lstm"]()
    with torch.no_grad():
        for rows in (1, 1, 2, 2):
            network.step(torch.randn(rows, 5), network.initial_state(rows))
        for rows, told in ((3, True), (3, False), (4, False), (1, False)):
            x, state = torch.randn(rows, 5), network.initial_state(rows)
            with pytest.warns(EngineWarning, match="only 2 shapes") if told else nullcontext():
                same(network.step(x, state), by_cells(network, x, state))
    assert replays == ["recorded", "replayed"] * 2 + ["replayed"]


def test_a_shape_that_cannot_be_recorded_leaves_the_others(replays, monkeypatch):
    captured = replay._captured

    def fails(device, work):
        if not replays:
            replays.append("failed")
            raise RuntimeError("out of memory")
        return captured(device, work)

    monkeypatch.setattr(replay, "_captured", fails)
    network = CELLS["lstm"]()
    with torch.no_grad():
        for k, rows in enumerate((1, 1, 1, 2, 2, 1)):
            x, state = torch.randn(rows, 5), network.initial_state(rows)
            with pytest.warns(EngineWarning, match="out of mem") if k == 1 else nullcontext():
                same(network.step(x, state), by_cells(network, x, state))
    assert replays == ["failed", "recorded", "replayed"]


def test_a_precision_that_changes_is_recorded_anew(replays):
    network, switch = CELLS["lstm"](), torch.backends.cudnn.rnn
    before = switch.fp32_precision
    x, state = torch.randn(2, 5), network.initial_state(2)
    with torch.no_grad():
        try:
            for precision in ("tf32", "ieee"):
                switch.fp32_precision = precision
                for _ in range(3):
                    network.step(x, state)
        finally:
            switch.fp32_precision = before
    assert replays.count("recorded") == 2


def test_threads_do_not_meet_in_a_graph(replays):
    network = CELLS["lstm"]()
    x, state = torch.randn(3, 2, 5), network.initial_state(2)
    wrong = []

    def run(k):
        with torch.no_grad():
            expected = by_cells(network, x[k], state)[0]
            for _ in range(50):
                if not torch.allclose(network.step(x[k], state)[0], expected, atol=1e-6):
                    wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_wrong_shapes_are_told_as_ever(replays):
    network = CELLS["lstm"]()
    with torch.no_grad():
        with pytest.raises(InputError, match="step expects x"):
            network.step(torch.randn(2, 6), network.initial_state(2))
        with pytest.raises(InputError, match="the state h must"):
            network.step(torch.randn(2, 5), network.initial_state(3))
