"""Writes the table of sizes and checksums that the corpus registry reads.

Run by whoever adds a corpus, once its files lie in the folder that ``ELMAN_DATA`` names::

    python -m elman.data.checksums tang-poems chinese-poetry/唐诗 'poet.tang.*.json'
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

FILES = Path(__file__).parent / "files"
TABLE = FILES / "checksums.json"


class Entry(NamedTuple):
    """One file of a corpus: its size in bytes and its SHA-256 in 64 hexadecimal digits."""

    size: int
    sha256: str


def load() -> dict[str, dict[str, Entry]]:
    """Return the files of every corpus: corpus name → file path → size and SHA-256."""
    table = json.loads(TABLE.read_text("utf-8"))
    return {
        name: {path: Entry(*entry) for path, entry in files.items()}
        for name, files in table.items()
    }


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add(name: str, folder: Path, patterns: list[str]) -> dict[str, Entry]:
    """Enter the files of ``folder`` that match, pattern by pattern, under a corpus name."""
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern), key=_natural)]
    files = {
        path.relative_to(folder).as_posix(): Entry(path.stat().st_size, sha256(path))
        for path in paths
    }
    table = {**load(), name: files} if TABLE.exists() else {name: files}
    lines = ",\n".join(_corpus_lines(corpus, table[corpus]) for corpus in sorted(table))
    TABLE.write_text(f"{{\n{lines}\n}}\n", "utf-8")
    return files


def _corpus_lines(name: str, files: dict[str, Entry]) -> str:
    # A file a line, so that a change to one file is one line of a diff.
    rows = ",\n".join(
        f"    {json.dumps(path, ensure_ascii=False)}: {json.dumps(entry)}"
        for path, entry in files.items()
    )
    return f"  {json.dumps(name)}: {{\n{rows}\n  }}"


def _natural(path: Path) -> list[tuple[int, str]]:
    # poet.tang.9000 comes before poet.tang.10000.
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part) if part.isdigit() else -1, part) for part in parts]


if __name__ == "__main__":
    corpus, place, *wanted = sys.argv[1:]
    added = add(corpus, Path(os.environ["ELMAN_DATA"]) / place, wanted)
    print(f"{corpus}: {len(added)} files, {sum(entry.size for entry in added.values()):,} bytes")
