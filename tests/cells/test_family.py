"""Every cell of the family against its equations, written out again in another way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import relu, sigmoid, tanh

import elman
from elman import cells
from elman.engines import native

F64 = {"dtype": torch.float64}


def uniform(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, **F64).uniform_(-1.5, 1.5)


def mixed(cell: elman.Cell) -> elman.Cell:
    """The cell with every weight drawn anew: a start of zeros or ones would hide what it does."""
    for parameter in cell.parameters():
        torch.nn.init.uniform_(parameter, -0.9, 0.9)
    return cell


def drawn(cell: elman.Cell) -> list[torch.Tensor]:
    return [uniform(2, cell.input_size), *(uniform(2, size) for size in cell.state_sizes)]


# -- what every entry says of itself ------------------------------------------------------------


@pytest.mark.parametrize("name", list(cells.CELLS))
@pytest.mark.parametrize(("m", "h"), [(7, 5), (6, 6)])
def test_the_documented_count_is_the_count(name, m, h):
    cell = cells.make(name, m, h)
    own = vars(cell)
    letters = {
        "M": m, "H": h, "O": own.get("output_size"), "P": own.get("proj_size"),
        "K": own.get("delays", own.get("kernel_size")), "L": own.get("depth"),
        "Kx": own.get("input_delays"), "Ky": own.get("output_delays"),
    }  # fmt: skip
    formula = cells.find(name).count.split(", ")[0].replace("·", "*").replace("≠", "!=")
    assert eval(formula, letters) == sum(p.numel() for p in cell.parameters())


@pytest.mark.parametrize("name", list(cells.CELLS))
def test_every_cell_of_the_library_is_compiled(name):
    assert native.knows(cells.make(name, 3, 6))
    usual = "scan" if name in LINEAR else "native"
    assert elman.Recurrent(cells.make(name, 3, 6), 2).engine == usual


# -- simple -------------------------------------------------------------------------------------


def test_jordan(agree):
    cell = mixed(cells.Jordan(3, 4, "sigmoid", output_size=2, **F64))
    x, y = drawn(cell)
    h = sigmoid(x @ cell.weight_ih.T + y @ cell.weight_hh.T + cell.bias_ih)
    agree(cell(x, y), [sigmoid(h @ cell.weight_out.T + cell.bias_out)])


def test_identity_and_residual(agree):
    cell = mixed(cells.IdentityRNN(3, 4, **F64))
    x, h = drawn(cell)
    agree(cell(x, h), [h + sigmoid(x @ cell.weight_net.T + cell.bias_net)])
    cell = mixed(cells.ResidualRNN(3, 4, **F64))
    z = x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih
    agree(cell(x, h), [h + sigmoid(z)])


@pytest.mark.parametrize(("nonlinearity", "phi"), [("relu", relu), ("tanh", tanh)])
def test_independent_units_are_a_diagonal_elman(nonlinearity, phi, agree):
    cell = mixed(cells.IndRNN(3, 4, nonlinearity, **F64))
    x, h = drawn(cell)
    z = x @ cell.weight_net.T + h @ cell.weight_recurrent.diag() + cell.bias_net
    agree(cell(x, h), [phi(z)])


def test_identity_start(agree):
    cell = cells.IRNN(30, 20, scale=0.5, **F64)
    agree(cell.weight_hh, 0.5 * torch.eye(20, **F64))
    assert not cell.bias_ih.any()
    assert 0.0009 < cell.weight_ih.std() < 0.0011
    # A state that is positive stays as it is while nothing comes in: that is the point of it.
    h = torch.rand(2, 20, **F64)
    agree(cells.IRNN(30, 20, **F64)(torch.zeros(2, 30, **F64), h), [h])


def test_starts_of_the_papers():
    u = cells.IndRNN(3, 1000, recurrent_range=(0.5, 0.9)).weight_recurrent
    assert 0.5 <= u.min() < 0.51 < 0.89 < u.max() <= 0.9
    cell = cells.RecurrentHighway(3, 4, depth=3, transform_bias=-3.0)
    for k, name in enumerate(("bias_ih", "bias_deeper_0", "bias_deeper_1")):
        bias = getattr(cell, name)
        assert (bias[4:] == -3).all(), k
        assert (bias[:4] > -1).all()
    cells.RecurrentHighway(3, 4, biases=0)  # has none to set


# -- clockwork ----------------------------------------------------------------------------------


def test_clockwork_blocks_move_when_they_are_due():
    rnn = elman.Recurrent(mixed(cells.Clockwork(3, 6, periods=(1, 2, 4), **F64)))
    y, (_, t) = rnn(torch.randn(9, 2, 3, **F64))
    moved = torch.cat([torch.ones(1, 6), (y[1:] != y[:-1]).all(1).float()])
    for block, period in enumerate((1, 2, 4)):
        due = (torch.arange(9) % period == 0).float()
        for unit in (2 * block, 2 * block + 1):
            assert torch.equal(moved[:, unit], due), period
    assert (t == 9 % 4).all()


def test_clockwork_is_an_elman_where_all_are_due(agree):
    cell = mixed(cells.Clockwork(3, 6, periods=(1, 2, 4), **F64))
    x, h, _ = drawn(cell)
    mask = torch.ones(6, 6, **F64)
    mask[2:4, :2] = mask[4:, :4] = 0  # the slow ones do not hear the fast ones
    z = x @ cell.weight_ih.T + h @ (cell.weight_hh * mask).T + cell.bias_ih
    new, t = cell(x, h, torch.zeros(2, 1, **F64))
    agree(new, tanh(z))
    assert (t == 1).all()


def test_clockwork_learns_no_connection_that_is_not_there():
    rnn = elman.Recurrent(cells.Clockwork(3, 6, periods=(1, 2, 4), **F64))
    rnn(torch.randn(5, 2, 3, **F64))[0].square().sum().backward()
    assert not rnn.weight_hh_l0.grad[2:4, :2].any()
    assert rnn.weight_hh_l0.grad[:2, 2:].any()


def test_a_clock_counts_as_far_as_its_precision_goes():
    most = 2**23
    cell = cells.Clockwork(3, 4, periods=(1, most))
    h, last = torch.zeros(1, 4), torch.tensor([[most - 1.0]])
    new, t = cell(torch.ones(1, 3), h, last)
    assert (new[0, :2] != 0).all() and (new[0, 2:] == 0).all() and t == 0
    new, t = cell(torch.ones(1, 3), h, last - 1)
    assert (new[0, 2:] == 0).all() and t == most - 1


def test_a_reset_starts_the_clock_anew(agree):
    rnn = elman.Recurrent(cells.Clockwork(3, 6, periods=(1, 3), **F64))
    x, resets = torch.randn(5, 1, 3, **F64), torch.tensor([[0], [0], [1], [0], [0]]).bool()
    agree(rnn(x, resets=resets)[0][2:], rnn(x[2:])[0])


# -- gated --------------------------------------------------------------------------------------


def test_minimal_gated_unit(agree):
    cell = mixed(cells.MGU(3, 4, **F64))
    x, h = drawn(cell)
    u = sigmoid(x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih)
    n = tanh(
        x @ cell.weight_ih_candidate.T
        + (u * h) @ cell.weight_hh_candidate.T
        + cell.bias_ih_candidate
    )
    agree(cell(x, h), [h + u * (n - h)])
    with pytest.raises(elman.InputError, match="no block 'f'"):  # u erases: it is no forget gate
        elman.Recurrent(cell, forget_bias=1.0)


def test_lstms_with_fewer_gates(agree):
    for kind in (cells.LSTMWithoutForgetGate, cells.CoupledLSTM):
        cell = mixed(kind(3, 4, **F64))
        x, h, c = drawn(cell)
        i, g, o = (x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih).chunk(3, -1)
        keep = 1 if kind is cells.LSTMWithoutForgetGate else 1 - sigmoid(i)
        new = keep * c + sigmoid(i) * tanh(g)
        agree(cell(x, h, c), (sigmoid(o) * tanh(new), new))


@pytest.mark.parametrize("kind", [cells.PeepholeLSTM, cells.PreviousPeepholeLSTM])
def test_peepholes(kind, agree):
    cell = mixed(kind(3, 4, **F64))
    x, h, c = drawn(cell)
    i, f, g, o = (x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih).chunk(4, -1)
    v_i, v_f, v_o = cell.weight_peephole.chunk(3)
    new = sigmoid(f + v_f * c) * c + sigmoid(i + v_i * c) * tanh(g)
    seen = new if kind is cells.PeepholeLSTM else c
    agree(cell(x, h, c), (sigmoid(o + v_o * seen) * tanh(new), new))


def test_the_layer_normalised_lstm_is_the_transformed_one(agree):
    cell = mixed(cells.LayerNormLSTM(3, 4, **F64))
    other = cells.layer_norm(cells.LSTM(3, 4, **F64))
    assert type(other) is cells.LayerNormLSTM
    other.load_state_dict(cell.state_dict())
    x = drawn(cell)
    agree(cell(*x), other(*x), 0.0)
    assert {"weight_norm_ih_l0", "weight_norm_hh_l0"} < set(elman.Recurrent(cell).state_dict())


def test_multiplicative(agree):
    cell = mixed(cells.MultiplicativeRNN(3, 4, **F64))
    x, h = drawn(cell)
    m = (x @ cell.weight_read.T) * (h @ cell.weight_recall.T)
    agree(cell(x, h), [tanh(x @ cell.weight_ih.T + m @ cell.weight_hh.T + cell.bias_ih)])
    cell = mixed(cells.MultiplicativeLSTM(3, 4, **F64))
    x, h, c = drawn(cell)
    m = (x @ cell.weight_read.T) * (h @ cell.weight_recall.T)
    plain = cells.LSTM(3, 4, **F64)
    shared = plain.state_dict().keys()
    plain.load_state_dict({k: v for k, v in cell.state_dict().items() if k in shared})
    agree(cell(x, h, c), plain(x, m, c))


def test_recurrent_highway(agree):
    cell = mixed(cells.RecurrentHighway(3, 4, depth=3, **F64))
    x, h = drawn(cell)
    n, t = (x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih).chunk(2, -1)
    s = torch.lerp(h, tanh(n), sigmoid(t))
    for k in (0, 1):
        weight, bias = getattr(cell, f"weight_deeper_{k}"), getattr(cell, f"bias_deeper_{k}")
        n, t = (s @ weight.T + bias).chunk(2, -1)
        s = torch.lerp(s, tanh(n), sigmoid(t))
    agree(cell(x, h), [s])
    assert len(cells.RecurrentHighway(3, 4, depth=1).deeper) == 0


# -- made for parallel time ---------------------------------------------------------------------


LINEAR = [
    name for name, entry in cells.CELLS.items() if issubclass(entry.cell, cells.LinearRecurrence)
]


@pytest.mark.parametrize("name", LINEAR)
def test_linear_recurrences_in_closed_form(name, agree):
    """c_T = Σ_k a_T ⊙ … ⊙ a_{k+1} ⊙ b_k, with a and b of the whole input at once."""
    cell = mixed(cells.make(name, 3, 4, **F64))
    x = torch.randn(5, 2, 3, **F64)
    past = []
    if "past" in cell.state:
        past = [torch.cat([torch.zeros(1, 2, 3, **F64), x[:-1]])]
    a, b = cell.coefficients(x, *past)
    a = a.expand_as(b)
    c = []
    for t in range(5):
        total = b[t]
        for k in range(t):
            term = b[k]
            for j in range(k + 1, t + 1):
                term = cell.product(a[j], term)
            total = total + term
        c.append(total)
    memory = torch.stack(c)
    y, states = elman.Recurrent(cell)(x, return_states="all")
    agree(states[:, 0] if len(cell.state) == 1 else states[1][:, 0], memory)
    agree(y, cell.output(memory, x, *past))


def test_every_cell_for_parallel_time_is_linear_but_the_one_with_peepholes():
    family = [e.name for e in cells.CELLS.values() if e.family == "made for parallel time"]
    assert set(family) - set(LINEAR) == {"sru-peephole"}
    assert set(LINEAR) - set(family) == {"identity"}


@pytest.mark.parametrize("m", [3, 4])
def test_simple_recurrent_units(m, agree):
    """Where the input is as wide as the output it goes past the cell as it is."""
    cell = mixed(cells.SRU(m, 4, **F64))
    x, h, c = drawn(cell)
    assert hasattr(cell, "weight_bypass") == (m == 3)
    past = x @ cell.weight_bypass.T if m == 3 else x
    f = sigmoid(x @ cell.weight_forget.T + cell.bias_forget)
    r = sigmoid(x @ cell.weight_reset.T + cell.bias_reset)
    new = f * c + (1 - f) * (x @ cell.weight_value.T)
    agree(cell(x, h, c), (r * new + (1 - r) * past, new))

    cell = mixed(cells.PeepholeSRU(m, 4, **F64))
    past = x @ cell.weight_bypass.T if m == 3 else x
    f, r = (x @ cell.weight_gates.T + cell.bias_gates).chunk(2, -1)
    v_f, v_r = cell.weight_peephole.chunk(2)
    f, r = sigmoid(f + v_f * c), sigmoid(r + v_r * c)
    new = f * c + (1 - f) * (x @ cell.weight_value.T)
    agree(cell(x, h, c), (r * new + (1 - r) * past, new))


def test_quasi_recurrent_gates_are_convolutions(agree):
    cell = mixed(cells.QRNN(3, 4, kernel_size=3, **F64))
    x = torch.randn(6, 2, 3, **F64)

    def convolved(now, before, bias):
        kernel = torch.cat([before, now], 1).unflatten(1, (3, 3)).transpose(1, 2)
        padded = torch.nn.functional.pad(x.permute(1, 2, 0), (2, 0))
        return torch.nn.functional.conv1d(padded, kernel, bias).permute(2, 0, 1)

    z, f = convolved(cell.weight_memory, cell.weight_memory_past, cell.bias_memory).chunk(2, -1)
    o = convolved(cell.weight_reading, cell.weight_reading_past, cell.bias_reading)
    c, expected = torch.zeros(2, 4, **F64), []
    for t in range(6):
        c = sigmoid(f[t]) * c + (1 - sigmoid(f[t])) * tanh(z[t])
        expected.append(sigmoid(o[t]) * c)
    agree(elman.Recurrent(cell)(x)[0], torch.stack(expected))


def test_minimal_gru_and_lstm(agree):
    cell = mixed(cells.MinGRU(3, 4, **F64))
    x, h = drawn(cell)
    z, n = (x @ cell.weight_gates.T + cell.bias_gates).chunk(2, -1)
    agree(cell(x, h), [torch.lerp(h, n, sigmoid(z))])
    cell = mixed(cells.MinLSTM(3, 4, **F64))
    f, i, n = (x @ cell.weight_gates.T + cell.bias_gates).chunk(3, -1)
    total = sigmoid(f) + sigmoid(i)
    agree(cell(x, h), [sigmoid(f) / total * h + sigmoid(i) / total * n])
    # Both gates shut so far that σ is 0: their shares are still shares.
    shut = cells.MinLSTM(3, 4)
    for block in "fi":
        shut.fill_bias(block, -200.0)
    assert shut(torch.randn(2, 3), torch.randn(2, 4))[0].isfinite().all()


def test_linear_recurrent_unit_in_complex_numbers(agree):
    cell = mixed(cells.LRU(3, 4, **F64))
    x, h, c = drawn(cell)
    nu, theta, gamma = cell.weight_decay.chunk(3)
    eigenvalues = torch.exp(torch.complex(-nu.exp(), theta.exp()))
    drive = torch.complex(*(x @ cell.weight_drive.T).chunk(2, -1))
    new = eigenvalues * torch.complex(*c.chunk(2, -1)) + gamma.exp() * drive
    # Re(C c) with C = C_re + i C_im; the weight holds C_re and −C_im.
    read = torch.complex(cell.weight_read[:, :4], -cell.weight_read[:, 4:])
    y = (new @ read.T).real + x @ cell.weight_direct.T
    agree(cell(x, h, c), (y, torch.cat([new.real, new.imag], -1)))


def test_the_ring_of_the_linear_recurrent_unit():
    cell = cells.LRU(3, 2000, radius=(0.7, 0.9), phase=math.pi / 4)
    a, _ = cell.coefficients(torch.zeros(3))
    eigenvalues = torch.complex(*a.chunk(2, -1))
    assert 0.699 < eigenvalues.abs().min() < 0.71 < 0.89 < eigenvalues.abs().max() < 0.901
    assert 0 <= eigenvalues.angle().min() < 0.01 < 0.77 < eigenvalues.angle().max() < 0.786
    # γ keeps the size of the memory: white noise in, variance 1 out, whatever the radius.
    gamma = cell.decay.gamma.exp()
    torch.testing.assert_close(gamma**2 / (1 - eigenvalues.abs() ** 2), torch.ones(2000))
    for name in ("weight_decay", "weight_drive", "weight_read", "weight_direct"):
        assert getattr(cells.LRU(3, 4), name).isfinite().all()


# -- bad arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cells.Clockwork(2, 4, periods=()), ["periods", "positive integers", "()"]),
        (lambda: cells.Clockwork(2, 4, periods=(1, 0)), ["periods", "positive", "(1, 0)"]),
        (lambda: cells.Clockwork(2, 4, (65537, 65539)), ["periods", "8,388,608", "powers of two"]),
        (lambda: cells.Clockwork(2, 4, (1, 2048), dtype=torch.half), ["1,024 steps", "2048"]),
        (lambda: cells.Clockwork(2, 4, 5), ["periods", "list of positive integers", "received 5"]),
        (lambda: cells.Clockwork(2, 4, (1, "2")), ["periods", "positive integers", "'2'"]),
        (lambda: cells.Clockwork(2, 3), ["hidden_size", "at least 4", "received 3"]),
        (lambda: cells.IndRNN(2, 4, recurrent_range=(1, 0)), ["recurrent_range", "(1, 0)"]),
        (lambda: cells.RecurrentHighway(2, 4, depth=0), ["depth", "positive integer", "0"]),
        (lambda: cells.QRNN(2, 4, kernel_size=1), ["kernel_size", "at least 2", "1"]),
        (lambda: cells.LRU(2, 4, radius=(0.9, 0.5)), ["radius", "(0.9, 0.5)"]),
        (lambda: cells.LRU(2, 4, radius=0.9), ["radius", "two numbers", "received 0.9"]),
        (
            lambda: cells.IndRNN(2, 4, recurrent_range=0.9),
            ["recurrent_range", "two numbers", "0.9"],
        ),
        (lambda: cells.Jordan(2, 4, output_size=0), ["output_size", "positive integer", "0"]),
        (lambda: cells.NARX(1, 4, 0), ["output_size", "positive integer", "0"]),
        (lambda: cells.TDNN(2, 4, delays=0), ["delays", "positive integer", "0"]),
        (lambda: cells.NARX(2, 4, output_delays=-1), ["output_delays", "positive integer", "-1"]),
    ],
)
def test_bad_options(make, words):
    with pytest.raises(elman.InputError) as error:
        make()
    for word in words:
        assert word in str(error.value)
