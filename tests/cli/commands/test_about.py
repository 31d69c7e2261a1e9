from __future__ import annotations

import json

import pytest

from elman import cli


@pytest.fixture
def elman(capsys):
    def run(*arguments):
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        # (M + H + 1) · H · 4, the textbook's count, with one bias.
        (("--input", 128, "--hidden", 64), 49_408),
        (("--input", 4096, "--hidden", 256), 4_457_472),
        (("--input", 128, "--hidden", 64, "--biases", 2), 49_664),
        (("--input", 128, "--hidden", 64, "--biases", 0), 49_152),
    ],
)
def test_parameters_of_an_lstm(elman, arguments, count):
    code, out, _ = elman("cells", "lstm", *arguments, "--json")
    assert code == 0
    assert json.loads(out)["parameters"] == count
    assert f"{count:,}" in elman("cells", "lstm", *arguments)[1]


def test_all_cells_are_listed_with_their_equations(elman):
    from elman.cells import CELLS

    rows = json.loads(elman("cells", "--json")[1])
    assert [row["cell"] for row in rows] == list(CELLS)
    for row in rows:
        output = next(iter(row["states"]))
        assert any(f"{output}' = " in line for line in row["equations"]), row["cell"]
    table = elman("cells")[1]
    assert all(name in table for name in CELLS)


def test_a_cell_that_cannot_be_so_small_is_a_dash_in_the_list(elman):
    _, out, _ = elman("cells", "--hidden", "1")
    rows = {row.split()[0]: row.split() for row in out.splitlines() if row.strip()}
    assert rows["lstm-projected"][1:4] == ["h,", "c", "–"]
    assert rows["lstm"][3] == f"{4 * (128 + 1 + 1)}"
    code, _, errors = elman("cells", "lstm-projected", "--hidden", "1")
    assert code == 2 and "proj_size" in errors
    code, _, errors = elman("cells", "--hidden", "0")
    assert code == 2 and "hidden_size" in errors


def test_the_corpora_are_listed(elman, monkeypatch):
    monkeypatch.delenv("ELMAN_DATA", raising=False)
    rows = {row["name"]: row for row in json.loads(elman("data", "--json")[1])}
    assert rows["time-machine"]["status"] == "shipped"
    assert all(row["licence"] for row in rows.values())
    code, out, _ = elman("data", "time-machine")
    assert code == 0
    assert "timemachine.txt" in out
    code, _, errors = elman("data", "time-machin")
    assert code == 2
    assert "time-machine" in errors


def test_doctor(elman):
    found = json.loads(elman("doctor", "--json")[1])
    assert found["threads"] >= 1
    assert "reference" in found["engines"]
    assert "cpu" in found["devices"]
    code, out, _ = elman("doctor")
    assert code == 0
    assert found["torch"] in out


def test_ctrl_c_is_one_sentence_for_every_command(elman, monkeypatch):
    from elman.cli.commands import about

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(about, "_findings", interrupted)
    assert elman("doctor") == (1, "", "elman: interrupted.\n")


def test_a_fault_is_told_as_one(elman, monkeypatch):
    from elman.cli.commands import about

    monkeypatch.setattr(about, "_findings", lambda: 1 / 0)
    code, _, errors = elman("doctor")
    assert code == 1
    assert errors.startswith("elman: this is a fault in elman (ZeroDivisionError")
    assert "Traceback" not in errors
    monkeypatch.setenv("ELMAN_DEBUG", "1")
    assert "Traceback" in elman("doctor")[2]


def test_a_cell_that_hands_no_options_on_is_told_how(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "import elman\n\n\nclass Own(elman.Cell):\n"
        "    def __init__(self, input_size, hidden_size):\n"
        "        super().__init__(input_size, hidden_size)\n\n"
        "    def step(self, x, h):\n        return h\n"
    )
    assert cli.run(["cells", f"{tmp_path / 'own.py'}:Own"]) == 2
    assert "hands the options on" in capsys.readouterr().err
