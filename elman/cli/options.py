"""From declared settings to the options of a command, and back."""

from __future__ import annotations

import inspect
import shutil
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cli.arguments import numbers
from elman.errors import InputError
from elman.training.settings import Settings, default_of, read_recipe
from elman.training.task import Task

_SINGULAR = {"prompts": "prompt"}
_NAMES = {int: "<int>", float: "<number>", str: "<text>"}


def program() -> str:
    """What to type for this command here: its path, where it is not among the known commands."""
    typed = Path(sys.argv[0])
    return str(typed) if typed.name == "elman" and shutil.which("elman") is None else "elman"


def with_settings(
    *settings: type[Settings], leave_out: frozenset[str] = frozenset()
) -> Callable[..., Any]:
    """Give a command an option for each setting; it receives those that were given as ``given``.

    Args:
        settings: the declared settings; those of the same name are one option.
        leave_out: the names of those that the command sets itself.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True)
        kinds = {n: kind for each in settings for n, kind in typing.get_type_hints(each).items()}
        every = {f.name: f for each in settings for f in fields(each)}
        declared = [f for f in every.values() if f.name not in leave_out]
        panels = {name: panel for each in settings for name, panel in panels_of(each).items()}

        def run(**values: Any) -> Any:
            options = {f.name: values.pop(f.name) for f in declared}
            given = {
                f.name: _value(f, kinds[f.name], options[f.name])
                for f in declared
                if options[f.name] not in (None, [])
            }
            return command(**values, given=given)

        parameters = [p for p in own.parameters.values() if p.name != "given"]
        parameters += [_parameter(f, kinds[f.name], panels[f.name]) for f in declared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return decorate


def gather(
    task: type[Task], recipe: Path | None, given: dict[str, Any], data: list[str]
) -> tuple[list[str], Any]:
    """The data and the settings of a job: a recipe's, overridden by what was given.

    Raises:
        InputError: a setting is unknown or out of bounds, or the recipe is for another job.
    """
    read = read_recipe(recipe) if recipe is not None else {}
    if read.pop("task", task.name) != task.name:
        raise InputError(f"{recipe} is a recipe for another job than {task.name}: name that job.")
    listed = read.pop("data", [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"data in {recipe} must be a list of names, received {listed!r}.")
    return data or listed, task.Settings.of(read, given)


def _parameter(declared: Field[Any], kind: Any, panel: str) -> inspect.Parameter:
    """The command-line parameter of a setting; it is None (or empty) where it is not given."""
    plain = _plain(kind)
    name = flag(declared.name)
    listed = plain is list
    inner = typing.get_args(_without_none(kind))[0] if listed else plain
    repeated = listed and inner is str
    # Numbers arrive as text, so that elman says what is wrong with them as it does for a recipe.
    annotation = bool | None if plain is bool else list[str] if repeated else str | None
    flags = f"{name}/--no-{name[2:]}" if plain is bool else name
    choices = declared.metadata["choices"]
    described = declared.metadata["help"]
    if choices:
        described += f" One of {', '.join(choices)}."
    option = typer.Option(
        flags,
        help=f"{described}  [{_shown(declared)}]",
        show_default=False,
        rich_help_panel=panel,
        metavar=None if plain is bool else "A,B,…" if listed and not repeated else _NAMES[inner],
    )
    return inspect.Parameter(
        declared.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=[] if repeated else None,
        annotation=Annotated[annotation, option],
    )


def _value(declared: Field[Any], kind: Any, given: Any) -> Any:
    """What was given on the command line, as the setting's type where it can be."""
    plain = _plain(kind)
    if plain is list and isinstance(given, str):
        return numbers(flag(declared.name), given)
    if plain in (int, float):
        try:
            return plain(given)
        except ValueError:
            return given
    return given


def flag(setting: str) -> str:
    """The option that a setting is given with."""
    return f"--{_SINGULAR.get(setting, setting).replace('_', '-')}"


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(kind) if a is not type(None))
    return kind


def _plain(kind: Any) -> type:
    kind = _without_none(kind)
    return typing.get_origin(kind) or kind


def _shown(declared: Field[Any]) -> str:
    default = default_of(declared)
    if default is None or default == []:
        return declared.metadata.get("unset", "none")
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def panels_of(settings: type[Settings]) -> dict[str, str]:
    """Under which heading ``--help`` shows each setting: that of the group which declares it."""
    found: dict[str, str] = {}
    for group in reversed(settings.__mro__[:-1]):
        if issubclass(group, Settings):
            found |= dict.fromkeys(vars(group).get("__annotations__", ()), group.panel)
    return found
