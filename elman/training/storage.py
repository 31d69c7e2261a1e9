"""Files that are whole or not there: atomic writes, and tensors in any nesting without pickle."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from elman.errors import ElmanError

_KEY = "$tensor"
_PAIRS = "$pairs"
_TUPLE = "$tuple"


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


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ElmanError: it is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ElmanError(f"{path} is missing: expected the folder of a run, whole.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ElmanError(f"{path} is damaged ({error}): restore it or train anew.") from None
    except OSError as error:
        raise ElmanError(f"{path} cannot be read ({error.strerror}).") from error


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors by name as safetensors, atomically."""
    ready = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_bytes(path, save(ready))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ElmanError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ElmanError(f"{path} is missing: expected the folder of a run, whole.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ElmanError(f"{path} is damaged ({error}): restore it or train anew.") from None


def take_apart(tree: Any, tensors: dict[str, torch.Tensor], place: str = "") -> Any:
    """Plain JSON for ``tree``; its tensors go to ``tensors``, by their place in it."""
    if isinstance(tree, torch.Tensor):
        tensors[place] = tree
        return {_KEY: place}
    if isinstance(tree, dict):
        pairs = [[k, take_apart(v, tensors, f"{place}/{k}")] for k, v in tree.items()]
        return {_PAIRS: pairs}
    if isinstance(tree, (list, tuple)):
        items = [take_apart(v, tensors, f"{place}/{k}") for k, v in enumerate(tree)]
        return {_TUPLE: items} if isinstance(tree, tuple) else items
    return tree


def put_together(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What :func:`take_apart` took apart."""
    if isinstance(tree, list):
        return [put_together(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _KEY in tree:
        return tensors[tree[_KEY]]
    if _TUPLE in tree:
        return tuple(put_together(item, tensors) for item in tree[_TUPLE])
    return {key: put_together(value, tensors) for key, value in tree[_PAIRS]}
