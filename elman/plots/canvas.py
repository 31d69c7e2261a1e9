"""Where every picture is drawn: a page that prints, in colour or in greys, and the files of it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.errors import ElmanError, InputError
from elman.files import write_bytes
from elman.plots.fonts import writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")

# Perceptually uniform, and as readable in greys: lightness alone tells the values.
COLOUR_MAP = "cividis"

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "elman",
    "savefig.dpi": 120,
}


@contextmanager
def canvas(
    path: Path | Sequence[Path], width: float, height: float, title: str = ""
) -> Iterator[Figure]:
    """A figure in this page's style; what is drawn within the block is written at its end.

    It leaves the user's own settings, backend and windows of matplotlib alone: not pyplot makes the
    figure.

    Args:
        path: the file, or several in different formats.
        width, height: inches.
        title: what the whole figure is of, such as the model and its data.

    Raises:
        InputError: a file's name ends in no known format.
        ElmanError: a file cannot be written; those that were there before are as they were.
    """
    paths = [path] if isinstance(path, Path) else path
    for each in paths:
        check_path(each)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        if title:
            entitle(figure, title)
        for each in paths:
            save(figure, each)


def entitle(figure: Figure, title: str) -> None:
    """Write what the whole figure is of above it, in fonts that have its characters."""
    (shown,), families = writable([title])
    figure.suptitle(shown, family=families, parse_math=False)


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's name ends in, the same bytes each time."""
    drawn, format = io.BytesIO(), path.suffix[1:].lower()
    # A date would make every file differ from the last.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    figure.savefig(drawn, format=format, metadata=metadata)
    write_bytes(path, drawn.getvalue())


def check_path(path: Path) -> None:
    """Refuse the name of a picture that cannot be drawn, before anything is computed for it.

    Raises:
        InputError: it ends in no known format.
        ElmanError: its folder is not there.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"a picture's name must end in one of {', '.join(FORMATS)}, received {str(path)!r}."
        )
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse a file whose folder is not there, before anything is computed for it.

    Raises:
        ElmanError: it is not there.
    """
    if not path.absolute().parent.is_dir():
        raise ElmanError(f"no folder {str(path.parent)!r} for {path.name}: make it first.")
