"""``elman compare-learning``: the learning rules on the same stream."""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Json, NewRun, Resume
from elman.cli.messages import spelled
from elman.cli.options import flag, program, with_settings
from elman.cli.output import print_json
from elman.cli.progress import Progress
from elman.cli.tables import print_rows
from elman.data.sources import short_name
from elman.data.text import STDIN, standard_input
from elman.errors import ElmanError, InputError
from elman.studies.online import OnlineSettings

_EXAMPLES = """elman compare-learning mackey-glass --learning tbptt,rtrl,snap1 --steps 50000
elman compare-learning book.txt --learning rtrl --steps 1000000"""


def add_to(app: App) -> None:
    """Add this command to ``app``."""
    app.command("compare-learning", epilog=_EXAMPLES)(compare_learning)


# By the command itself, or of no meaning here.
_SET = frozenset({"learning", "epochs", "patience", "accumulate", "devices", "nodes"})


@with_settings(OnlineSettings, leave_out=_SET)
def compare_learning(
    given: dict[str, Any],
    data: Annotated[
        str, typer.Argument(help="mackey-glass, or a text as `elman train` takes it.")
    ] = "mackey-glass",
    learning: Annotated[
        str, typer.Option(help="Of bptt, tbptt, rtrl, snap1, rflo, uoro, with commas between.")
    ] = "bptt,tbptt,rtrl,snap1,rflo,uoro",
    run: NewRun = None,
    resume: Resume = None,
    json_: Json = False,
) -> None:
    """Learn the same stream by several rules: error by steps and time, and memory."""
    from elman.studies.online import compare_rules, resume_rules
    from elman.training.run import free_folder

    progress = Progress(None, "steps")
    if resume is not None:
        if given or run:
            raise InputError(
                "--resume goes on with a comparison as it was begun: leave out all else."
            )
        folder, compared = resume, resume_rules(resume, progress)
    else:
        settings = OnlineSettings.of(given)
        names = [name.strip() for name in learning.split(",")]
        folder = run or free_folder(f"compare-learning-{short_name([data])}")
        if data == STDIN:  # which the processes that learn do not have
            data = str(standard_input())
        compared = compare_rules(names, data, settings, folder, progress)
    options = {f.name: flag(f.name) for f in fields(OnlineSettings)}
    for row in compared["rows"]:
        row["failed"] = row["failed"] and spelled(row["failed"], options)
    if json_:
        print_json(compared)
    else:
        print_rules(compared)
        kinds = ("png", "svg", "json")
        made = [n for n in (f"comparison.{k}" for k in kinds) if (folder / n).exists()]
        print(f"\nFigures and curves are in {folder}: {', '.join(made)}.")
    if compared["interrupted"]:
        raise ElmanError(
            f"interrupted, all of it kept: go on with {program()} compare-learning --resume "
            f"{shlex.quote(str(folder))}"
        )
    if not any("error" in row for row in compared["rows"]):
        raise ElmanError("none of the rules could learn; the reasons are above.")


def print_rules(compared: dict[str, Any]) -> None:
    """Print a comparison of rules as a table, and what became of those that failed."""
    rows = []
    for row in compared["rows"]:
        if "error" not in row:
            rows.append([row["rule"], "–", "–", "–", "–"])
            continue
        peak = row["peak_bytes"]
        rows.append(
            [row["rule"], f"{row['error']:.4f}", f"{row['steps_per_second']:,.0f}",
             f"{row['seconds']:,.1f}", "–" if peak is None else f"{peak / 1e6:.1f}"]
        )  # fmt: skip
    error = f"{compared['measure']}, last tenth"
    print_rows(("rule", error, "steps/s", "seconds", "memory, MB"), rows)
    for row in compared["rows"]:
        if row["failed"]:
            print(f"{row['rule']}: {row['failed']}")
