"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from elman.errors import ElmanError

# What write_bytes calls a file of ours until it is whole.
_TEMPORARY = re.compile(r"\.[\w-]+\.(json|jsonl|safetensors|png|svg|txt)\.[a-z0-9_]{8}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at every moment the old one or the whole new one is there.

    Raises:
        ElmanError: it cannot be written, for lack of space or permission.
    """
    handle, name = -1, ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:  # an impatient Ctrl-C, too, must leave nothing half-written
        if name and os.path.exists(name):
            os.unlink(name)
        if not isinstance(error, OSError):
            raise
        raise ElmanError(
            f"{path} could not be written ({error.strerror}): free some space or choose another "
            "folder; what was there before is untouched."
        ) from error


def copy_file(source: Path, path: Path) -> None:
    """Copy a file of any size so that the copy is whole or not there.

    Raises:
        ElmanError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.copy")
    try:
        shutil.copyfile(source, aside)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ElmanError(
            f"{path} could not be written ({error.strerror}): free some space or choose another "
            "folder."
        ) from error


def clear_temporary(folder: Path) -> None:
    """Take away what killed writes into a folder have left; nobody may be writing there now."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
