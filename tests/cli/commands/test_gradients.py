"""The commands of the lens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elman import cli
from elman.plots import canvas

SMALL = ["--hidden", "8", "--steps", "20", "--batch", "2"]
TEXT = "in $5 and $6 the quick brown fox jumps over the lazy dog. 中文 " * 30


@pytest.fixture
def elman(capsys, tmp_path, monkeypatch):
    """Run a command; give its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that watched its gradients."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text(TEXT)
    small = "--hidden 8 --layers 2 --batch 4 --steps 10 --epochs 1 --sample-length 5"
    where = [str(folder / "book.txt"), "--run", str(folder / "run")]
    code = cli.run(["train", "language-model", *where, *small.split(), "--watch-gradients"])
    assert code == 0
    return folder / "run"


def test_cells_side_by_side(elman):
    code, out, errors = elman("gradients", *SMALL, "--plot", "flow.svg")
    assert code == 0, errors
    rows = out.splitlines()
    assert rows[0].split()[:7] == ["cell", "lag", "1", "lag", "10", "lag", "19"]
    assert [row.split()[0] for row in rows[1:]] == ["rnn", "identity", "gru", *["lstm,"] * 3]
    assert "vanishes at lag" in rows[1]
    assert "holds to lag 19" in rows[2]
    assert "<svg" in Path("flow.svg").read_text()


def test_one_cell_state_by_state(elman):
    code, out, _ = elman(
        "gradients", "--cell", "lstm", "--forget-bias", "1", "--layers", "2", *SMALL,
        "--plot", "flow.png",
    )  # fmt: skip
    assert code == 0
    assert "lstm, forget bias 1: gradient of the loss at step 19" in out
    assert out.count("Lyapunov") == 2
    assert Path("flow.png").read_bytes().startswith(b"\x89PNG")


def test_json(elman):
    _, out, _ = elman("gradients", "--cell", "rnn,lstm", "--forget-bias", "2", *SMALL, "--json")
    rnn, lstm = json.loads(out)
    assert (rnn["cell"], lstm["cell"]) == ("rnn", "lstm, forget bias 2")
    assert len(rnn["cells"][0]["norms"]) == 20
    assert set(lstm["cells"][0]["by_state"]) == {"h", "c"}
    assert len(lstm["cells"][0]["lyapunov"]) == 16
    _, out, _ = elman("gradients", "textbook", "--scales", "0.5,2", "--hidden", "8", "--json")
    found = json.loads(out)
    assert [p["spectral_radius"] for p in found["products"]] == [0.5, 2]
    assert set(found["depth"]) == {"linear", "relu", "tanh", "sigmoid"}
    _, out, _ = elman("gradients", "cliff", "--json")
    plain, clipped = json.loads(out)
    assert (plain["clip"], clipped["clip"]) == (None, 0.05)
    assert len(plain["errors"]) == 101


def test_textbook_and_cliff(elman):
    code, out, _ = elman("gradients", "textbook", "--hidden", "16", "--plot", "textbook.png")
    assert code == 0
    assert "spectral radius" in out and "sigmoid" in out
    code, out, _ = elman("gradients", "cliff", "--updates", "60", "--plot", "cliff.png")
    assert code == 0
    assert "clipped to 0.05" in out
    for name in ("textbook", "cliff"):
        assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cell", "nope"), "unknown cell 'nope'"),
        (("--forget-bias", "one"), "--forget-bias must be numbers with commas"),
        (("--plot", "flow.gif"), "must end in one of .png, .svg, .pdf, received 'flow.gif'"),
        (("--plot", "nowhere/flow.png"), "no folder 'nowhere'"),
        (("--steps", "1"), "steps must be at least 2, received 1"),
        (("--threshold", "3"), "threshold must lie between 0 and 1"),
        (("textbook", "--scales", "0"), "scales must be positive"),
        (("textbook", "--gain", "nan"), "--gain must be a finite number, received nan"),
        (("cliff", "--clip", "0"), "threshold must be positive"),
        (("wrong",), "wrong"),
    ],
)
def test_errors_are_one_sentence(elman, arguments, said):
    code, out, errors = elman("gradients", *arguments)
    assert code == (1 if "no folder" in said else 2)
    assert out == ""
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_a_run(elman, trained):
    code, out, errors = elman("gradients", "run", trained, "--plot", "run.png", "--json")
    assert code == 0, errors
    assert [cell["layer"] for cell in json.loads(out)["cells"]] == [0, 1]
    assert "layer 1" in elman("gradients", "run", trained)[1]
    assert Path("run.png").exists()
    assert Path(trained, "gradients.png").exists()


def test_inspect(elman, trained):
    text = "$5 and 中文 $6"
    code, out, errors = elman("inspect", trained, "--text", text, "--json")
    assert code == 0, errors
    figures = json.loads(out)
    assert "".join(figures["tokens"]) == text
    assert list(figures["gates"]) == ["i", "f", "o"]
    assert Path(figures["plot"]) == trained / "gates.png"
    code, out, _ = elman(
        "inspect", trained, "--text", "the fox", "--layer", 1, "--units", 3, "--plot", "g.svg"
    )
    assert code == 0
    assert "g.svg: i, f, o, g, h, c" in out
    for arguments, said in (
        (("--text", "the fox", "--layer", 2), "--layer must be one of 0 to 1"),
        (("--text", ""), "the text is empty"),
        (("--text", "THE"), "the text has characters that the model has never seen"),
        (("--text", "fox", "--units", 0), "--units must be at least 1"),
        (("--text", "fox " * 60,), "at most 200 tokens"),
    ):  # fmt: skip
        code, _, errors = elman("inspect", trained, *arguments)
        assert code == 2
        assert said in errors


def test_pictures_name_model_and_data(elman, trained, monkeypatch):
    titles = []
    monkeypatch.setattr(canvas, "entitle", lambda figure, title: titles.append(title))
    elman("gradients", *SMALL)
    elman("gradients", *SMALL, "--plot", "a.png")
    elman("gradients", "--cell", "rnn", *SMALL, "--plot", "a.png")
    elman("gradients", "run", trained, "--plot", "a.png")
    elman("inspect", trained, "--text", "fox", "--plot", "a.png", "--layer", 1)
    before = "before any training: 1 layer of 8 units, 2 sequences of 20 steps of 32 inputs"
    assert [title.removesuffix(" from N(0, 1)") for title in titles] == [
        before, f"rnn, {before}", "run: lstm, 2 × 8 units, on book",
        "run: lstm, 2 × 8 units, on book, layer 1",
    ]  # fmt: skip
    titles.clear()
    train = ("train", "language-model", "--resume", trained, "--epochs", 2, "--watch-gradients")
    assert elman(*train)[0] == 0
    assert titles == ["lstm, 2 × 8 units, on book"] * 2
