"""The command line as a whole: what its help shows, and that it takes no time."""

import os
import pkgutil
import subprocess
import sys

import pytest
import typer

import elman
from elman import cli
from elman.cli import commands, program
from elman.cli.app import App
from elman.tasks import TASKS

ROWS = {name: row for rows in commands.panels().values() for name, row in rows.items()}


@pytest.mark.parametrize(
    "typed",
    ["", "train", "train language-model", "evaluate", "generate", "compare",
     "compare language-model", *(name for name in ROWS if name not in ("train", "compare"))],
)  # fmt: skip
@pytest.mark.parametrize("columns", [50, 80, 300])
def test_every_command_has_help(typed, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.run([*typed.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(" ".join(["Usage: elman", *typed.split()]))
    assert "\nExamples:\n  elman" in shown or typed in ("", "train", "compare")
    # Every option is there, whole, however wide the terminal is.
    command = program.command()
    for name in typed.split():
        command = command.commands[name]
    for parameter in command.params:
        assert all(option in shown for option in parameter.opts if option[0] == "-")


def test_every_command_has_its_place(capsys):
    """The table names all commands that the modules have, each in the module that has it."""
    # Those with others below them are made of the table itself, with their jobs.
    found = {name: row.module for name, row in ROWS.items() if row.below}
    assert all(list(ROWS[name].below) == list(TASKS) for name in found)
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        app = App()
        __import__(module.name)
        name = module.name.rpartition(".")[2]
        if name == "verbs":  # which makes them one by one
            for verb in (verb for verb, row in ROWS.items() if row.module == name):
                sys.modules[module.name].add_verb(app, verb)
        else:
            sys.modules[module.name].add_to(app)
        app.callback()(lambda: None)
        found |= dict.fromkeys(typer.main.get_command(app).commands, name)
    assert found == {name: row.module for name, row in ROWS.items()}
    assert cli.run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert [name for name in shown if name in ROWS] == list(ROWS)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("--help", 0),
        ("", 2),
        ("--version", 0),
        ("trian", 2),
        ("help", 0),
        ("train --help", 0),
        ("compare", 2),
        ("train languag-model", 2),
        ("data", 0),
    ],
)
def test_what_needs_no_network_imports_none(typed, code):
    """Neither PyTorch nor what draws, computes or tokenizes: the answer is there at once."""
    heavy = ["torch", "numpy", "matplotlib", "tokenizers", "lightning_fabric", "pooch"]
    heavy += [] if typed == "data" else ["rich"]  # which draws the table
    program = (
        "import sys\nfrom elman import cli\n"
        f"code = cli.run({typed.split()!r})\n"
        f"print([name for name in {heavy!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"[] {code}"
    answers = {
        "": "compare-learning", "--help": "compare-learning", "help": "compare-learning",
        "--version": elman.__version__, "trian": "Did you mean 'train'?",
        "train languag-model": "Did you mean 'language-model'?", "data": "tiny-shakespeare",
    }  # fmt: skip
    assert answers.get(typed, "Train a language model on") in done.stdout + done.stderr


def test_what_elman_offers_is_there_and_is_imported_at_its_first_use():
    code = (
        "import sys, elman\nassert not {'torch', 'numpy'} & set(sys.modules)\n"
        "assert set(elman.__all__) <= set(dir(elman))\n"
        "for name in elman.__all__:\n    getattr(elman, name)\n"
        "from elman import *\nLSTM(2, 3)\n"
        "assert not {'matplotlib', 'tokenizers', 'rich', 'typer'} & set(sys.modules)\n"
        "elman.no_such_thing\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr.splitlines()[-1] == (
        "AttributeError: module 'elman' has no attribute 'no_such_thing'"
    )
