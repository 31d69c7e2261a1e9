"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from elman.errors import InputError, brief

_Number = TypeVar("_Number", int, float)

Data = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files (also .gz), folders of them, corpora that `elman data` lists, or - for "
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
Json = Annotated[bool, typer.Option("--json", help="Print as one line of JSON.")]
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
Companions = Annotated[
    list[Path] | None,
    typer.Option(
        "--with", help="Another run that answers with it, as an average; again for more.",
        show_default=False,
    ),
]  # fmt: skip
NewRun = Annotated[Path | None, typer.Option(help="The folder to make.", show_default="runs/…")]
Resume = Annotated[
    Path | None,
    typer.Option(help="Go on with what this folder has, from its checkpoint.", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw into this file: .png, .svg or .pdf.", show_default=False),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Fixes every draw.")]


def size(help: str, most: int = 2**31 - 1) -> Any:
    """The option of a size that is no setting: a whole number, one that torch can count to."""
    return typer.Option(help=help, max=most)


def numbers(name: str, text: str, kind: Callable[[str], _Number] = int) -> list[_Number]:
    """The numbers of a text such as ``64,128``, whole ones unless ``kind`` is float.

    Raises:
        InputError: it is not such a text.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(
            f"{name} must be {what} with commas, such as 64,128, received {brief(text)}."
        ) from None
