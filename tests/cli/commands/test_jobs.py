from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elman import cli
from elman.training import storage

TEXT = "the quick brown fox jumps over the lazy dog. " * 30
SMALL = ["--hidden", "8", "--batch", "4", "--steps", "10", "--epochs", "2"]


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(TEXT)
    return "book.txt"


@pytest.fixture
def elman(capsys):
    """Run a command; give its exit code, output and errors."""

    def run(*arguments):
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def trained(book, elman):
    code, _, errors = elman("train", "language-model", book, *SMALL, "--run", "run")
    assert code == 0, errors
    return Path("run")


def _one_sentence(errors):
    lines = [line for line in errors.splitlines() if line.startswith("elman: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    assert "fault in elman" not in errors
    return lines[0]


def test_train_ends_with_one_line_of_json(book, elman):
    code, out, _ = elman("train", "language-model", book, *SMALL, "--json")
    assert code == 0
    figures = json.loads(out.splitlines()[-1])
    for name in ("perplexity", "nats_per_token", "tokens", "tokens_per_second", "seconds"):
        assert figures[name] > 0, name
    assert figures["epochs"] == 2
    assert figures["run"] == "runs/language-model-book"
    # 4 gates of 8 units on 28 + <unk> one-hot tokens, two biases; 8 → vocabulary.
    vocabulary = len(set(TEXT)) + 1
    assert figures["parameters"] == 4 * 8 * (vocabulary + 8 + 2) + 9 * vocabulary


def test_a_second_run_gets_a_folder_of_its_own(book, elman):
    for expected in ("runs/language-model-book", "runs/language-model-book-2"):
        _, out, _ = elman("train", "language-model", book, *SMALL, "--json")
        assert json.loads(out)["run"] == expected


def test_evaluate(trained, elman):
    code, out, told = elman("evaluate", trained, "--json")
    figures = json.loads(out)
    assert code == 0
    assert "reading and measuring the data of its training" in told
    assert figures["tokens"] == 134
    Path("other.txt").write_text("the lazy fox " * 10)
    _, out, _ = elman("evaluate", trained, "other.txt", "--json")
    assert json.loads(out)["tokens"] == 129
    _, out, _ = elman("evaluate", trained)
    assert f"perplexity           {figures['perplexity']:.5g}\n" in out


def test_a_job_says_how_it_can_be_measured(trained, elman):
    options = ("--dynamic", "--dynamic-update", "sgd", "--dynamic-steps", 5, "--json")
    kept = (trained / "model.safetensors").read_bytes()
    _, static, _ = elman("evaluate", trained, "--json")
    code, out, _ = elman("evaluate", trained, *options)
    assert code == 0
    assert json.loads(out)["perplexity"] != json.loads(static)["perplexity"]
    assert (trained / "model.safetensors").read_bytes() == kept
    code, _, errors = elman("evaluate", trained, *options[1:])
    assert code == 2
    assert "--dynamic-update has an effect only where --dynamic is on" in _one_sentence(errors)


def test_generate(trained, elman):
    arguments = ("generate", trained, "--prompt", "the ", "--length", 20, "--seed", 1)
    code, out, _ = elman(*arguments)
    assert code == 0
    assert out.startswith("the ")
    assert len(out) == len("the ") + 20 + 1
    assert elman(*arguments)[1] == out
    assert elman(*arguments[:-1], 2)[1] != out


def test_ctrl_c_ends_a_text_with_its_line(trained, elman, monkeypatch):
    def pieces(*_, **__):
        yield "brown"
        raise KeyboardInterrupt

    monkeypatch.setattr("elman.tasks.language_model.task.generate", pieces)
    assert elman("generate", trained, "--prompt", "the ") == (
        1, "the brown\n", "elman: interrupted.\n"
    )  # fmt: skip


def test_generate_refuses_what_was_never_seen(trained, elman):
    code, _, errors = elman("generate", trained, "--prompt", "thé 界")
    assert code == 2
    assert "'é', '界'" in _one_sentence(errors)


def test_the_reader_may_leave_early(trained):
    command = f"{sys.executable} -m elman generate run --prompt the --length 100000 | head -c 20"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=_environment(), timeout=60
    )
    assert done.stdout.startswith("the")
    assert done.stderr == ""


def test_recipes_and_options_that_override_them(book, elman):
    Path("r.toml").write_text(
        f'data = ["{book}"]\nhidden = 8\nbatch = 4\nepochs = 1\ncell = "gru"\n'
    )
    code, out, errors = elman(
        "train", "language-model", "--recipe", "r.toml", "--cell", "rnn", "--run", "r", "--json"
    )
    assert code == 0, errors
    settings = storage.read_json(Path("r/config.json"))["settings"]
    assert (settings["cell"], settings["hidden"], settings["epochs"]) == ("rnn", 8, 1)
    assert json.loads(out)["epochs"] == 1


def test_a_recipe_may_name_its_job(book, elman):
    Path("r.toml").write_text(f'task = "language-model"\ndata = ["{book}"]\nepochs = 1\n')
    assert elman("train", "language-model", "--recipe", "r.toml", *SMALL[2:])[0] == 0
    code, _, errors = elman("train", "lyrics", "--recipe", "r.toml")
    assert code == 2
    assert "r.toml is a recipe for another job than lyrics" in _one_sentence(errors)


def test_resuming_with_more_epochs(trained, elman):
    code, out, errors = elman(
        "train", "language-model", "--resume", trained, "--epochs", 4, "--json"
    )
    assert code == 0, errors
    assert json.loads(out)["epochs"] == 4
    code, _, errors = elman("train", "language-model", "--resume", trained, "--hidden", 9)
    assert code == 2
    assert "--hidden cannot change when a run is resumed" in _one_sentence(errors)


def test_compare(book, elman):
    code, out, errors = elman(
        "compare", "language-model", book, *SMALL[2:], "--cells", "mlp,gru", "--hidden", "4,6",
        "--run", "c", "--json",
    )  # fmt: skip
    assert code == 0, errors
    rows = json.loads(out)["rows"]
    assert [(r["cell"], r["hidden"]) for r in rows] == [
        ("mlp", 4), ("mlp", 6), ("gru", 4), ("gru", 6)
    ]  # fmt: skip
    assert all(r["perplexity"] > 1 and r["tokens_per_second"] > 0 for r in rows)
    assert rows[2]["parameters"] < rows[3]["parameters"]
    assert Path("c/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert Path("c/gru-6/model.safetensors").exists()
    assert "perplexity" in errors


def test_one_that_diverges_does_not_end_a_comparison(book, elman):
    code, out, _ = elman(
        "compare", "language-model", book, *SMALL[2:], "--cells", "rnn-relu,rnn", "--hidden", "16",
        "--optimizer", "sgd", "--learning-rate", "1e30", "--clip-norm", "0", "--json",
    )  # fmt: skip
    assert code == 0
    first, second = json.loads(out)["rows"]
    assert "became" in first["failed"]
    assert "failed" not in second


CELL = """
from torch import tanh
from elman import Affine, Cell

class Mine(Cell):
    \"\"\"A cell of my own.\"\"\"

    state = ("h",)
    net = Affine()

    def step(self, z, h):
        return 0.5 * h + 0.5 * tanh(z)
"""


def test_a_cell_of_ones_own_from_a_file(book, elman):
    Path("mine.py").write_text(CELL)
    cell = ("--cell", "mine.py:Mine")
    code, _, errors = elman("train", "language-model", book, *SMALL, *cell, "--run", "m")
    assert code == 0, errors
    assert "A cell of my own" in elman("cells", "mine.py:Mine")[1]
    # Opening the run does not execute the file on its own.
    Path("mine.py").write_text("raise SystemExit('executed')")
    code, _, errors = elman("evaluate", "m")
    assert code == 1
    assert "name it again with --cell" in _one_sentence(errors)
    Path("mine.py").write_text(CELL)
    assert elman("evaluate", "m", *cell)[0] == 0
    assert elman("generate", "m", "--prompt", "the", *cell)[0] == 0
    assert elman("train", "language-model", "--resume", "m", "--epochs", 3, *cell)[0] == 0


BROKEN = {
    "fails": ("tanh(z) @ h", "Mine.step failed"),
    "shape": ("tanh(z).sum(-1)", "Mine.step returned h of shape"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_cell_that_fails_at_its_first_step_leaves_nothing(book, elman, what):
    step, words = BROKEN[what]
    Path("mine.py").write_text(CELL.replace("0.5 * h + 0.5 * tanh(z)", step))
    for command, run in (("train", "made/for/it"), ("compare", "c")):
        cell = "--cell" if command == "train" else "--cells"
        arguments = (
            command,
            "language-model",
            book,
            *SMALL[2:],
            cell,
            "mine.py:Mine",
            "--hidden",
            8,
        )
        code, out, errors = elman(*arguments, "--run", run)
        assert (code, out) == (2, "")
        assert words in _one_sentence(errors)
        assert Path(run).parts[0] not in os.listdir()
    code, _, errors = elman("cells", "mine.py:Mine")
    assert (code, words in _one_sentence(errors)) == (2, True)
    Path("mine.py").write_text(CELL)
    assert elman(*arguments, "--run", run)[0] == 0
    assert "engine      native" in elman("cells", "mine.py:Mine")[1]


def _file(content):
    def make():
        Path("bad.txt").write_bytes(content)
        return "bad.txt"

    return make


BAD = {
    "empty": (_file(b""), 1, "bad.txt is empty"),
    "short": (_file(b"short"), 1, "tokens, expected at least 81"),
    "binary": (_file(bytes(range(256)) * 9), 1, "bad.txt"),
    "encoding": (_file("时间机器".encode("gb18030") * 99), 1, "not UTF-8"),
    "utf-16": (_file("the time machine".encode("utf-16") * 99), 1, "bad.txt"),
    "missing": (lambda: "no-such.txt", 1, "no-such.txt is neither a file nor"),
    "folder": (lambda: Path("none").mkdir() or "none", 1, "is a folder without files"),
}


@pytest.mark.parametrize("what", BAD)
def test_texts_that_cannot_be_used(book, elman, what):
    make, expected, words = BAD[what]
    code, out, errors = elman(
        "train", "language-model", make(), "--batch", 8, "--steps", 10, "--run", "bad-run"
    )
    assert words in _one_sentence(errors)
    assert code == expected
    assert out == ""
    assert not Path("bad-run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cell", "lstn"], "unknown cell 'lstn': did you mean 'lstm'"),
        (["--hidden", "-3"], "elman: --hidden must be at least 1, received -3"),
        (["--batch", "0"], "batch must be at least 1, received 0"),
        (["--hidden", "many"], "hidden must be an integer, received 'many'"),
        (["--clip-norm", "1e"], "--clip-norm must be a number, received '1e'"),
        (["--hidden-sizes", "3;4"], "--hidden-sizes must be whole numbers with commas"),
        (["--learning-rate", "-1"], "--learning-rate must be more than 0, received -1"),
        (["--dropout", "1.5"], "dropout must be less than 1, received 1.5"),
        (["--epohs", "3"], "--epohs"),
        (["--forget-bias", "1", "--cell", "rnn"], "no block 'f'"),
        (["--recipe", "none.toml"], "no recipe 'none.toml'"),
        (["--device", "cuda:9"], "device 'cuda:9' cannot be used"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--device", "cpu:3"], "device 'cpu:3' cannot be used"),
        (["--seed", "99999999999999999999999"], "seed must be less than"),
        (["--optimizer", "adam", "--momentum", "0.9"], "momentum is for sgd and rmsprop"),
        (["--optimizer", "rprop", "--weight-decay", "1"], "rprop has no --weight-decay"),
        (["--prompt", "日本"], "never seen: '日', '本'"),
        (["--sample-temperature", "inf"], "--sample-temperature must be less than 100"),
        (["--hidden", str(2**63)], "hidden must be less than 2147483648, received 92233"),
        (["--hidden", str(2**31 - 1)], "lower its sizes, such as"),
        (["--hidden", "300000"], "the model's weights and their gradients need"),
        (["--layers", str(2**63)], "layers must be less than 10000"),
        (["--embedding", str(2**63)], "embedding must be less than 2147483648"),
        (
            ["--epochs", "9" * 400],
            "epochs must be less than 1000000000000, received",
        ),
        (["--epochs", "9" * 5000], "epochs must be"),
        (["--learning-rate", "1e400"], "--learning-rate must be less than 1e+31, received inf"),
        (["--learning-rate", "1e300"], "--learning-rate must be less than 1e+31"),
        (["--clip-norm", "nan"], "--clip-norm must be at least 0, received nan"),
        (["--seconds", "inf"], "seconds must be a finite number, received inf"),
        (["--min-count", "99999"], "no token is there more than 270 times"),
    ],
)
def test_settings_that_cannot_be_used(book, elman, arguments, words):
    code, out, errors = elman("train", "language-model", book, *SMALL[2:], *arguments)
    assert words in _one_sentence(errors)
    assert code == (1 if arguments[0] == "--recipe" else 2)
    assert out == ""
    assert not Path("runs").exists()


def test_runs_that_cannot_be_used(trained, elman):
    assert "no run 'none'" in _one_sentence(elman("evaluate", "none")[2])
    config = trained / "config.json"
    good = config.read_text()
    config.write_text(good.replace('"format": 2', '"format": 7'))
    code, _, errors = elman("evaluate", trained)
    assert (code, "in format 7" in _one_sentence(errors)) == (1, True)
    config.write_text(good.replace('"hidden": 8', '"hidden": 9'))
    code, _, errors = elman("generate", trained)
    assert (code, "does not fit its config.json" in _one_sentence(errors)) == (1, True)
    config.write_text(good.replace('"hidden": 8', '"hidden": -1'))
    code, _, errors = elman("generate", trained)
    assert (code, "config.json is damaged" in _one_sentence(errors)) == (1, True)
    config.write_text(good.replace('"language-model"', '"juggling"'))
    assert "a run of 'juggling'" in _one_sentence(elman("evaluate", trained)[2])
    config.write_text(good)
    (trained / "assets" / "vocabulary.json").write_text('{"kind": "character", "tokens": [1]}')
    code, _, errors = elman("generate", trained)
    assert code == 1
    _one_sentence(errors)


def test_a_folder_that_cannot_be_written(book, elman):
    code, _, errors = elman(
        "train", "language-model", book, *SMALL, "--run", "/proc/no-such/folder"
    )
    assert code == 1
    assert "cannot be made" in _one_sentence(errors)


def _environment():
    root = str(Path(cli.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "TERM": "dumb"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(book, elman, sent):
    command = [sys.executable, "-m", "elman", "train", "language-model", book, *SMALL]
    command += ["--epochs", "100000", "--run", "long", "--save-every", "0.2"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=_environment()
    ) as process:
        metrics = Path("long/metrics.jsonl")
        deadline = time.monotonic() + 60
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    sentence = _one_sentence(errors)
    assert "go on with elman train language-model --resume long" in sentence
    epochs = len(Path("long/metrics.jsonl").read_text().splitlines()) + 2
    code, out, errors = elman(
        "train", "language-model", "--resume", "long", "--epochs", epochs, "--json"
    )
    assert code == 0, errors
    assert json.loads(out)["epochs"] == epochs


def test_a_run_is_trained_by_one_process_at_a_time(trained, elman):
    resume = ("train", "language-model", "--resume", trained, "--epochs", 3)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    # Another process, which is killed while it trains.
    hold = "from elman.training.run import *; r = Run.open(Path('run')); r.lock(); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=_environment(),
    ) as other:  # fmt: skip
        assert other.stdout.readline() == b"\n"
        code, _, errors = elman(*resume)
        assert (code, "run is being trained already" in _one_sentence(errors)) == (1, True)
        assert {path: path.read_bytes() for path in before} == before
        other.kill()
    assert elman(*resume)[0] == 0


def test_a_folder_that_is_there_is_refused_before_anything_is_read(book, elman, monkeypatch):
    monkeypatch.setattr("elman.tasks.texts.open_text", lambda name: 1 / 0)
    code, _, errors = elman("train", "language-model", book, "--run", book)
    assert code == 1
    assert "book.txt is there already" in _one_sentence(errors)


def test_a_resume_that_fails_changes_nothing(trained, elman):
    config = (trained / "config.json").read_bytes()
    resume = ("train", "language-model", "--resume", trained)
    for wrong, words in (
        (("--device", "cuda:9"), "device 'cuda:9'"),
        (("--cell", "gru"), "trained with the cell lstm, received gru"),
        (("--optimizer", "sgd"), "--optimizer cannot change"),
        (("--prompt", "the"), "--prompt cannot change"),
        (("--momentum", "0.5"), "momentum is for sgd"),
    ):
        code, _, errors = elman(*resume, *wrong)
        assert (code, words in _one_sentence(errors)) == (2, True), errors
        assert (trained / "config.json").read_bytes() == config
    assert elman(*resume, "--epochs", 3)[0] == 0


def test_decay_may_change_on_resuming(book, elman):
    small = ("train", "language-model", book, *SMALL)
    for name, more in (("plain", ()), ("decayed", ("--weight-decay", "5"))):
        assert elman(*small, "--run", name)[0] == 0
        assert elman("train", "language-model", "--resume", name, "--epochs", 3, *more)[0] == 0
    weights = [
        Path(name, "checkpoint/state.safetensors").read_bytes() for name in ("plain", "decayed")
    ]
    assert weights[0] != weights[1]


def test_after_divergence_the_advice_that_is_given_works(book, elman):
    code, _, errors = elman(
        "train", "language-model", book, *SMALL, "--cell", "rnn-relu", "--optimizer", "sgd",
        "--learning-rate", "1e30", "--clip-norm", "0", "--run", "d",
    )  # fmt: skip
    assert code == 1
    assert "go on with --resume d" in _one_sentence(errors)
    assert elman("evaluate", "d")[0] == 0
    code, _, errors = elman(
        "train", "language-model", "--resume", "d", "--learning-rate", "0.01", "--clip-norm", "1"
    )
    assert code == 0, errors


def test_vocabularies_that_are_cut_have_samples_all_the_same(book, elman):
    code, _, errors = elman(
        "train", "language-model", book, *SMALL, "--vocabulary-size", 10, "--run", "cut"
    )
    assert code == 0, errors


def test_time_that_runs_out_in_an_epoch_is_gone_on_from_there(book, elman):
    Path("long.txt").write_text(TEXT * 60)
    code, out, errors = elman(
        "train", "language-model", "long.txt", *SMALL, "--seconds", "0.2", "--run", "t", "--json"
    )
    assert code == 0, errors
    assert 0 < json.loads(out)["epochs"] < 1
    assert json.loads(Path("t/metrics.jsonl").read_text())["partial"] is True
    code, out, errors = elman(
        "train", "language-model", "--resume", "t", "--seconds", 100, "--epochs", 1, "--json"
    )
    assert code == 0, errors
    (line,) = map(json.loads, Path("t/metrics.jsonl").read_text().splitlines())
    assert (line["epoch"], "partial" in line) == (1, False)
    # The whole text was read once, no more.
    assert line["update"] == -(-((len(TEXT) * 60 * 9 // 10 - 1) // 4) // 10)


def test_sources_of_the_same_name_are_told_apart(elman, book):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "book.txt").write_text(TEXT)
    _, out, _ = elman("train", "language-model", "a/book.txt", "b/book.txt", *SMALL, "--json")
    assert set(json.loads(out)["sources"]) == {"a/book", "b/book"}


def test_a_given_text_is_judged_as_a_whole(book, elman):
    elman("train", "language-model", book, *SMALL, "--limit", 500, "--run", "limited")
    assert json.loads(elman("evaluate", "limited", book, "--json")[1])["tokens"] == len(TEXT) - 1


def test_a_full_disk_at_the_start_leaves_nothing(book, elman, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, errors = elman("train", "language-model", book, *SMALL, "--run", "full")
    assert code == 1
    assert "No space left on device" in _one_sentence(errors)
    assert not Path("full").exists()


def test_a_comparison_does_not_depend_on_its_order(book, elman):
    rows = {}
    for cells in ("gru,lstm", "lstm,gru"):
        _, out, _ = elman(
            "compare", "language-model", book, *SMALL[2:], "--cells", cells, "--hidden", "6",
            "--dropout", "0.5", "--json",
        )  # fmt: skip
        for row in json.loads(out)["rows"]:
            rows.setdefault(row["cell"], []).append(row["perplexity"])
    assert all(first == second for first, second in rows.values()), rows
    code, _, errors = elman("compare", "language-model", book, "--cells", "gru,gru")
    assert (code, "can be compared once" in _one_sentence(errors)) == (2, True)


def test_what_there_is_to_look_at_is_named(book, elman):
    small = ("language-model", book, *SMALL[2:], "--hidden", "4")
    _, out, _ = elman("compare", *small, "--cells", "mlp")
    assert "perplexity" in out
    assert out.endswith("Curves are in runs/compare-language-model-book: comparison.png, "
                        "comparison.json.\n")  # fmt: skip
    _, out, _ = elman("train", *small, "--run", "r", "--watch-gradients")
    assert out.endswith("are in r: curves.png, gradients.png, gradients.svg, samples.txt.\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [("settings", None), ("task", []), ("data", 5), ("data", [5]), ("fingerprints", [])],
)
def test_damaged_configurations(trained, elman, name, value):
    config = storage.read_json(trained / "config.json")
    storage.write_json(trained / "config.json", {**config, name: value})
    for command in (("evaluate",), ("generate",), ("train", "language-model", "--resume")):
        code, _, errors = elman(*command, trained)
        assert (
            code,
            "config.json' is damaged" in _one_sentence(errors).replace("json is", "json' is"),
        ) == (1, True)


def test_a_run_that_names_no_data(trained, elman):
    config = storage.read_json(trained / "config.json")
    storage.write_json(trained / "config.json", {**config, "data": []})
    for command in (("evaluate",), ("train", "language-model", "--resume")):
        code, _, errors = elman(*command, trained)
        assert (code, "the run names no text" in _one_sentence(errors)) == (1, True), errors


def test_damaged_logs_do_not_stop_a_resume(trained, elman):
    with (trained / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": \xff\n[1]\n')
    (trained / "samples.txt").write_bytes(
        b"\xffnotes of mine\n" + (trained / "samples.txt").read_bytes()
    )
    code, _, errors = elman("train", "language-model", "--resume", trained, "--epochs", 3)
    assert code == 0, errors


def test_a_prompt_that_normalises_to_nothing(book, elman):
    elman("train", "language-model", book, *SMALL, "--normalize", "letters", "--run", "n")
    code, _, errors = elman("generate", "n", "--prompt", "123")
    assert (code, "nothing is left of the prompt '123'" in _one_sentence(errors)) == (2, True)
    assert (
        elman("generate", "n", "--prompt", "the", "--temperature", "1e-40", "--length", 9)[0] == 0
    )
