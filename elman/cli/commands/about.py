"""What there is: cells, corpora, and what this machine can do."""

from __future__ import annotations

import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Json, size
from elman.cli.output import print_json
from elman.cli.tables import print_rows, show, table


def add_to(app: App) -> None:
    """Add these commands to ``app``."""
    app.command(epilog="elman cells lstm --input 128 --hidden 64")(cells)
    app.command(epilog="elman data tiny-shakespeare")(data)
    app.command(epilog="elman doctor")(doctor)


def cells(
    name: Annotated[
        str | None, typer.Argument(help="A cell; without it, all.", show_default=False)
    ] = None,
    input: Annotated[int, size("Input size M.")] = 128,
    hidden: Annotated[int, size("Hidden size H.")] = 64,
    biases: Annotated[int, size("Biases of a map: 0, 1, 2 (torch.nn).")] = 1,
    json_: Json = False,
) -> None:
    """List the cells, or describe one: equations, states, parameters."""
    from elman.cells import registry

    entries = [registry.find(name)] if name else list(registry.CELLS.values())
    rows = [_cell(entry, input, hidden, biases, alone=name is not None) for entry in entries]
    if json_:
        print_json(rows[0] if name else rows)
    elif name:
        _describe(rows[0])
    else:
        columns = ("cell", "states", f"parameters ({input} → {hidden})", "what it is")
        listed = table(columns, left=("states", "what it is"))
        family = None
        for row in rows:
            if row["family"] != family:
                family = row["family"]
                listed.add_row(f"\n{family}", style="bold")
            listed.add_row(
                row["cell"], ", ".join(row["states"]), _count(row["parameters"]), row["summary"]
            )
        show(listed)


def _cell(entry: Any, input: int, hidden: int, biases: int, alone: bool) -> dict[str, Any]:
    """What is known of a cell; in a list, of one that cannot have these sizes, all but its own.

    One that is alone is run for two steps, as it is in a network.
    """
    import torch

    from elman.cells import registry
    from elman.errors import InputError
    from elman.layers import Recurrent
    from elman.training.memory import if_it_fits

    row: dict[str, Any] = {
        "cell": entry.name,
        "family": entry.family,
        "summary": entry.summary,
        "source": entry.source,
        "equations": entry.equations,
        "states": {},
        "input": input,
        "hidden": hidden,
        "biases": biases,
        "weights": None,
        "formula": entry.count,
        "parameters": None,
        "engine": None,
    }
    try:
        cell = if_it_fits(lambda: registry.make(entry.name, input, hidden, biases=biases))
    except InputError:
        if alone or min(input, hidden) < 1 or biases not in (0, 1, 2):
            raise
        return row | {"states": dict.fromkeys(entry.cell.state)}
    if alone:  # what is wrong with a step shows where it runs
        network = Recurrent(cell)
        network(torch.zeros(2, 1, input))
        row["engine"] = network.engine
    return row | {
        "states": dict(zip(cell.state, cell.state_sizes, strict=True)),
        "weights": {name: list(p.shape) for name, p in cell.named_parameters()},
        "parameters": sum(p.numel() for p in cell.parameters()),
    }


def _count(parameters: int | None) -> str:
    return "–" if parameters is None else f"{parameters:,}"


def _describe(row: dict[str, Any]) -> None:
    print(f"{row['cell']}: {row['summary']}\n")
    for line in row["equations"]:
        print(f"  {line}")
    states = ", ".join(f"{name} ({size})" for name, size in row["states"].items())
    print(f"\nsource      {row['source']}" if row["source"] else "")
    print(f"states      {states}")
    print(f"engine      {row['engine']}")
    two = any(name.startswith("bias_hh") for name in row["weights"])
    one = any(name.startswith("bias_") for name in row["weights"])
    biases = "two biases, as in torch.nn" if two else "one bias" if one else "no bias"
    print(f"parameters  {row['parameters']:,} ({row['input']} → {row['hidden']}, {biases})")
    if row["formula"]:
        print(f"            {row['formula']}, for M inputs, H units and one bias")
    for name, shape in row["weights"].items():
        second = "  torch.nn's second bias" if name.startswith("bias_hh") else ""
        print(f"  {name:<22} {' × '.join(map(str, shape)):<12} {math.prod(shape):>12,}{second}")


def data(
    name: Annotated[
        str | None, typer.Argument(help="A corpus; without it, all.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """List the corpora, or fetch one and say where its files are."""
    from elman.data.corpora import CORPORA, find
    from elman.data.corpus import status

    if name:
        corpus = find(name)
        paths = [str(path) for path in corpus.paths()]
        if json_:
            print_json({"name": name, "files": paths})
            return
        print(f"{corpus.name}: {corpus.title}\nof        {corpus.kinds}")
        parts = ", ".join(part for part, files in corpus.parts.items() if files)
        print(f"parts     {parts or 'none of its own'}\nlicence   {corpus.licence}")
        print(f"source    {corpus.base or 'none that is pinned'}")
        print("files     " + "\n          ".join(paths[:20]))
        if len(paths) > 20:
            print(f"          … {len(paths):,} in all")
        return
    rows: list[dict[str, Any]] = [
        {
            "name": c.name,
            "title": c.title,
            "kind": c.kinds,
            "parts": [part for part, files in c.parts.items() if files],
            "licence": c.licence,
            "size": c.size,
            "status": status(c),
        }
        for c in CORPORA.values()
    ]
    if json_:
        print_json(rows)
        return
    print_rows(
        ("corpus", "what it is", "of", "parts", "licence", "MB", "status"),
        [
            (
                c["name"],
                c["title"],
                c["kind"],
                ", ".join(c["parts"]),
                c["licence"],
                f"{c['size'] / 1e6:.1f}",
                c["status"],
            )
            for c in rows
        ],
        left=("what it is", "of", "parts", "licence", "status"),
    )


def doctor(json_: Json = False) -> None:
    """Say what this machine has: versions, devices, threads, compiler, data."""
    found = _findings()
    if json_:
        print_json(found)
        return
    for name, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        label = name if name.isupper() else name.replace("_", " ")
        print(f"{label:<14} {shown}")


def _findings() -> dict[str, Any]:
    import torch

    from elman.compiler.cpu import status as native_status
    from elman.data.corpora import CORPORA
    from elman.data.corpus import status
    from elman.engines.choice import ENGINES
    from elman.errors import ElmanError
    from elman.version import __version__

    native = native_status()
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    folder = os.environ.get("ELMAN_DATA")
    try:
        here = [c.name for c in CORPORA.values() if not status(c).startswith("to download")]
    except ElmanError as error:
        here = [f"none can be read: {error}"]
    return {
        "elman": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "torch": torch.__version__,
        "packages": [
            f"{p} {_version(p)}" for p in ("numpy", "lightning-fabric", "tokenizers", "pooch")
        ],
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *gpus],
        "engines": list(ENGINES),
        "native_engine": native.pop("engine"),
        **{name: value for name, value in native.items() if name != "threads"},
        "ELMAN_DATA": folder or "not set: corpora that are not shipped are downloaded",
        "corpora": here,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
