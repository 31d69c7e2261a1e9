"""``elman bench``: side by side with what a user would pick instead."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Json, numbers
from elman.cli.figures import clock
from elman.cli.output import print_json
from elman.errors import InputError
from elman.plots.canvas import check_folder, check_path
from elman.training.storage import to_json

if TYPE_CHECKING:
    from elman.bench import Comparison, Measurement, Profile

_CELLS = "lstm,gru,rnn"
_EXAMPLES = """elman bench --cells lstm,gru --workloads train,step
elman bench --workloads step --cells lstm --peers torch.nn,onnxruntime --threads 1
elman bench --all --threads 1,2 --out speed.json --plot speed.png
elman bench --profile --cells gru --shapes 128:128:1:16:100"""


def add_to(app: App) -> None:
    """Add this command to ``app``."""
    app.command(epilog=_EXAMPLES)(bench)


def bench(
    cells: Annotated[
        str, typer.Option(help="Of lstm, gru, rnn, and two as one's own: peephole, lem.")
    ] = _CELLS,
    workloads: Annotated[
        str,
        typer.Option(
            help="Of train, forward, step, memory, compile, generate, main-job, transforms."
        ),
    ] = "train",
    peers: Annotated[
        str, typer.Option(help="Of torch.nn, loop, torch.compile (slow), onnxruntime, jax.")
    ] = "torch.nn",
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Input:hidden:layers:batch:steps, with commas between.",
            show_default="those of the workload",
        ),
    ] = None,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All that elman means to reach, target by target: some minutes a thread count.",
        ),
    ] = False,
    threads: Annotated[
        str | None,
        typer.Option(help="Numbers of threads, such as 1,4.", show_default="PyTorch's"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="To measure each pair.")] = 2.0,
    engine: Annotated[str, typer.Option(help="auto, native, torch, reference.")] = "auto",
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where elman's time goes; compare nothing.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the ratios into this file.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write rows and machine (or the profile) into this file.", show_default=False
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Compare speed and memory, pair by pair: in turns, warmed up, medians, the same threads."""
    from elman import bench as measured
    from elman.engines import choice

    if all_ and (cells, workloads, peers, shapes) != (_CELLS, "train", "torch.nn", None):
        raise InputError(
            "--all says itself what is measured: leave out --cells, --workloads, --peers and "
            "--shapes."
        )
    if profile and plot is not None:
        raise InputError(
            "--profile compares nothing, so there is nothing to draw: leave out --plot."
        )
    if plot is not None:
        check_path(plot)
    if out is not None:
        check_folder(out)
    chosen = None if shapes is None else [_shape(text) for text in shapes.split(",")]
    what = (
        measured.all_comparisons()
        if all_
        else measured.comparisons(workloads.split(","), cells.split(","), chosen, peers.split(","))
    )
    counts = None if threads is None else numbers("--threads", threads)
    with choice.engine(engine):
        if profile:
            _profile(measured.profile(what, counts), out, json_)
            return
        rows: list[Measurement] = []
        progress = _Progress()
        try:
            for row in measured.measure(what, seconds, counts, progress.begin):
                progress.end(row)
                rows.append(row)
        except KeyboardInterrupt:
            if rows:  # what is done is kept
                _report(rows, engine, seconds, all_, plot, out, json_)
            raise
        _report(rows, engine, seconds, all_, plot, out, json_)


def _report(
    rows: list[Measurement],
    engine: str,
    seconds: float,
    all_: bool,
    plot: Path | None,
    out: Path | None,
    json_: bool,
) -> None:
    from elman import bench as measured

    verdicts = measured.judge(rows) if all_ else []
    result: dict[str, Any] = {"machine": measured.machine(), "engine": engine, "seconds": seconds}
    result["rows"] = measured.as_json(rows)
    if all_:
        result["targets"] = [asdict(verdict) for verdict in verdicts]
    if out is not None:
        out.write_text(to_json(result, indent=1) + "\n", encoding="utf-8")
    if json_:
        print_json(result)
    else:
        print(measured.table(rows))
        if all_:
            print(f"\n{measured.summary(verdicts)}")
    if plot is not None:
        from elman.plots.ratios import draw_ratios

        draw_ratios(rows, plot)


def _profile(profiles: Iterable[Profile], out: Path | None, json_: bool) -> None:
    from elman import bench as measured

    found = list(profiles)
    text = "\n\n".join(map(str, found))
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if json_:
        rows = measured.as_json(found)
        print_json([row | {"kinds": p.kinds} for row, p in zip(rows, found, strict=True)])
    else:
        print(text)


class _Progress:
    """A line on standard error: what is measured, what came out last, how much time is left."""

    def __init__(self) -> None:
        self._live, self._started, self._done = sys.stderr.isatty(), time.monotonic(), ""

    def begin(self, done: int, count: int, what: Comparison) -> None:
        """Say what is measured now."""
        past = time.monotonic() - self._started
        left = f"  {clock(past / done * (count - done))} left" if done else ""
        self._done = f"{done + 1}/{count}"
        if self._live:
            print(f"\r\033[K{self._done}  {what}{left}", end="", file=sys.stderr, flush=True)

    def end(self, row: Measurement) -> None:
        """Say what came out."""
        shape = ":".join(map(str, row.shape))
        plural = "s" if row.threads > 1 else ""
        ratio = "" if row.ratio is None else f"  {row.ratio:.2f} × {row.peer}"
        line = (
            f"{self._done}  {row.workload} {row.cell} {shape}, {row.threads} thread{plural}{ratio}"
        )
        print(f"\r\033[K{line}" if self._live else line, file=sys.stderr, flush=True)


def _shape(text: str) -> tuple[int, int, int, int, int]:
    try:
        input, hidden, layers, batch, steps = (int(part) for part in text.split(":"))
    except ValueError:
        raise InputError(
            f"a shape is input:hidden:layers:batch:steps, as 28:256:2:32:35 is, received {text!r}."
        ) from None
    return input, hidden, layers, batch, steps
