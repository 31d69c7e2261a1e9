"""JSON, and tensors in any nesting without pickle, in files that are whole or not there."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from elman.errors import ElmanError, brief, one_line
from elman.files import write_bytes
from elman.training.schema import Rule, anything

_KEY = "$tensor"
_COMPLEX = "$complex"
_PAIRS = "$pairs"
_TUPLE = "$tuple"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED = re.compile(r"[~/\[\ud800-\udfff]")


class Assets(dict[str, Any]):
    """What a job gave its run to keep, by name; what is not there is told in a sentence."""

    def __missing__(self, name: str) -> Any:
        raise ElmanError(f"{name!r} is missing: restore it or train anew.")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically; see :func:`to_json`."""
    write_bytes(path, (to_json(content, indent=2) + "\n").encode())


def to_json(content: Any, indent: int | None = None) -> str:
    """``content`` as JSON that every reader takes: what is infinite or no number becomes null."""
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), indent=indent, ensure_ascii=False)
    # Names of files may have surrogates, which UTF-8 has not: they are written as JSON writes them.
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(item) for item in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def from_json(text: str, rule: Rule = anything) -> Any:
    """What a JSON text says, if it fits a rule of :mod:`elman.training.schema`.

    Raises:
        ValueError: it is not JSON, nested too deeply, has numbers too long, or breaks the rule; the
            message says which, on one line.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"no JSON: {one_line(error, 100)}") from None
    rule(content, "")
    return content


def read_json(path: Path, rule: Rule = anything) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        rule: what it must hold; see :mod:`elman.training.schema`.

    Raises:
        ElmanError: it is missing, cannot be read, is not JSON or breaks the rule.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"), rule)
    except FileNotFoundError:
        raise ElmanError(f"{path} is missing: expected the folder of a run, whole.") from None
    except OSError as error:
        raise ElmanError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise damaged(path, error) from None


def read_lines(path: Path, rule: Rule) -> tuple[list[Any], list[str]]:
    """What a file of JSON lines holds, and what is wrong with each line that is left out.

    A line may be cut short where a process was killed or the disk was full, and no file but this is
    written line by line: the others stay good.
    """
    if not path.is_file():
        return [], []
    good, faults = [], []
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            good.append(from_json(text, rule))
        except ValueError as why:
            faults.append(one_line(f"line {number} of {path} is damaged and left out: {why}"))
    return good, faults


def damaged(path: Path, why: object) -> ElmanError:
    """The error of a file whose content cannot be used."""
    return ElmanError(f"{path} is damaged ({one_line(why)}): restore it or train anew.")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    """Write tensors by name as safetensors, atomically, with some texts beside them."""
    write_bytes(path, save({name: _alone(t) for name, t in tensors.items()}, metadata or None))


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor in memory of their own, as they are: no bit says how to read them."""
    return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().clone()


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the texts beside them.

    Raises:
        ElmanError: it is missing or damaged.
    """
    try:
        # By its content: safetensors opens no file whose path is not UTF-8.
        content = path.read_bytes()
        tensors = load(content)
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        return tensors, json.loads(header).get("__metadata__") or {}
    except FileNotFoundError:
        raise ElmanError(f"{path} is missing: expected the folder of a run, whole.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(path, error) from None


def write_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write any nesting of numbers, texts and tensors; see :func:`take_apart`."""
    tensors: dict[str, torch.Tensor] = {}
    plain = json.dumps(take_apart(tree, tensors))
    write_tensors(path, tensors, state=plain)


def read_tree(path: Path) -> dict[str, Any]:
    """What :func:`write_tree` wrote.

    Raises:
        ElmanError: it is missing or damaged.
    """
    tensors, texts = read_tensors(path)
    try:
        tree = put_together(from_json(texts["state"]), tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as why:
        raise damaged(path, why) from None
    if not isinstance(tree, dict):
        raise damaged(path, "it holds no values by name")
    return tree


def take_apart(tree: Any, tensors: dict[str, torch.Tensor], place: str = "") -> Any:
    """Plain JSON for any nesting of numbers, texts and tensors in lists, tuples and dicts.

    Its tensors go to ``tensors`` by their place in it, such as ``/optimizer/state/[0]/exp_avg``: a
    key that is a text stands as it is, but for ``/``, ``[``, ``~`` and surrogates, which stand as
    ``~2f~`` and so on; any other key stands in brackets. So no two places are one, whatever the
    keys. Tensors that share their memory come back as tensors of their own.

    Raises:
        TypeError: something else is in it.
    """
    if isinstance(tree, torch.Tensor):
        if place in tensors:
            raise TypeError(
                f"two tensors have the place {place!r}: give their keys different names."
            )
        # complex64 is the one complex type that safetensors has.
        paired = tree.is_complex() and tree.dtype != torch.complex64
        tensors[place] = torch.view_as_real(tree.detach().resolve_conj()) if paired else tree
        return {_COMPLEX if paired else _KEY: place}
    if isinstance(tree, dict):
        pairs = [
            [take_apart(key, {}, place), take_apart(value, tensors, f"{place}/{_name(key)}")]
            for key, value in tree.items()
        ]
        return {_PAIRS: pairs}
    if isinstance(tree, (list, tuple)):
        items = [take_apart(v, tensors, f"{place}/{k}") for k, v in enumerate(tree)]
        return {_TUPLE: items} if isinstance(tree, tuple) else items
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(
        f"{place or 'a checkpoint'} is {brief(tree)}, expected numbers, texts and tensors in "
        "lists, tuples and dicts."
    )


def _name(key: Any) -> str:
    """A key as part of a place: no two different ones have one name."""
    text = key if isinstance(key, str) else repr(key)
    escaped = _ESCAPED.sub(lambda found: f"~{ord(found[0]):x}~", text)
    return escaped if isinstance(key, str) else f"[{escaped}]"


def put_together(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What :func:`take_apart` took apart."""
    if isinstance(tree, list):
        return [put_together(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _KEY in tree:
        return tensors[tree[_KEY]]
    if _COMPLEX in tree:
        return torch.view_as_complex(tensors[tree[_COMPLEX]])
    if _TUPLE in tree:
        return tuple(put_together(item, tensors) for item in tree[_TUPLE])
    return {put_together(k, tensors): put_together(v, tensors) for k, v in tree[_PAIRS]}
