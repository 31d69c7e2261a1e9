"""How pictures look, and how they are written: a page that prints, in colour or in greys."""

from __future__ import annotations

import io
import logging
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.errors import ElmanError, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger("elman")

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
_DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1.2)), "-"]
_MARKERS = ["o", "s", "^", "D", "v", "p", "P", "*"]  # all of which may be hollow


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure in this page's style, in inches; draw and save it within the block.

    It leaves the user's own settings and windows of matplotlib alone.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        yield Figure(figsize=(width, height), layout="constrained")


def render(figure: Figure, format: str = "png") -> bytes:
    """The figure as the bytes of a file of that format, the same each time."""
    drawn = io.BytesIO()
    # A date would make every file differ from the last.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    figure.savefig(drawn, format=format, metadata=metadata)
    return drawn.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's name ends in.

    Raises:
        ElmanError: the file cannot be written.
    """
    try:
        path.write_bytes(render(figure, path.suffix[1:].lower()))
    except OSError as error:
        raise ElmanError(
            f"{path} could not be written ({error.strerror}): name a file in a folder that is "
            "there."
        ) from error


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


def style(k: int, count: int, points: int) -> dict[str, Any]:
    """How the k-th of ``count`` lines of so many points looks: told apart without colour."""
    import matplotlib

    shade = matplotlib.colormaps["viridis"](0.78 * k / max(1, count - 1))
    every = max(1, points // 8)
    return {
        "color": shade,
        "linestyle": _DASHES[k % len(_DASHES)],
        "marker": _MARKERS[k % len(_MARKERS)],
        "markevery": (k * every // max(1, count), every),  # not all at the same places
    }


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis over twelve decades at most: what is below would flatten the rest."""
    import numpy as np

    axes.set_yscale("log")
    whole_numbers(axes)
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in drawn] or [np.ones(1)])
    if values.size:
        top = values.max() * 3
        axes.set_ylim(max(values.min() / 3, top / 1e12), top)


def whole_numbers(axes: Axes) -> None:
    """Whole numbers along the x axis, also where there is one alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def legend_below(axes: Axes, columns: int = 1) -> None:
    """The names of the lines below the axes: where lines are many, they would cover them."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), borderaxespad=0, ncols=columns)


def entitle(figure: Figure, title: str) -> None:
    """Write what the whole figure is of above it, in fonts that have its characters."""
    if title:
        (shown,), families = writable([title])
        figure.suptitle(shown, family=families, parse_math=False)


def label_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    """Write a text's tokens under the columns of ``axes``, in fonts that have them."""
    shown, families = writable([_visible(token) for token in tokens])
    upright = all(len(token) == 1 for token in shown)
    axes.set_xticks(
        range(len(shown)), shown, family=families, rotation=0 if upright else 90, fontsize=8,
        parse_math=False,  # a price in dollars is no formula
    )  # fmt: skip


def writable(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts as they can be drawn, and the families of fonts that have their characters.

    Characters that no font has stand as their code point, U+4E2D: better than a row of boxes. What
    to install for them is logged.
    """
    wanted = "".join(dict.fromkeys("".join(texts)))
    families, left = _families(wanted)
    if left and _newly_installed():
        families, left = _families(wanted)
    if left and (remedy := _to_install(left)) not in _ADVISED:
        _ADVISED.add(remedy)
        shown = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        _logger.warning(
            "no font here has %s, so that code points are drawn in place of characters; install "
            "one that has, such as with `%s`.", shown, remedy,
        )  # fmt: skip
    spelled = {c: f"U+{ord(c):04X}" for c in left}
    return ["".join(spelled.get(c, c) for c in text) for text in texts], families


_ADVISED: set[str] = set()
"""What was said already in this process: one picture has several texts."""


def _families(wanted: str) -> tuple[list[str], str]:
    """The families of fonts that have the characters, and those that none has."""
    families: list[str] = []
    for name, file in _installed().items():
        lacking = "".join(c for c in wanted if ord(c) not in _has(file))
        if len(lacking) < len(wanted) or not families:
            families.append(name)
            wanted = lacking
        if not wanted:
            break
    return families, wanted


def _newly_installed() -> bool:
    """Make fonts known that came since matplotlib last looked; whether there were any.

    It keeps a list of fonts across processes, in which a font that was just installed is not.
    """
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    new = [file for file in findSystemFonts() if file not in known]
    for file in new:
        with suppress(OSError, RuntimeError, ValueError):  # one that cannot be read
            fontManager.addfont(file)
    return len(fontManager.ttflist) > len(known)


def _to_install(lacking: str) -> str:
    """What to type to install a font with these characters."""
    # The unified ideographs, kana, hangul, and the punctuation and full-width forms beside them.
    east_asian = any(c in "WF" for c in map(unicodedata.east_asian_width, lacking))
    for tool, command, wide, other in _MANAGERS:
        if shutil.which(tool):
            return f"{command} {wide if east_asian else other}"
    return "your system's package of Noto fonts"


_MANAGERS = (
    ("apt-get", "apt-get install", "fonts-noto-cjk", "fonts-noto-core"),
    ("dnf", "dnf install", "google-noto-sans-cjk-fonts", "google-noto-sans-fonts"),
    ("pacman", "pacman -S", "noto-fonts-cjk", "noto-fonts"),
    ("apk", "apk add", "font-noto-cjk", "font-noto-all"),
    ("brew", "brew install", "font-noto-sans-cjk", "font-noto-sans"),
)
"""What installs packages, and its packages of East Asian fonts and of fonts for other scripts."""


def _visible(token: str) -> str:
    """Spaces and line ends as signs that can be seen."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(signs.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in token)


def _installed() -> dict[str, str]:
    """The files of this machine's fonts by family, those that suit a text first."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import fontManager

    # Beside DejaVu, matplotlib brings fonts of symbols only, and one of boxes for all characters.
    brought = get_data_path()
    usable = [
        font
        for font in sorted(fontManager.ttflist, key=lambda font: font.name)
        if (font.name == _FIRST[0] or not font.fname.startswith(brought))
        and "LastResort" not in font.name.replace(" ", "")
    ]
    files = {font.name: font.fname for font in usable}
    files |= {font.name: font.fname for font in usable if (font.style, font.weight) == _PLAIN}

    def rank(name: str) -> int:
        return next((k for k, sign in enumerate(_FIRST) if sign in name), len(_FIRST))

    return {name: files[name] for name in sorted(files, key=rank)}


_PLAIN = ("normal", 400)
_FIRST = (
    "DejaVu Sans", "CJK SC", "CJK", "Source Han", "WenQuanYi", "PingFang", "YaHei", "SimHei",
    "Droid Sans Fallback",
)  # fmt: skip


@cache
def _has(file: str) -> frozenset[int]:
    """The code points that a font has a sign for."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):  # a font that cannot be read has none
        return frozenset()
