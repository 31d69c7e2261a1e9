"""The command ``elman bench``."""

import json

import pytest

from elman import cli

TINY = ("--cells", "gru", "--shapes", "3:4:1:2:3", "--seconds", "0.01")


@pytest.fixture
def elman(capsys):
    def run(*arguments):
        code = cli.run(["bench", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_rows_go_to_a_table_a_file_and_a_plot(elman, tmp_path):
    out, plot = tmp_path / "rows.json", tmp_path / "rows.png"
    code, shown, told = elman(*TINY, "--workloads", "train,step", "--out", out, "--plot", plot)
    assert code == 0
    assert shown.count("| gru |") == 2
    assert "2/2  step gru 3:4:1:1:1, " in told
    kept = json.loads(out.read_text())
    assert [row["work"] for row in kept["rows"]] == ["train", "step"]
    assert kept["machine"]["precision"] == "float32"
    assert plot.stat().st_size > 1000


def test_json_is_one_line(elman):
    code, shown, _ = elman(*TINY, "--peers", "torch.nn,loop", "--json")
    assert code == 0
    row, other = json.loads(shown)["rows"]
    assert (row["hidden"], row["peer"], other["peer"]) == (4, "torch.nn", "loop")
    needed = "work cell input hidden layers batch steps elman_ms peer peer_ms ratio gflops"
    assert {*needed.split(), "gemm_gflops", "threads"} <= set(row)


def test_a_profile_is_shown_and_kept(elman, tmp_path):
    out = tmp_path / "profile.md"
    code, shown, _ = elman(*TINY, "--profile", "--out", out)
    assert code == 0
    assert "| **loops** |" in shown and out.read_text() == shown


def test_what_is_done_is_kept_on_an_interrupt(elman, monkeypatch):
    from elman import bench

    measure = bench.measure

    def interrupted(*arguments):
        yield from measure(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", interrupted)
    code, shown, told = elman(*TINY)
    assert (code, told.splitlines()[-1]) == (1, "elman: interrupted.")
    assert "| gru |" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shapes", "3:4"), "a shape is input:hidden:layers:batch:steps"),
        (("--all", "--cells", "gru"), "--all says itself what is measured"),
        (("--threads", "two"), "--threads must be whole numbers"),
        (("--profile", "--plot", "x.png"), "nothing to draw"),
        (("--peers", "keras"), "unknown peer 'keras'"),
    ],
)
def test_wrong_usage(elman, arguments, message):
    code, _, told = elman(*arguments)
    assert code == 2
    assert message in told


def test_a_folder_that_is_not_there(elman):
    code, _, told = elman("--out", "no/such/folder.json")
    assert (code, "no folder 'no/such'" in told) == (1, True)
