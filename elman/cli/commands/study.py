"""``elman study``: what recurrences can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.figures import figure
from elman.cli.options import with_settings
from elman.cli.output import print_json
from elman.cli.tables import print_rows
from elman.errors import ElmanError
from elman.studies import STUDIES, Study

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
        group.command(name, epilog=example)(_command(study))
    app.add_typer(group, name="study")


def studies(context: typer.Context, json_: Json = False) -> None:
    """List the studies."""
    if context.invoked_subcommand is not None:
        return
    rows = [{"name": p.name, "title": p.title, "source": p.source} for p in STUDIES.values()]
    if json_:
        print_json(rows)
    else:
        _print_rows(rows)


def _command(study: type[Study]) -> Any:
    @with_settings(study.Settings)
    def command(given: dict[str, Any], run: Folder = None, json_: Json = False) -> None:
        from elman.cli.progress import Progress
        from elman.training import storage
        from elman.training.run import free_folder, refuse_existing

        settings = study.Settings.of(given)
        folder = run or free_folder(f"study-{study.name}")
        refuse_existing(folder)
        task = study(settings)
        with Progress(getattr(settings, "seeds", None), "updates") as report:
            outcome = task.run(report)
        folder.mkdir(parents=True)
        found = {
            "study": study.name, "settings": settings.to_json(), "rows": outcome.rows,
            "interrupted": task.interrupted, **outcome.details,
        }  # fmt: skip
        storage.write_json(folder / "study.json", found)
        for kind in ("png", "svg"):
            task.draw(outcome, folder / f"study.{kind}")
        if json_:
            print_json({**found, "folder": str(folder)})
        else:
            _print_rows(outcome.rows)
            print(f"\nFigures and plot are in {folder}: study.json, study.png, study.svg.")
        if task.interrupted:
            raise ElmanError(f"interrupted: what was found until then is in {folder}.")

    command.__doc__ = f"{study.title[0].upper()}{study.title[1:]} ({study.source})."
    return command


def _print_rows(rows: list[dict[str, Any]]) -> None:
    words = [name for name, value in rows[0].items() if isinstance(value, str | bool)]
    print_rows(list(rows[0]), [[*map(figure, row.values())] for row in rows], left=words)
