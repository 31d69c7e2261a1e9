"""The benchmark: its rows, and that both sides of every comparison do the same."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import elman
from elman import bench
from elman.bench import Comparison, Measurement, Shape, jobs, workloads
from elman.bench.networks import check_agreement
from elman.bench.timing import Timing, interleaved
from elman.plots.ratios import draw_ratios
from elman.training.settings import read_recipe

SHAPE = (3, 4, 1, 2, 3)
OF_PEER = {"onnxruntime": ("forward", "step"), "jax": ("train", "forward")}


def measured(*names, threads=None):
    return list(bench.measure(bench.comparisons(*names), 0.01, threads))


@pytest.fixture(scope="module")
def rows():
    """Two shapes and two numbers of threads, invented: no two of the figures are the same."""
    return [
        dataclasses.replace(
            Measurement.of(
                Comparison("train", "lstm", Shape(28, hidden, 2, 32, 35), "torch.nn"),
                Timing(0.01 * threads, 0.1), Timing(0.02 + hidden / 1e4, 0.3), 2.0, 250.0,
            ),
            threads=threads,
        )
        for hidden in (64, 128)
        for threads in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("workload", ["train", "fit", "forward", "step"])
def test_every_cell_has_a_row_for_every_workload(workload):
    found = measured((workload,), tuple(bench.CELLS), [SHAPE], ("torch.nn", "loop"))
    assert [(r.cell, r.peer) for r in found] == [
        (cell, peer) for cell in bench.CELLS for peer in ("torch.nn", "loop")
    ]
    for r in found:
        assert r.workload == workload
        assert r.shape == ((3, 4, 1, 1, 1) if workload == "step" else SHAPE)
        assert r.ratio == pytest.approx(r.peer_ms / r.elman_ms)
        assert 0 < r.share < 100
        assert r.elman_spread >= 0 and r.peer_spread >= 0
        assert r.threads == torch.get_num_threads()


@pytest.mark.parametrize("peer", OF_PEER)
def test_other_libraries_compute_the_same(peer):
    if workloads.missing_packages(peer):
        pytest.skip(f"{peer} is not installed")
    # Two layers, whose weights must not be confused; both sides are compared before they are timed.
    found = measured(OF_PEER[peer], ("lstm", "gru", "rnn"), [(3, 4, 2, 2, 5)], (peer,))
    assert [(r.workload, r.cell) for r in found] == [
        (workload, cell) for workload in OF_PEER[peer] for cell in ("lstm", "gru", "rnn")
    ]
    assert all(r.peer_ms > 0 for r in found)


def test_a_peer_that_is_not_installed_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(workloads.PACKAGES, "jax", ("no_such_package",))
    with pytest.raises(elman.InputError, match="pip install no_such_package"):
        bench.comparisons(peers=("jax",))
    assert workloads.missing_packages("jax") == ["no_such_package"]


def test_sides_that_differ_are_refused():
    y = torch.ones(3)
    check_agreement(lambda: y, lambda: y + 1e-6, "a test")
    for other in (y + 1e-3, y * math.nan):
        with pytest.raises(elman.ElmanError, match="do not compute the same"):
            check_agreement(lambda: y, lambda other=other: other, "a test")


def test_transforms_stand_beside_the_plain_cell():
    found = measured(("transforms",), ("gru", "lstm"), [SHAPE])
    assert [r.cell for r in found] == [
        f"{cell}+{name}" for cell in ("gru", "lstm") for name in workloads.TRANSFORMS
    ]
    assert {r.peer for r in found} == {"plain cell"}
    assert found[0].peer_ms == found[1].peer_ms  # one measurement of the plain cell


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_jobs_count_tokens(cell):
    """The main job checks both losses, writing both texts, before it measures."""
    job, writing = measured(("main-job", "generate"), (cell,), [(28, 8, 1, 40, 20)])
    assert job.shape == (28, 8, 1, 40, 20) and writing.shape == (28, 8, 1, 1, 1)
    # A character takes more than a microsecond and less than a second.
    assert 1e-3 < writing.elman_ms < 1e3 and 1e-3 < job.elman_ms / (40 * 20) * 1e3 < 1e3


def test_the_main_job_is_the_recipe():
    recipe = read_recipe(Path(__file__).parents[2] / "benchmarks/recipes/time-machine.toml")
    assert recipe.pop("data") == ["time-machine"]
    ours = jobs.settings("lstm", workloads.TEXTBOOK)
    assert ours == type(ours).of(recipe)


def test_memory_of_a_step_is_that_of_its_tensors():
    (found,) = measured(("memory",), ("gru",), [(64, 128, 1, 64, 64)])
    sequence = 64 * 64 * 128 * 4  # one number a unit and step
    assert 3 * sequence < found.elman_bytes < 40 * sequence
    assert 3 * sequence < found.peer_bytes < 40 * sequence
    assert found.ratio == pytest.approx(found.peer_bytes / found.elman_bytes)
    assert found.elman_ms is None and "MB" in bench.table([found])


def test_compiling_is_faster_from_the_cache():
    found = measured(("compile",), ("peephole",), [(3, 4, 1, 2, 3)])
    assert [r.workload for r in found] == ["compile-engine", "compile", "compile-cached"]
    cold, cached = found[1:]
    assert cold.elman_ms > cached.elman_ms > 0
    assert cold.ratio is None and cold.peer == ""


def test_calls_are_taken_in_turns():
    taken = []
    interleaved([lambda: taken.append("a"), lambda: taken.append("b")], 1e-6)
    assert "".join(taken[-6:]) == "ababab"
    assert Timing.of([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, pytest.approx(2 / 3))


def test_threads_are_set_and_put_back():
    before = torch.get_num_threads()
    found = measured(("forward",), ("rnn",), [SHAPE], threads=(1, 2))
    assert [r.threads for r in found] == [1, 2]
    assert torch.get_num_threads() == before


def test_the_table_ends_with_means(rows):
    lines = bench.table(rows).splitlines()
    assert len(lines) == 2 + 4 + 2
    ratios = [r.ratio for r in rows if r.threads == 2]
    assert f"{math.sqrt(math.prod(ratios)):.2f}" in lines[-1]
    assert "± 30%" in lines[2] and "± 10%" not in lines[2]  # the peer's spread is noise
    assert "80%" in lines[2]  # 2 GFLOP in 10 ms, of 250


def test_the_plot_is_written(rows, tmp_path):
    single = dataclasses.replace(rows[0], workload="step")
    draw_ratios([*rows, single], tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").stat().st_size > 1000
    with pytest.raises(elman.InputError, match="nothing to draw"):
        draw_ratios([dataclasses.replace(single, ratio=None)], tmp_path / "none.png")


def test_targets_are_judged_by_their_rows(rows):
    verdicts = {(v.target, v.threads): v for v in bench.judge(rows)}
    fast, slow = (verdicts["LSTM training, beside torch.nn", n] for n in (1, 2))
    assert fast.met and not slow.met  # the ratios are 2.64, 3.28 and half of each
    assert "2.94" in fast.reached and "1.32" in slow.reached
    assert verdicts["generation, beside torch.nn", 0].met is None
    assert "**no**" in bench.summary([slow])
    built = dataclasses.replace(rows[0], workload="compile", cell="lem", elman_ms=6e3, ratio=None)
    verdicts = {v.target: v.met for v in bench.judge([built])}
    assert verdicts["a new cell compiled"] is False


def test_everything_is_measured_that_a_target_is_about():
    asked = {(c.workload, c.cell, c.peer) for c in bench.all_comparisons()}
    for target in bench.TARGETS:
        if workloads.missing_packages(target.peer):
            continue
        workload = target.workload.removesuffix("-cached")
        for cell in target.cells:
            assert (workload, cell.partition("+")[0], target.peer) in asked, target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": ("lsmt",)}, "unknown cell 'lsmt'"),
        ({"workloads": ("trian",)}, "unknown workload 'trian'"),
        ({"peers": ("tensorflow",)}, "unknown peer 'tensorflow'"),
        ({"workloads": ("generate",), "peers": ("loop",)}, "nothing can be compared with loop"),
        ({"workloads": ("main-job",), "cells": ("lem",)}, "nothing can be compared"),
        ({"shapes": [(3, 4, 0, 2, 3)]}, "five positive numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, message):
    with pytest.raises(elman.InputError, match=message):
        bench.comparisons(**options)


@pytest.mark.parametrize(
    ("options", "message"), [({"seconds": 0}, "above 0"), ({"threads": [0]}, "at least 1")]
)
def test_measuring_needs_time_and_threads(options, message):
    with pytest.raises(elman.InputError, match=message):
        list(bench.measure([], **options))


def test_a_profile_accounts_for_the_time():
    (found,) = bench.profile(bench.comparisons(cells=("gru",), shapes=[(28, 64, 1, 16, 20)]))
    assert sum(found.kinds.values()) == pytest.approx(found.ms, rel=0.2)
    assert found.kinds["loops"] > 0 and found.kinds["products"] > 0
    assert "elman::steps" in str(found)
    with pytest.raises(elman.InputError, match="memory cannot be profiled"):
        list(bench.profile(bench.comparisons(("memory",))))


def test_the_machine_is_named():
    named = {"date", "processor", "cores", "threads", "precision", "torch", "compiler"}
    assert named <= set(bench.machine())
