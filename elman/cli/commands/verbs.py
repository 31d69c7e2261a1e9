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

from elman.cli.answers import Answers, question, seed_of, shown
from elman.cli.app import App
from elman.cli.arguments import Companions, Device, Folder, Json, OwnCell
from elman.cli.companions import join
from elman.cli.options import with_settings
from elman.cli.output import print_json
from elman.errors import InputError
from elman.tasks import TASKS, open_run
from elman.training.settings import Settings
from elman.training.task import Task, Verb

Inputs = Annotated[
    Path | None,
    typer.Option("--file", help="Read the inputs from this file.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Write a line of JSON for each input into this file; after a break, the same command "
        "goes on.",
        show_default=False,
    ),
]


def add_verb(app: App, name: str) -> None:
    """Add the command of a verb to ``app``."""
    verbs = [verb for job in TASKS.that_can(name) for verb in job.verbs if verb.name == name]
    lines = [line for verb in verbs for line in verb.example.splitlines()]
    app.command(name, epilog="\n".join(f"elman {name} {line}" for line in lines))(_command(verbs))


def _command(verbs: list[Verb]) -> Any:
    """The command of a verb, with the options of every job that has it."""
    name = verbs[0].name

    def command(
        given: dict[str, Any],
        run: Folder,
        inputs: Any = None,
        file: Inputs = None,
        output: Output = None,
        companions: Companions = None,
        json_: Json = False,
        device: Device = "auto",
        cell: OwnCell = None,
    ) -> None:
        job = open_run(run, device, cell)
        verb = job.verb(name)
        join(job, companions or [], verb.together, name, device, cell)
        if "seed" in (f.name for f in fields(verb.Settings)):
            kept = None if output is None else seed_of(output)
            given = {"seed": secrets.randbits(32) if kept is None else kept, **given}
        settings = verb.Settings.of(given)
        asked = _asked(job, verb, inputs, file)
        if output is None:
            _write(verb, verb.run(job, asked, settings), settings, run, json_)
            return
        if not verb.each:
            raise InputError(f"{job.name} gives no line for each input: leave out `output`.")
        every = list(asked)
        its = question(run, companions or [], name, settings.to_json(), every)
        answers = Answers(output, its, given.get("seed"))
        answers.write(verb.run(job, every[answers.done :], settings), len(every))

    reads = next((verb.reads for verb in verbs if verb.reads), "")
    described = typer.Argument(
        help=f"{reads}: as they are, or - for standard input, a line each.", show_default=False
    )
    offered = {
        "inputs": bool(reads),
        "file": bool(reads),
        "output": any(verb.each for verb in verbs),
        "companions": any(verb.together for verb in verbs),
    }
    signature = inspect.signature(command, eval_str=True)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            p.replace(annotation=Annotated[list[str] | None, described])
            if p.name == "inputs"
            else p
            for p in signature.parameters.values()
            if offered.get(p.name, True)
        ]
    )
    command.__doc__, command.__name__ = verbs[0].help, name
    return with_settings(*(verb.Settings for verb in verbs))(command)


def _asked(job: Task, verb: Verb, given: list[str] | None, file: Path | None) -> Iterable[Any]:
    """What a model is asked: what was typed, or the inputs of a file."""
    if not verb.reads:
        if given or file:
            raise InputError(f"{job.name} reads nothing to {verb.name}: leave out the inputs.")
        return ()
    if file is None:
        return _lines(given or [], verb)
    if given:
        raise InputError(
            f"inputs were given and a file of them, {file}: leave the one or the other out."
        )
    return job.inputs_of(file)


def _lines(given: list[str], verb: Verb) -> Iterator[str]:
    """What was typed, or the lines of standard input.

    Raises:
        InputError: there is nothing.
    """
    there = False
    terminal = sys.stdin.isatty()
    for text in given or ([] if terminal and not verb.asks else ["-"]):
        for line in _typed(verb.asks if terminal else "") if text == "-" else [text]:
            there = True
            yield line.rstrip("\n")
    if not there and not verb.asks:
        raise InputError(f"{verb.reads} were not given: type them, or pipe them in, a line each.")


def _typed(prompt: str) -> Iterator[str]:
    """The lines of standard input; at a terminal, one is asked for at a time."""
    while True:
        if prompt:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def _write(verb: Verb, made: Iterator[Any], settings: Settings, run: Path, as_json: bool) -> None:
    """Write what a model makes as it makes it: texts run on, mappings show theirs, or a line."""
    first = next(made, "")
    if isinstance(first, dict):
        show = verb.show or _shown
        for record in (first, *made):
            if as_json:
                print_json(record)
            else:
                print(show(record), flush=True)
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


def _shown(record: dict[str, Any]) -> str:
    return record.get("text") or "\t".join(map(shown, record.values()))
