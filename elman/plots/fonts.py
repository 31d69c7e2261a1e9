"""Fonts that have a text's characters, Chinese ones too, and what to do where none has."""

from __future__ import annotations

import logging
import shutil
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

_logger = logging.getLogger("elman")


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


def visible(token: str) -> str:
    """Spaces and line ends as signs that can be seen."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(signs.get(c, c if c.isprintable() else f"U+{ord(c):04X}") for c in token)


def inches(texts: Sequence[str], size: float = 8.0) -> float:
    """About how wide the widest of the texts is at a font size in points, an em at least."""
    widths = (
        sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text) for text in texts
    )
    return size / 72 * max(1.0, *widths)


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
