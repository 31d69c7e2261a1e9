"""The texts that a language model is given, as they are typed."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from elman import cli
from elman.training import storage

TEXT = "the quick brown fox jumps over the lazy dog. " * 12
SMALL = ["--hidden", "4", "--batch", "4", "--steps", "10", "--epochs", "1", "--sample-length", "3"]
TRAIN = ("train", "language-model")


@pytest.fixture
def elman(capsys, tmp_path, monkeypatch):
    """Run a command; give its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(TEXT)

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_no_data_given_says_what_can_be(elman):
    for arguments in ((), SMALL):
        code, out, errors = elman(*TRAIN, *arguments)
        assert (code, out) == (2, "")
        assert errors.startswith("elman: no text was given: name a file, a folder, - for standard")
    assert elman("compare", "language-model")[0] == 2


def test_packed_files_and_folders(elman):
    Path("texts").mkdir()
    Path("texts/a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    Path("texts/b.txt").write_text(TEXT)
    code, out, errors = elman(*TRAIN, "texts/a.txt.gz", *SMALL, "--json")
    assert code == 0, errors
    packed = json.loads(out)
    assert packed["run"] == "runs/language-model-a"
    plain = json.loads(elman(*TRAIN, "texts/b.txt", *SMALL, "--json")[1])
    assert packed["perplexity"] == plain["perplexity"]
    code, out, errors = elman(*TRAIN, "texts", *SMALL, "--json")
    assert (code, json.loads(out)["run"]) == (0, "runs/language-model-texts")
    assert errors.count("texts: 2 texts\n") == 1
    # Resuming reads it again, and sees what has been added.
    resume = (*TRAIN, "--resume", "runs/language-model-texts", "--epochs", 2)
    assert elman(*resume)[0] == 0
    Path("texts/c.txt").write_text("more")
    code, _, errors = elman(*resume)
    assert (code, "texts is no longer what this run" in errors) == (1, True)


def test_a_run_on_standard_input_is_resumed_from_its_copy(elman):
    code, out, errors = elman(*TRAIN, "-", *SMALL, "--json", stdin=TEXT)
    assert code == 0, errors
    figures = json.loads(out)
    assert figures["run"] == "runs/language-model-stdin"
    run = Path(figures["run"]).rename("elsewhere")
    assert (run / "assets" / "files" / "-").read_text() == TEXT
    direct = json.loads(elman(*TRAIN, "book.txt", *SMALL, "--json")[1])
    assert figures["perplexity"] == direct["perplexity"]
    code, out, errors = elman(*TRAIN, "--resume", run, "--epochs", 2, "--json")
    assert code == 0, errors
    assert json.loads(elman("evaluate", run, "--json")[1])["tokens"] == len(TEXT) // 10 - 1
    # Evaluated on -, it is what standard input holds now.
    _, out, _ = elman("evaluate", run, "-", "--json", stdin="the lazy fox ")
    assert json.loads(out)["tokens"] == 12


def test_a_comparison_reads_standard_input_once(elman):
    small = [*SMALL[2:], "--hidden", "3"]
    code, _, errors = elman(
        "compare", "language-model", "-", *small, "--cells", "rnn,mlp", "--run", "c", stdin=TEXT
    )
    assert code == 0, errors
    assert (
        Path("c/rnn-3/assets/files/-").read_text()
        == Path("c/mlp-3/assets/files/-").read_text()
        == TEXT
    )


def test_texts_that_come_in_parts(elman):
    Path("valid.txt").write_text("the lazy dog jumps. zz" * 5)
    parts = (*TRAIN, "book.txt", *SMALL, "--validation-data", "valid.txt", "--run", "parts")
    code, out, errors = elman(*parts, "--json")
    assert code == 0, errors
    figures = json.loads(out)
    assert (figures["part"], figures["tokens"]) == ("held out", 22 * 5 - 1)
    assert set(figures["sources"]) == {"valid"}
    config = storage.read_json(Path("parts/config.json"))
    assert config["settings"]["validation_data"] == [str(Path("valid.txt").resolve())]
    assert len(config["fingerprints"]) == 2
    line = json.loads(Path("parts/metrics.jsonl").read_text())
    assert line["validation_perplexity"] == pytest.approx(figures["perplexity"], rel=1e-4)
    # The whole of the first is learned from: 540 tokens in 4 rows of 134, windows of 10.
    assert line["update"] == 14
    resume = (*TRAIN, "--resume", "parts", "--epochs")
    assert elman(*resume, 2)[0] == 0
    assert elman(*resume, 3, "--validation-data", "book.txt")[0] == 2
    Path("valid.txt").write_text("the lazy dog jumps. z" * 5)
    code, _, errors = elman(*resume, 3)
    assert (code, "valid (validation) is no longer what this run" in errors) == (1, True)
    code, _, errors = elman(*parts[:-2], "--validation", "0.3")
    assert (code, "--validation-data is held out in its place" in errors) == (2, True)


def test_the_share_of_what_is_unknown_is_told_and_warned_of(elman):
    assert elman(*TRAIN, "book.txt", *SMALL, "--run", "r")[0] == 0
    Path("greek.txt").write_text("the ζωή " * 9)
    code, out, errors = elman("evaluate", "r", "greek.txt")
    assert code == 0
    assert "unknown share        0.38028" in out  # 27 of the 71 tokens that are predicted
    assert "elman: 38% of the tokens are <unk>" in errors
    _, out, errors = elman("evaluate", "r", "--json")
    assert json.loads(out)["unknown_share"] == 0
    assert "<unk>" not in errors


def test_a_model_that_is_worse_than_chance_is_warned_of(elman):
    wild = ("--optimizer", "sgd", "--learning-rate", "100", "--clip-norm", "0")
    code, out, errors = elman(*TRAIN, "book.txt", *SMALL, *wild, "--json")
    assert code == 0, errors
    assert json.loads(out)["perplexity"] > 29
    assert "above that of chance, 29 for 29 equally likely tokens" in errors
    assert "lower --learning-rate" in errors
    assert "chance" not in elman(*TRAIN, "book.txt", *SMALL, "--learning-rate", "0.05")[2]


def test_short_texts_are_cut_to_fit(elman):
    Path("tiny.txt").write_text("to be or not to be, that is the question")
    few = (*TRAIN, "tiny.txt", "--hidden", 4, "--epochs", 1, "--run")
    code, _, errors = elman(*few, "tiny")
    assert code == 0, errors
    assert "36 tokens are few for --batch 32 and --steps 35: 1 and 4 are taken" in errors
    settings = storage.read_json(Path("tiny/config.json"))["settings"]
    assert (settings["batch"], settings["steps"]) == (1, 4)
    assert elman(*TRAIN, "--resume", "tiny", "--epochs", 2)[0] == 0
    code, _, errors = elman(*few, "chosen", "--batch", 2, "--steps", 20)
    assert (code, "expected at least 41 (batch 2 × steps 20 + 1); lower --batch" in errors) == (
        1, True
    )  # fmt: skip
    Path("one.txt").write_text("a")
    code, _, errors = elman(*TRAIN, "one.txt")
    assert (code, "of a text of length 1, 1 held out leave fewer than 2" in errors) == (1, True)
    code, _, errors = elman(*TRAIN, "book.txt", "--validation", 0.999999)
    assert (code, "540 held out leave fewer than 2 tokens to learn from" in errors) == (1, True)
    assert "lower --validation" in errors


def test_a_setting_that_is_missing_in_a_run_is_told_of(elman):
    assert elman(*TRAIN, "book.txt", *SMALL, "--validation", 0.4, "--run", "r")[0] == 0
    config = storage.read_json(Path("r/config.json"))
    del config["settings"]["validation"]
    storage.write_json(Path("r/config.json"), config)
    code, _, errors = elman("evaluate", "r")
    assert (code, "r/config.json has no validation: the default is taken" in errors) == (0, True)


@pytest.mark.parametrize("left", [None, b"", b"damaged"])
def test_the_best_weights_that_are_gone_are_not_replaced_by_others(elman, left):
    assert elman(*TRAIN, "book.txt", *SMALL, "--run", "r")[0] == 0
    best = Path("r/model.safetensors")
    best.unlink()
    if left is not None:
        best.write_bytes(left)
    code, out, errors = elman(*TRAIN, "--resume", "r", "--epochs", 2)
    assert (code, out) == (1, "")
    assert errors.startswith("elman: r/model.safetensors is ")
    assert best.exists() == (left is not None)
