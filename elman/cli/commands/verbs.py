"""What trained models do: a command for each verb that a job declares, such as ``generate``."""

from __future__ import annotations

import inspect
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Device, Folder, Json, OwnCell
from elman.cli.figures import figure
from elman.cli.options import with_settings
from elman.cli.output import print_json
from elman.errors import InputError
from elman.tasks import TASKS, open_run
from elman.training.settings import Settings
from elman.training.task import Task, Verb


def add_to(app: App) -> None:
    """Add a command for each verb to ``app``."""
    for name, verbs in by_name(TASKS.values()).items():
        app.command(name, epilog=_examples(name, verbs))(_command(verbs))


def _examples(name: str, verbs: list[Verb]) -> str:
    lines = [line for verb in verbs for line in verb.example.splitlines()]
    return "\n".join(f"elman {name} {line}" for line in lines)


def by_name(tasks: Iterable[type[Task]]) -> dict[str, list[Verb]]:
    """What trained models do, by the name of the command; several jobs may do the same."""
    found: dict[str, list[Verb]] = {}
    for task in tasks:
        for verb in task.verbs:
            found.setdefault(verb.name, []).append(verb)
    return found


def _command(verbs: list[Verb]) -> Any:
    """The command of a verb, with the options of every job that has it."""
    name = verbs[0].name

    def command(
        given: dict[str, Any],
        run: Folder,
        inputs: Any = None,
        json_: Json = False,
        device: Device = "auto",
        cell: OwnCell = None,
    ) -> None:
        job = open_run(run, device, cell)
        verb = next((verb for verb in job.verbs if verb.name == name), None)
        if verb is None:
            can = ", ".join(verb.name for verb in job.verbs) or "none"
            raise InputError(f"{run} is a run of {job.name}, which cannot {name}; it can: {can}.")
        if "seed" in (f.name for f in fields(verb.Settings)):
            given = {"seed": secrets.randbits(32), **given}
        settings = verb.Settings.of(given)
        made = verb.run(job, _lines(inputs or [], verb.reads) if verb.reads else (), settings)
        _write(made, settings, run, json_)

    reads = next((verb.reads for verb in verbs if verb.reads), "")
    described = typer.Argument(
        help=f"{reads}: as they are, or - for standard input, a line each.", show_default=False
    )
    signature = inspect.signature(command, eval_str=True)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            p.replace(annotation=Annotated[list[str] | None, described])
            if p.name == "inputs"
            else p
            for p in signature.parameters.values()
            if reads or p.name != "inputs"
        ]
    )
    command.__doc__, command.__name__ = verbs[0].help, name
    return with_settings(*(verb.Settings for verb in verbs))(command)


def _lines(given: list[str], what: str) -> Iterator[str]:
    """What a model is asked: what was typed, or the lines of standard input.

    Raises:
        InputError: there is nothing.
    """
    there = False
    for text in given or ([] if sys.stdin.isatty() else ["-"]):
        for line in sys.stdin if text == "-" else [text]:
            there = True
            yield line.rstrip("\n")
    if not there:
        raise InputError(f"{what} were not given: type them, or pipe them in, a line each.")


def _write(made: Iterator[Any], settings: Settings, run: Path, as_json: bool) -> None:
    """Write what a model makes as it makes it: texts run on, mappings get a line each."""
    first = next(made, "")
    if isinstance(first, dict):
        for record in (first, *made):
            if as_json:
                print_json(record)
            else:
                print("\t".join(figure(value) for value in record.values()), flush=True)
        return
    chosen = asdict(settings)
    if as_json:
        kept = {name: chosen[name] for name in ("prompt", "seed") if name in chosen}
        print_json({**kept, "text": "".join([first, *made]), "run": str(run)})
        return
    prompt = chosen.get("prompt", "")
    # A word brings the space before it; one that the prompt ended with would be a second. A space
    # alone is what a model of characters has written.
    brought = first.startswith(" ") and first.strip()
    sys.stdout.write((prompt.rstrip(" ") if brought else prompt) + first)
    try:
        for piece in made:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:  # whoever has read enough presses Ctrl-C
        sys.stdout.write("\n")
