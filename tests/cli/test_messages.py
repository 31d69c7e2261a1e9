"""What the command line says: names as they are typed, figures, and what cannot be together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import elman as library
from elman import cli
from elman.cli.commands.verbs import _write
from elman.cli.figures import figure
from elman.cli.messages import spelled
from elman.tasks.language_model.generation import WRITING, WritingSettings

TEXT = "the quick brown fox jumps over the lazy dog. " * 12
SMALL = ["--hidden", "4", "--batch", "4", "--steps", "10", "--epochs", "1", "--sample-length", "3"]
TRAIN = ("train", "language-model")

CELLS = '''
from torch import tanh
from elman import Affine, Cell

class Mine(Cell):
    """A cell of my own."""

    state = ("h",)
    net = Affine()

    def step(self, z, h):
        return 0.5 * h + 0.5 * tanh(z)

class Gated(Mine):
    """With a forget gate."""

    net = Affine("f g")

    def step(self, z, h):
        return z.f.sigmoid() * h + tanh(z.g)
'''


@pytest.fixture
def elman(capsys, tmp_path, monkeypatch):
    """Run a command; give its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(TEXT)

    def run(*arguments):
        code = cli.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text(TEXT)
    run = folder / "run"
    assert cli.run([*TRAIN, str(folder / "book.txt"), *SMALL, "--run", str(run)]) == 0
    return run


def test_version_and_help(elman):
    assert elman("--version") == (0, f"elman {library.__version__}\n", "")
    code, out, _ = elman("help", "train", "language-model")
    assert (code, out) == (0, elman(*TRAIN, "--help")[1])
    assert "--validation-data" in out
    # The usage, and two examples.
    for command in ("train language-model", "generate", "compare language-model", "evaluate"):
        assert elman("help", *command.split())[1].count("elman ") >= 3, (
            command
        )  # usage, and two examples


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--top-k", "0"), "--top-k must be at least 1, received 0."),
        (("--top-p", "2"), "--top-p must lie in (0, 1], received 2.0."),
        (("--top-k", "a"), "--top-k must be an integer, received 'a'."),
        (("--temperature=x",), "--temperature must be a number, received 'x'."),
        (("--length", "0"), "--length must be at least 1, received 0."),
        (("--greedy", "--temperature", "1"), "so that --temperature would do nothing"),
        (("--greedy", "--top-k", "3", "--top-p", "1"), "so that --top-k and --top-p would do"),
        (("--cell", "gru"), "trained with the cell lstm, received gru: leave out --cell"),
    ],
)
def test_names_in_messages_are_as_typed(elman, trained, arguments, words):
    code, out, errors = elman("generate", trained, *arguments)
    assert (code, out) == (2, "")
    assert words in errors


def test_what_is_no_number_is_named(elman):
    for command, said in {
        "gradients --hidden a": "elman: --hidden must be a whole number, received 'a'. See elman "
        "gradients --help.\n",
        "bench --seconds=x": "elman: --seconds must be a number, received 'x'. See elman bench "
        "--help.\n",
    }.items():
        assert elman(*command.split()) == (2, "", said)


def test_what_is_missing_is_named(elman, trained):
    assert elman("generate")[::2] == (
        2, "elman: RUN was not given: the folder of a run. See elman generate --help.\n"
    )  # fmt: skip
    assert (
        "--text was not given: what the model reads, such as 'time traveller'. See"
        in elman("inspect", trained)[2]
    )
    assert "See elman generate --help." in elman("generate", trained, "--length")[2]


def test_settings_are_spelled_where_they_are_meant():
    flags = {"top_k": "--top-k", "batch": "--batch", "prompts": "--prompt"}
    assert spelled("lower `batch`, `prompts` or `this`", flags) == (
        "lower --batch, --prompt or `this`"
    )
    assert spelled("batch must be 1 a batch", flags, flags) == "--batch must be 1 a batch"
    assert spelled("a/top_k.txt: lower top_k.", flags, flags) == "a/top_k.txt: lower --top-k."
    assert spelled("top_k must be 1", flags) == "top_k must be 1"


def test_names_of_a_recipe_are_as_they_stand_in_it(elman):
    Path("r.toml").write_text('data = ["book.txt"]\nlearning_rate = -1\n')
    code, _, errors = elman(*TRAIN, "--recipe", "r.toml")
    assert (code, errors) == (2, "elman: learning_rate must be more than 0, received -1.0.\n")
    _, _, errors = elman(*TRAIN, "--recipe", "r.toml", "--learning-rate", "-2")
    assert errors == "elman: --learning-rate must be more than 0, received -2.0.\n"


def test_figures_have_sensible_digits():
    shown = {
        176.0: "176", 0.12: "0.12", 22.29449: "22.29", 1234.5: "1,234", 12345.6: "12,346",
        1.194e36: "1.194e+36", 7: "7", 1234: "1,234", True: "yes", None: "–", "a": "a",
    }  # fmt: skip
    assert {value: figure(value) for value in shown} == shown
    assert figure(1.00321, 5) == "1.0032"


def test_what_was_written_as_json(elman, trained):
    code, out, _ = elman("generate", trained, "--prompt", "the ", "--length", 9, "--json")
    written = json.loads(out)
    assert (code, written["prompt"], len(written["text"])) == (0, "the ", 9)
    _, again, _ = elman(
        "generate", trained, "--prompt", "the ", "--length", 9, "--seed", written["seed"]
    )
    assert again == f"the {written['text']}\n"
    greedy = ("generate", trained, "--greedy", "--length", 5, "--json")
    texts = {json.loads(elman(*greedy)[1])["text"] for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([" time", " flies"], "the time flies\n"),  # of words, which bring their spaces
        ([" ", "t"], "the  t\n"),  # of characters, of which each counts
        (["t"], "the t\n"),
        ([], "the \n"),
    ],
)
def test_what_is_written_goes_on_from_the_prompt(capsys, pieces, shown):
    _write(WRITING, iter(pieces), WritingSettings(prompt="the "), Path("run"), False)
    assert capsys.readouterr().out == shown


def test_the_cell_of_a_run_may_be_named_again(elman, trained):
    assert elman("evaluate", trained, "--cell", "lstm")[0] == 0


def test_resuming_with_nothing_to_do_says_so(elman, trained):
    code, out, errors = elman(*TRAIN, "--resume", trained, "--json")
    assert code == 0
    assert json.loads(out)["epochs"] == 1
    assert "there is nothing to train: its 1 --epochs are done; give it more to go on" in errors
    assert "nothing to train" not in elman(*TRAIN, "--resume", trained, "--epochs", 2)[2]
    before = (trained / "config.json").read_text()
    code, _, errors = elman(*TRAIN, "--resume", trained, "--epochs", 1)
    assert code == 2
    assert "there is nothing to train: its 2 --epochs are done, counted from the beg" in errors
    assert (trained / "config.json").read_text() == before


def test_a_folder_that_is_there_says_how_to_go_on(elman, trained):
    _, _, errors = elman(*TRAIN, "book.txt", "--run", trained)
    assert f"go on with that run with --resume {trained}, or name another folder" in errors


def test_a_forget_bias_is_for_cells_with_a_forget_gate(elman):
    Path("mine.py").write_text(CELLS)
    cells = ("--cells", "gru,lstm,mine.py:Mine,mine.py:Gated")
    compare = ("compare", "language-model", "book.txt", *SMALL[2:], "--forget-bias", "3")
    code, out, errors = elman(*compare, *cells, "--hidden", "3", "--run", "c", "--json")
    assert code == 0, errors
    assert "--forget-bias leaves out gru, mine.py:Mine, without a forget gate" in errors
    rows = {row["cell"]: row.get("forget_bias", 3) for row in json.loads(out)["rows"]}
    assert rows == {"gru": None, "lstm": 3, "mine.py:Mine": None, "mine.py:Gated": 3}
    code, _, errors = elman(*compare, "--cells", "gru,rnn")
    assert (code, "--forget-bias is for cells with a forget gate" in errors) == (2, True)


def test_a_class_that_a_file_does_not_have_is_wrong_usage(elman):
    Path("mine.py").write_text(CELLS)
    for command in (("cells", "mine.py:Mind"), (*TRAIN, "book.txt", "--cell", "mine.py:Mind")):
        code, _, errors = elman(*command)
        assert (code, "mine.py has no cell 'Mind'" in errors) == (2, True)
    Path("mine.py").write_text(CELLS.replace("0.5 * h +", "0.5 * h @"))
    code, _, errors = elman("cells", "mine.py:Mine")  # one step checks it
    assert (code, "Mine.step failed" in errors) == (2, True)
