"""``elman bench``: side by side with what a user would pick instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from elman.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print the rows as one line of JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command(epilog="Example: elman bench --cells lstm,gru --works train,step")(bench)


def bench(
    cells: Annotated[str, typer.Option(help="Of lstm, gru, rnn, peephole.")] = "lstm,gru,rnn",
    works: Annotated[str, typer.Option(help="Of train, forward, step.")] = "train",
    peers: Annotated[str, typer.Option(help="Of torch.nn, loop, torch.compile.")] = "torch.nn",
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Input:hidden:layers:batch:steps, with commas between.", show_default="six"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="To measure each pair.")] = 2.0,
    engine: Annotated[str, typer.Option(help="auto, native, torch, reference.")] = "auto",
    plot: Annotated[
        Path | None, typer.Option(help="Draw the ratios into this file.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """Compare speed, pair by pair in one process: interleaved, warmed up, medians."""
    import elman
    from elman.compiler import bench as measured

    chosen = measured.SHAPES if shapes is None else [_shape(text) for text in shapes.split(",")]
    rows = []
    with elman.engine(engine):
        pairs = measured.bench(
            works.split(","), cells.split(","), chosen, peers.split(","), seconds
        )
        for row in pairs:
            rows.append(row)
            print(f"{row.work} {row.cell} {row.ratio:.2f} × {row.peer}", file=sys.stderr)
    if plot is not None:
        measured.plot(rows, plot)
    if json_:
        print(json.dumps({"machine": measured.machine(), "rows": measured.as_json(rows)}))
    else:
        print(measured.table(rows))


def _shape(text: str) -> tuple[int, int, int, int, int]:
    try:
        input, hidden, layers, batch, steps = (int(part) for part in text.split(":"))
    except ValueError:
        raise InputError(
            f"a shape is input:hidden:layers:batch:steps, as 28:256:2:32:35 is, received {text!r}."
        ) from None
    return input, hidden, layers, batch, steps
