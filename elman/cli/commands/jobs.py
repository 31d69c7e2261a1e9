"""Training a job, and what one does with its run: evaluate, generate, compare."""

from __future__ import annotations

import logging
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cells import registry
from elman.cli.options import flag, gather, numbers, program, with_settings
from elman.cli.output import print_json
from elman.cli.progress import Progress
from elman.cli.tables import figure, print_rows
from elman.data.sources import short_name
from elman.errors import ElmanError, InputError
from elman.tasks import TASKS, load_weights, open_run, restore
from elman.tasks.network import has_forget_gate
from elman.training.run import Run, free_folder
from elman.training.settings import TrainingSettings
from elman.training.task import Task

Data = Annotated[
    list[str] | None,
    typer.Argument(
        help="Texts: files (also .gz), folders of them, corpora that `elman data` lists, or - for "
        "standard input.",
        show_default=False,
    ),
]
Recipe = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file with data and settings, such as those in benchmarks/recipes.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda …")]
OwnCell = Annotated[
    str | None,
    typer.Option(
        "--cell",
        help="Your own cell, if the run has one, such as mine.py:MyCell.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to ``app``, with a sub-command for each task."""
    training = typer.Typer(no_args_is_help=True, help="Train a model; a sub-command for each job.")
    comparing = typer.Typer(
        no_args_is_help=True, help="Train several cells and sizes on the same data and compare."
    )
    for task in TASKS.values():
        training.command(task.name, epilog=_EXAMPLES["train"])(_train(task))
        comparing.command(task.name, epilog=_EXAMPLES["compare"])(_compare(task))
    app.add_typer(training, name="train")
    app.command(epilog=_EXAMPLES["evaluate"])(evaluate)
    app.command(epilog=_EXAMPLES["generate"])(generate)
    app.add_typer(comparing, name="compare")


_EXAMPLES = {
    "train": """Example: elman train language-model time-machine --hidden 256 --layers 2 --epochs 20

elman train language-model train.txt --validation-data valid.txt --tokens word --seconds 600

zcat book.txt.gz | elman train language-model - --cell gru --run runs/book

elman train language-model --resume runs/book --epochs 40""",
    "evaluate": """Example: elman evaluate runs/language-model-time-machine

elman evaluate runs/book other.txt --json""",
    "generate": """Example: elman generate RUN --prompt 'time traveller' --temperature 0.7

elman generate RUN --greedy --length 200 --stop END --json""",
    "compare": """Example: elman compare language-model time-machine --cells rnn,gru,lstm --epochs 5

elman compare language-model time-machine --cells gru,lstm --hidden 64,128 --seconds 60""",
}


_logger = logging.getLogger("elman")

_LOOKED_AT = (".png", ".svg", ".txt")


def _train(task: type[Task]) -> Any:
    @with_settings(task.Settings)
    def train(
        given: dict[str, Any],
        data: Data = None,
        recipe: Recipe = None,
        run: Annotated[
            Path | None, typer.Option(help="The folder to make.", show_default="runs/…")
        ] = None,
        resume: Annotated[
            Path | None,
            typer.Option(help="Go on with the run in this folder.", show_default=False),
        ] = None,
        json_: Json = False,
    ) -> None:
        from elman.training.loop import Trainer, start

        if resume is not None:
            _only_training(given, data, recipe, run)
            folder = Run.open(resume)
            job = restore(folder, given.pop("cell", None))
            settings = task.Settings.of(folder.config["settings"], given)
            progress = Progress(settings.epochs, task.unit)
            trainer = Trainer(job, folder, settings, resume=True, report=progress)
            why = trainer.finished()
            if why and given:  # which would be written down as the run's own
                raise InputError(
                    f"with what was given there is nothing to train: {why}, counted from the "
                    f"beginning of {folder.path}; give more, or leave it out to go on as before."
                )
            folder.reconfigure(settings.to_json())
            if why:
                _logger.info("there is nothing to train: %s; give it more to go on.", why)
        else:
            sources, settings = gather(task.Settings, recipe, given, list(data or []))
            name = f"{task.name}-{short_name(sources)}"
            progress = Progress(settings.epochs, task.unit)
            trainer = start(task, sources, settings, run or free_folder(name), progress)
            job, folder = trainer.task, trainer.run
        trainer.report.say(f"{job.describe_model()} → {folder.path}")
        trainer.train()
        at = trainer.position
        if trainer.interrupted:
            raise ElmanError(
                f"interrupted after {at.update:,} updates, all of it kept: "
                f"go on with {_to_resume(task, folder)}"
            )
        load_weights(job, folder)
        figures = job.evaluate()
        figures["tokens_per_second"] = round(at.units / max(1e-9, at.seconds))
        figures |= {"seconds": round(at.seconds, 2), "parameters": job.parameters()}
        figures |= {"epochs": trainer.epochs, "run": str(folder.path)}
        _print(figures, json_, job.sample())
        if not json_:
            made = sorted(
                path.name for path in folder.path.glob("*.*") if path.suffix in _LOOKED_AT
            )
            print(f"\nCurves and samples are in {folder.path}: {', '.join(made)}.")
        _doubt(job, figures)

    train.__doc__ = f"{task.summary()} Afterwards, how well it does and a sample."
    return train


def _only_training(given: dict[str, Any], data: Any, recipe: Any, run: Any) -> None:
    from dataclasses import fields

    fixed = {"seed", "optimizer", "precision"}
    allowed = {f.name for f in fields(TrainingSettings)} - fixed | {"cell"}
    other = [flag(name) for name in given if name not in allowed]
    other += [n for n, v in (("DATA", data), ("--recipe", recipe), ("--run", run)) if v]
    if other:
        raise InputError(
            f"{', '.join(other)} cannot change when a run is resumed: leave it out, "
            "or train anew without --resume."
        )


def evaluate(
    run: Folder,
    data: Data = None,
    json_: Json = False,
    device: Device = "auto",
    cell: OwnCell = None,
) -> None:
    """Measure a trained model on DATA, or on what its training held out."""
    job = open_run(run, device, cell)
    what = ", ".join(data or []) or "the data of its training"
    Progress(None, job.unit).say(f"{job.describe_model()}: reading and measuring {what} …")
    figures = job.evaluate(list(data or []))
    _print(figures, json_)
    _doubt(job, figures)


def generate(
    run: Folder,
    prompt: Annotated[str, typer.Option(help="What to begin with, such as 'time '.")] = "",
    length: Annotated[int, typer.Option(help="Tokens to write.")] = 400,
    temperature: Annotated[
        float | None,
        typer.Option(help="Above 1 bolder, below 1 safer, such as 0.7.", show_default="1.0"),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Draw from the k likeliest only, such as 40.", show_default=False),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Draw from the likeliest that add up to p, such as 0.9.", show_default=False
        ),
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the likeliest.")] = False,
    seed: Annotated[int | None, typer.Option(help="Fixes the draws.", show_default=False)] = None,
    stop: Annotated[
        str | None,
        typer.Option(help="End before this text, such as $'\\n\\n'.", show_default=False),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print what was written as one line of JSON.")
    ] = False,
    device: Device = "auto",
    cell: OwnCell = None,
) -> None:
    """Let a language model write; the text appears as it is written."""
    contrary = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    useless = [option for option, value in contrary.items() if value is not None]
    if greedy and useless:
        raise InputError(
            f"--greedy takes the likeliest always, so that {' and '.join(useless)} would do "
            "nothing: leave out the one or the other."
        )
    job = open_run(run, device, cell)
    if not hasattr(job, "generate"):
        raise InputError(f"{run} is a run of {job.name}, which writes nothing.")
    if seed is None:
        seed = secrets.randbits(32)
    pieces = job.generate(
        prompt, length, temperature=0.0 if greedy else 1.0 if temperature is None else temperature,
        top_k=top_k, top_p=top_p, seed=seed, stop=stop,
    )  # fmt: skip
    if json_:
        written = {"prompt": prompt, "text": "".join(pieces), "seed": seed, "run": str(run)}
        print_json(written)
        return
    first = next(pieces, "")
    # A word brings the space before it; one that the prompt ended with would be a second.
    sys.stdout.write((prompt.rstrip(" ") if first.startswith(" ") else prompt) + first)
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:  # whoever has read enough presses Ctrl-C
        sys.stdout.write("\n")


def _compare(task: type[Task]) -> Any:
    @with_settings(task.Settings, leave_out=frozenset({"cell", "hidden"}))
    def compare(
        given: dict[str, Any],
        data: Data = None,
        cells: Annotated[
            str, typer.Option(help="Names that `elman cells` lists, with commas between.")
        ] = "rnn,gru,lstm",
        hidden: Annotated[str, typer.Option(help="Units of a layer, such as 64,128.")] = "256",
        recipe: Recipe = None,
        run: Annotated[
            Path | None, typer.Option(help="The folder to make.", show_default="runs/…")
        ] = None,
        json_: Json = False,
    ) -> None:
        from elman.training.comparison import compare_models

        sources, settings = gather(task.Settings, recipe, given, list(data or []))
        name = f"compare-{task.name}-{short_name(sources)}"
        names = [cell.strip() for cell in cells.split(",")]
        sizes = numbers("--hidden", hidden)
        without = _without_forget_gate(names, sizes[0], settings)
        variants = [
            {"cell": cell, "hidden": h, **({"forget_bias": None} if cell in without else {})}
            for cell in names
            for h in sizes
        ]
        progress = Progress(settings.epochs, task.unit)
        compared = compare_models(
            task, sources, settings, variants, run or free_folder(name), progress
        )
        if json_:
            print_json(compared)
        else:
            _print_table(compared["rows"], task)
            print(f"\nCurves are in {compared['folder']}: comparison.png, comparison.json.")

    compare.__doc__ = f"{task.summary()} One model for each cell and size, side by side."
    return compare


def _print_table(rows: list[dict[str, Any]], task: type[Task]) -> None:
    columns = ["cell", "hidden", "parameters", task.headline, f"{task.unit}_per_second", "seconds"]
    print_rows(
        [column.replace("_per_", "/") for column in columns],
        [[figure(row.get(column)) for column in columns] for row in rows],
    )


def _without_forget_gate(names: list[str], hidden: int, settings: Any) -> list[str]:
    """Those of the cells that ``forget_bias`` is not for, where it is given.

    Raises:
        InputError: it is for none.
    """
    if settings.forget_bias is None:
        return []
    made = {name: registry.make(name, 2, hidden, biases=settings.biases) for name in names}
    without = [name for name, cell in made.items() if not has_forget_gate(cell)]
    if len(without) == len(made):
        raise InputError(
            f"`forget_bias` is for cells with a forget gate and a bias, which {', '.join(names)} "
            f"{'has' if len(made) == 1 else 'have'} not: leave it out."
        )
    if without:
        _logger.info("`forget_bias` leaves out %s, without a forget gate.", ", ".join(without))
    return without


def _to_resume(task: type[Task], run: Run) -> str:
    """What to type to go on with a run."""
    words = [program(), "train", task.name, "--resume", str(run.path)]
    cell = run.config["settings"]["cell"]
    return shlex.join([*words, "--cell", cell] if ".py:" in cell else words)


def _doubt(job: Task, figures: dict[str, Any]) -> None:
    """Say what the figures must not be taken for."""
    for doubt in job.doubts(figures):
        _logger.warning("elman: %s", doubt)


def _print(figures: dict[str, Any], as_json: bool, sample: str | None = None) -> None:
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        if not isinstance(value, dict):
            print(f"{name.replace('_', ' '):<20} {figure(value, 5)}")
        elif len(value) > 1:
            for source, measures in value.items():
                print(f"  {source:<18} {figure(next(iter(measures.values())), 5)}")
    if sample:
        print(f"\n{sample}")
