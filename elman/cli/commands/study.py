"""``elman study``: what recurrences can do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Resume
from elman.cli.figures import figure
from elman.cli.options import program, with_settings
from elman.cli.output import print_json
from elman.cli.progress import Progress
from elman.cli.tables import print_rows
from elman.errors import ElmanError, InputError
from elman.studies import STUDIES, Study, TrainedStudy

Json = Annotated[bool, typer.Option("--json", help="Print as one line of JSON.")]
Folder = Annotated[
    Path | None, typer.Option(help="The folder to make.", show_default="runs/study-…")
]
_EXAMPLES = {
    "adding": "elman study adding --cell lstm --length 600 --hidden 64 --seeds 5",
    "turing": "elman study turing --machine palindrome --word 0110 --weights",
}


def add_to(app: App) -> None:
    """Add this command to ``app``: a subcommand for each study."""
    group = App(
        invoke_without_command=True,
        help="What recurrences can do: counting, long time lags, chaos, any computation.",
        epilog=f"{_EXAMPLES['adding']}",
    )
    group.callback()(studies)
    for name, study in STUDIES.items():
        example = _EXAMPLES.get(name, f"elman study {name}")
        made = _trained(study) if issubclass(study, TrainedStudy) else _computed(study)
        made.__doc__ = f"{study.subject[0].upper()}{study.subject[1:]} ({study.source})."
        group.command(name, epilog=example)(made)
    app.add_typer(group, name="study")


def studies(context: typer.Context, json_: Json = False) -> None:
    """List the studies."""
    if context.invoked_subcommand is not None:
        return
    rows = [{"name": s.name, "subject": s.subject, "source": s.source} for s in STUDIES.values()]
    if json_:
        print_json(rows)
    else:
        _print_rows(rows)


def _computed(study: type[Study]) -> Any:
    @with_settings(study.Settings)
    def command(given: dict[str, Any], run: Folder = None, json_: Json = False) -> None:
        from elman.training import storage
        from elman.training.run import free_folder, refuse_existing

        settings = study.Settings.of(given)
        folder = run or free_folder(f"study-{study.name}")
        refuse_existing(folder)
        carried_out = study(settings)
        with Progress(None, "networks") as report:
            outcome = carried_out.run(report)
        folder.mkdir(parents=True)
        found = {"study": study.name, "settings": settings.to_json(), "rows": outcome.rows}
        storage.write_json(folder / "study.json", found | outcome.details)
        for kind in ("png", "svg"):
            carried_out.draw(outcome, folder / f"study.{kind}")
        _print(found | outcome.details, folder, json_)

    return command


def _trained(study: type[TrainedStudy]) -> Any:
    @with_settings(study.Settings, leave_out=study.fixed | {"epochs", "seed"})
    def command(
        given: dict[str, Any],
        seeds: Annotated[
            int | None,
            typer.Option(help="How many networks.", show_default="the study's", min=1),
        ] = None,
        seed: Annotated[
            list[str] | None,
            typer.Option(
                help="The first network's seed; given again and again, those of all.",
                metavar="<int>",
                show_default="0",
            ),
        ] = None,
        run: Folder = None,
        resume: Resume = None,
        json_: Json = False,
    ) -> None:
        from elman.studies.series import resume_all, train_all
        from elman.training.run import free_folder

        if resume is not None:
            if seeds is not None or seed or run is not None:
                raise InputError(
                    "--seeds, --seed and --run cannot change when a study is resumed: leave them "
                    "out, or begin anew without --resume."
                )
            folder = resume
            found = resume_all(study, folder, given, Progress(None, study.unit))
        else:
            settings = study.Settings.of(given)
            chosen = _seeds(study, settings, seeds, seed or [])
            folder = run or free_folder(f"study-{study.name}")
            found = train_all(study, settings, chosen, folder, Progress(None, study.unit))
        if not found:  # another process says it
            return
        _print(found, folder, json_)
        if found["interrupted"]:
            words = [program(), "study", study.name, "--resume", str(folder)]
            cell = found["settings"]["cell"]
            again = shlex.join([*words, "--cell", cell] if ".py:" in cell else words)
            raise ElmanError(f"interrupted, all of it kept: go on with {again}")

    return command


def _seeds(
    study: type[TrainedStudy], settings: Any, count: int | None, given: Sequence[str]
) -> list[int]:
    """The seeds of the networks: those given, or ``count`` from the one that was given."""
    if len(given) > 1 and count is not None:
        raise InputError("--seeds counts from one --seed: leave out the one or the others.")
    each = [{"seed": int(s) if s.lstrip("-").isdecimal() else s} for s in given or ["0"]]
    chosen = [study.Settings.of(settings.to_json(), seed).seed for seed in each]
    return chosen if len(given) > 1 else [chosen[0] + k for k in range(count or study.seeds)]


def _print(found: dict[str, Any], folder: Path, json_: bool) -> None:
    if json_:
        print_json({**found, "folder": str(folder)})
    elif found["rows"]:
        _print_rows(found["rows"])
        print(f"\nFigures and plot are in {folder}: study.json, study.png, study.svg.")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    words = [name for name, value in rows[0].items() if isinstance(value, str | bool)]
    print_rows(list(rows[0]), [[*map(figure, row.values())] for row in rows], left=words)
