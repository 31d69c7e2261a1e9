"""Training a job, and what one does with its run: evaluate, generate, compare."""

from __future__ import annotations

import logging
import shlex
from dataclasses import fields
from typing import Annotated, Any

import typer

from elman.cells import registry
from elman.cli.app import App
from elman.cli.arguments import (
    Companions,
    Data,
    Device,
    Folder,
    Json,
    NewRun,
    OwnCell,
    Plot,
    Recipe,
    Resume,
    numbers,
)
from elman.cli.companions import join
from elman.cli.figures import figure
from elman.cli.options import flag, gather, program, with_settings
from elman.cli.output import print_json
from elman.cli.progress import Progress
from elman.cli.tables import print_rows
from elman.data.sources import short_name
from elman.errors import ElmanError, InputError
from elman.plots.canvas import check_path
from elman.tasks import TASKS, open_run
from elman.training.network import NetworkSettings, has_forget_gate
from elman.training.run import Run, free_folder
from elman.training.settings import TrainingSettings
from elman.training.task import Task


def add_to(app: App) -> None:
    """Add the commands that are the same for all jobs to ``app``."""
    measured = with_settings(*(task.Evaluation for task in TASKS.values()))(evaluate)
    app.command(
        epilog="elman evaluate runs/language-model-time-machine\n"
        "elman evaluate runs/book other.txt --dynamic --json\n"
        "elman evaluate runs/films --with runs/films-2 --plot confusion.png"
    )(measured)


def add_job(app: App, group: str, name: str) -> None:
    """Add the command of a job below ``train`` or ``compare`` to ``app``."""
    task = TASKS[name]
    command = _train(task) if group == "train" else _compare(task)
    app.command(name, epilog=_example(group, task))(command)


def _example(command: str, task: type[Task]) -> str:
    """What to type, from the example of a job."""
    first = f"elman {command} {task.name} {task.example}"
    if command == "train":
        return f"{first}\nelman train {task.name} --resume runs/… --epochs 40"
    return f"{first} --cells rnn,gru,lstm\n{first} --cells gru,lstm --hidden 64,128"


_logger = logging.getLogger("elman")

_WIDEST = 12
_LOOKED_AT = (".png", ".svg", ".txt")


def _train(task: type[Task]) -> Any:
    @with_settings(task.Settings)
    def train(
        given: dict[str, Any],
        data: Data = None,
        recipe: Recipe = None,
        run: NewRun = None,
        resume: Resume = None,
        json_: Json = False,
    ) -> None:
        from elman.training.start import resume as go_on
        from elman.training.start import start

        if resume is not None:
            _only_training(given, data, recipe, run)
            folder = Run.open(resume)
            kind = TASKS.get(folder.config["task"])
            if kind is not task:
                raise InputError(
                    f"{resume} is a run of {folder.config['task']}, received {task.name}: name "
                    "that job."
                )
            its = task.Settings.of(folder.config["settings"], given)
            trainer = go_on(task, folder, Progress(its.epochs, task.unit), **given)
            job, settings = trainer.task, trainer.settings
            why = trainer.finished()
            if why and given:  # which would be written down as the run's own
                raise InputError(
                    f"with what was given there is nothing to train: {why}, counted from the "
                    f"beginning of {folder.path}; give more, or leave it out to go on as before."
                )
            if trainer.processes.first:
                folder.reconfigure(settings.to_json())
            if why:
                _logger.info("there is nothing to train: %s; give it more to go on.", why)
        else:
            sources, settings = gather(task, recipe, given, list(data or []))
            progress = Progress(settings.epochs, task.unit)
            trainer = start(task, sources, settings, run, progress)
            job, folder = trainer.task, trainer.run
        trainer.report.say(f"{job.describe_model()} → {folder.path}")
        trainer.train()
        if not trainer.processes.first:
            return
        at = trainer.position
        if trainer.interrupted:
            raise ElmanError(
                f"interrupted after {at.update:,} updates, all of it kept: "
                f"go on with {_to_resume(task, folder)}"
            )
        folder.give_weights(job.model)
        figures = job.evaluate()
        figures[f"{job.unit}_per_second"] = round(at.units / max(1e-9, at.seconds))
        figures |= {"seconds": round(at.seconds, 2), "parameters": job.parameters()}
        figures |= {"epochs": trainer.epochs, "run": str(folder.path)}
        _print(figures, json_, job.sample())
        if not json_:
            made = sorted(
                path.name for path in folder.path.glob("*.*") if path.suffix in _LOOKED_AT
            )
            what = "Curves and samples" if "samples.txt" in made else "Curves"
            print(f"\n{what} are in {folder.path}: {', '.join(made)}.")
        _doubt(job, figures)

    train.__doc__ = f"{task.summary()} Afterwards, how well it does and a sample."
    return train


def _only_training(given: dict[str, Any], data: Any, recipe: Any, run: Any) -> None:
    allowed = {f.name for f in fields(TrainingSettings) if not f.metadata["fixed"]} | {"cell"}
    other = [flag(name) for name in given if name not in allowed]
    other += [n for n, v in (("DATA", data), ("--recipe", recipe), ("--run", run)) if v]
    if other:
        raise InputError(
            f"{', '.join(other)} cannot change when a run is resumed: leave it out, "
            "or train anew without --resume."
        )


def evaluate(
    given: dict[str, Any],
    run: Folder,
    data: Data = None,
    json_: Json = False,
    device: Device = "auto",
    cell: OwnCell = None,
    plot: Plot = None,
    companions: Companions = None,
) -> None:
    """Measure a trained model on DATA, or on what its training held out."""
    if plot is not None:
        check_path(plot)
    job = open_run(run, device, cell)
    join(job, companions or [], job.measured_together, "evaluate", device, cell)
    what = ", ".join(data or []) or "the data of its training"
    Progress(None, job.unit).say(f"{job.describe_model()}: reading and measuring {what} …")
    figures = job.evaluate(list(data or []), **given)
    if plot is not None:
        job.draw_measures(figures, plot)
    _print(figures, json_)
    _doubt(job, figures)


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
        run: NewRun = None,
        resume: Resume = None,
        json_: Json = False,
    ) -> None:
        from elman.training.comparison import compare_models, resume_comparison

        if not issubclass(task.Settings, NetworkSettings):
            raise InputError(
                f"{task.name} has no recurrent network whose cells could be compared: train it "
                "once for each of the settings instead."
            )
        if resume is not None:
            if given or data or recipe or run:
                raise InputError(
                    "--resume goes on with a comparison as it was begun: leave out all else but "
                    "--cells, for cells of your own."
                )
            own = [cell.strip() for cell in cells.split(",")]
            compared = resume_comparison(task, resume, Progress(None, task.unit), own)
        else:
            sources, settings = gather(task, recipe, given, list(data or []))
            name = f"compare-{task.name}-{short_name(sources)}"
            variants = _variants([cell.strip() for cell in cells.split(",")], hidden, settings)
            progress = Progress(settings.epochs, task.unit)
            folder = run or free_folder(name)
            compared = compare_models(task, sources, settings, variants, folder, progress)
        if not compared:  # the first of several processes tells
            return
        if json_:
            print_json(compared)
        else:
            _print_table(compared["rows"], compared["headline"], task.unit)
            print(f"\nCurves are in {compared['folder']}: comparison.png, comparison.json.")

    compare.__doc__ = f"{task.summary()} One model for each cell and size, side by side."
    return compare


def _variants(names: list[str], hidden: str, settings: Any) -> list[dict[str, Any]]:
    """What each model of a comparison has of its own."""
    sizes = numbers("--hidden", hidden)
    without = _without_forget_gate(names, sizes[0], settings)
    return [
        {"cell": cell, "hidden": size, **({"forget_bias": None} if cell in without else {})}
        for cell in names
        for size in sizes
    ]


def _print_table(rows: list[dict[str, Any]], headline: str, unit: str) -> None:
    columns = [
        "cell",
        "hidden",
        "parameters",
        headline,
        f"{unit}_per_second",
        "seconds",
    ]
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
    cell = run.config["settings"].get("cell", "")
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
            _print_rows(name, value)
    if sample:
        print(f"\n{sample}")


def _print_rows(name: str, rows: dict[str, dict[str, Any]]) -> None:
    """A table of figures, a row a source or a label; one that is too wide is for pictures."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if len(columns) <= _WIDEST:
        print_rows(
            [name, *(column.replace("_", " ") for column in columns)],
            [[key, *(figure(row.get(c), 4) for c in columns)] for key, row in rows.items()],
        )
