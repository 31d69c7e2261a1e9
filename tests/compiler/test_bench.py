"""The benchmark: its rows and what is made of them."""

import math

import pytest

import elman
from elman.compiler import bench

SHAPE = (3, 4, 1, 2, 3)


@pytest.fixture(scope="module")
def rows():
    return [
        *bench.bench(bench.WORKS, ("lstm", "gru", "rnn", "peephole"), [SHAPE], seconds=0.01),
        *bench.bench(("train",), ("gru",), [SHAPE], ("loop",), seconds=0.01),
    ]


def test_every_pair_has_a_row(rows):
    assert len(rows) == 13
    for row in rows:
        assert row.ratio == pytest.approx(row.peer_ms / row.elman_ms)
        assert row.gflops > 0 and row.gemm_gflops > 0
    assert (rows[-1].peer, rows[-1].cell) == ("loop", "gru")
    assert bench.as_json(rows)[0]["work"] == "train"


def test_the_table_ends_with_means(rows):
    train = [r for r in rows if r.work == "train" and r.cell == "lstm"]
    lines = bench.table(train * 2).splitlines()
    assert len(lines) == 2 + 2 + 1
    assert f"{train[0].ratio:.2f}" in lines[-1]
    assert math.isclose(bench.geometric_mean(train * 2), train[0].ratio)


def test_the_plot_is_written(rows, tmp_path):
    bench.plot(rows, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_unknown_names_are_refused():
    with pytest.raises(elman.InputError, match="unknown cell 'lsmt'"):
        list(bench.bench(cells=("lsmt",)))


def test_the_machine_is_named():
    assert {"date", "processor", "threads", "torch", "compiler"} <= set(bench.machine())
