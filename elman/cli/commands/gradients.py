"""``elman gradients`` and ``elman inspect``: where the gradient goes, what gates and states do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from elman.cli.app import App
from elman.cli.arguments import Device, Folder, Json, OwnCell, Plot, Seed, numbers, size
from elman.cli.output import print_json
from elman.cli.tables import print_rows
from elman.errors import InputError

Threshold = Annotated[float, typer.Option(help="Vanished: below this share of the norm at lag 0.")]


def add_to(app: App) -> None:
    """Add these commands to ``app``."""
    group = App(
        invoke_without_command=True,
        help="Where the gradient goes: vanishing and exploding, cell by cell.",
        epilog="elman gradients --cell rnn,gru,lstm --forget-bias 0,1,2 --plot flow.png",
    )
    group.callback()(gradients)
    group.command(epilog="elman gradients textbook --scales 0.5,1,2 --plot textbook.svg")(textbook)
    group.command(epilog="elman gradients cliff --clip 0.05 --plot cliff.png")(cliff)
    group.command(
        "run", epilog="elman gradients run runs/language-model-time-machine --plot run.png"
    )(of_run)
    app.add_typer(group, name="gradients")
    app.command(epilog="elman inspect RUN --text 'time traveller' --plot gates.png")(inspect)


def gradients(
    context: typer.Context,
    cell: Annotated[
        str, typer.Option(help="Names that elman cells lists, with commas between.")
    ] = "rnn,identity,gru,lstm",
    forget_bias: Annotated[
        str,
        typer.Option(
            help="Forget biases, one network each, for cells with a forget gate, such as 0,1."
        ),
    ] = "0,1,2",
    input: Annotated[int, size("Input size M.")] = 32,
    hidden: Annotated[int, size("Units of each layer.")] = 64,
    layers: Annotated[int, size("Layers.", 10_000)] = 1,
    steps: Annotated[int, size("Steps before the loss.")] = 100,
    batch: Annotated[int, size("Sequences to average over.")] = 16,
    gain: Annotated[float, typer.Option(help="Multiplies the weights that act on a state.")] = 1.0,
    threshold: Threshold = 1e-3,
    seed: Seed = 0,
    plot: Plot = None,
    json_: Json = False,
) -> None:
    """Where the gradient of a loss at the last step goes in networks before any training.

    The norm of ∂L/∂h by lag, relative to lag 0, with a verdict; one cell alone is shown layer by
    layer and state by state. Input is drawn from N(0, 1).
    """
    if context.invoked_subcommand is not None:
        return
    from elman.lens import side_by_side
    from elman.plots.gradient_flow import draw_flows

    _check(plot)
    compared = side_by_side(
        [name.strip() for name in cell.split(",")], numbers("--forget-bias", forget_bias, float),
        input=input, hidden=hidden, layers=layers, steps=steps, batch=batch, gain=gain,
        threshold=threshold, seed=seed,
    )  # fmt: skip
    title = (
        f"before any training: {layers} layer{'s' if layers > 1 else ''} of {hidden} units, "
        f"{batch} sequences of {steps} steps of {input} inputs from N(0, 1)"
    )
    if plot is not None and len(compared) > 1:
        draw_flows(compared, plot, title)
    elif plot is not None:
        compared[0].flow.plot(plot, f"{compared[0].label}, {title}")
    if json_:
        print_json([{"cell": each.label, **each.flow.to_json()} for each in compared])
    elif len(compared) > 1:
        _print_table(compared)
    else:
        print(f"{compared[0].label}: {compared[0].flow}")


def _print_table(compared: list[Any]) -> None:
    from elman.lens.flow import relative_to_start

    last = len(compared[0].flow.cells[-1].norms) - 1
    lags = [*(lag for lag in (1, 10, 50) if lag < last), last]
    columns = ["cell", *(f"lag {lag}" for lag in lags), "a step", "λ₁, nats", "verdict"]
    rows = []
    for each in compared:
        cell = each.flow.cells[-1]
        left = relative_to_start(cell.norms)
        first = "–" if cell.lyapunov is None else f"{float(cell.lyapunov[0]):.3f}"
        figures = [f"{float(left[lag]):.1e}" for lag in lags]
        rate = f"× {cell.verdict.rate:.3f}"
        rows.append([each.label, *figures, rate, first, cell.verdict.summary])
    print_rows(columns, rows, left=("verdict",))


def textbook(
    scales: Annotated[
        str, typer.Option(help="Spectral radii of W, with commas between.")
    ] = "0.5,0.9,1,1.1,1.5",
    hidden: Annotated[int, size("Units, W being hidden × hidden.")] = 64,
    steps: Annotated[int, size("Multiplications by W.")] = 20,
    matrix: Annotated[str, typer.Option(help="gaussian or orthogonal.")] = "gaussian",
    layers: Annotated[int, size("Layers of the feed-forward chain.")] = 30,
    gain: Annotated[float, typer.Option(help="Scale of the chain's weights.")] = 1.0,
    seed: Seed = 0,
    plot: Plot = None,
    json_: Json = False,
) -> None:
    """The textbook's experiment: repeated multiplication, slopes of tanh and σ, depth.

    The norm of δ ← Wᵀ δ grows or shrinks exponentially: at most by W's
    largest singular value in any step, in the long run by its spectral
    radius. Down a feed-forward chain, the same happens from layer to layer.
    """
    from elman.lens import depth, repeated_products
    from elman.lens.flow import plain
    from elman.lens.textbook import NONLINEARITIES, values_and_slopes
    from elman.plots.textbook import draw_textbook

    _check(plot)
    if not math.isfinite(gain):
        raise InputError(f"--gain must be a finite number, received {gain}.")
    chains = repeated_products(
        numbers("--scales", scales, float), hidden=hidden, steps=steps, matrix=matrix, seed=seed
    )
    depths = {
        name: depth(name, layers=layers, hidden=hidden, gain=gain, seed=seed)
        for name in NONLINEARITIES
    }
    if plot is not None:
        draw_textbook(chains, depths, values_and_slopes, plot)
    if json_:
        products = [
            {
                "scale": c.scale,
                "norms": plain(c.norms),
                "rate": plain(c.rate),
                "spectral_radius": plain(c.spectral_radius),
                "largest_singular_value": plain(c.largest_singular_value),
            }
            for c in chains
        ]
        print_json({"products": products, "depth": {k: plain(v) for k, v in depths.items()}})
        return
    print(f"δ ← Wᵀ δ, {steps} times, W {hidden} × {hidden}, {matrix}\n")
    print_rows(
        ["spectral radius", "largest singular value", "measured, a step", f"‖δ‖ after {steps}"],
        [
            [f"{c.spectral_radius:.3f}", f"{c.largest_singular_value:.3f}", f"× {c.rate:.3f}",
             f"{float(c.norms[-1]):.3g}"]
            for c in chains
        ],
    )  # fmt: skip
    print(f"\na feed-forward chain of {layers} layers, weights N(0, {gain**2:g}/{hidden})\n")
    rows = []
    for name, norms in depths.items():
        rate = float(norms[-1]) ** (1 / layers)
        rows.append([name, f"× {rate:.3f}", f"{float(norms[-1]):.3g}"])
    print_rows(["φ", "a layer", f"gradient left after {layers}"], rows)


def cliff(
    clip: Annotated[float, typer.Option(help="What the gradient's norm is clipped to.")] = 0.05,
    learning_rate: Annotated[float, typer.Option(help="The step size.")] = 0.3,
    updates: Annotated[int, size("Updates of gradient descent.")] = 100,
    plot: Plot = None,
    json_: Json = False,
) -> None:
    """The wall in the error surface of a one-unit net, and what clipping does there.

    The error of a_t = w σ(a_{t−1}) + b after 50 steps (Pascanu, Mikolov &
    Bengio, 2013), and gradient descent on w and b, with and without clipping.
    """
    from elman.lens import descend
    from elman.lens.cliff import error
    from elman.lens.flow import plain
    from elman.plots.cliff import draw_cliff

    _check(plot)
    descents = [
        descend(threshold, learning_rate=learning_rate, updates=updates)
        for threshold in (None, clip)
    ]
    if plot is not None:
        draw_cliff(descents, error, plot)
    if json_:
        names = ("weight", "bias", "errors", "norms")
        paths = [
            {"clip": d.threshold, **{name: plain(getattr(d, name)) for name in names}}
            for d in descents
        ]
        print_json(paths)
        return
    rows = []
    for d in descents:
        moved = ((d.weight.diff() ** 2 + d.bias.diff() ** 2) ** 0.5).max()
        rows.append(
            ["not clipped" if d.threshold is None else f"clipped to {d.threshold:g}",
             f"{float(d.norms.max()):.3g}", f"{float(moved):.3g}", f"{float(d.errors.min()):.2e}",
             f"{float(d.errors[-1]):.2e}"]
        )  # fmt: skip
    print_rows(["", "largest gradient", "longest step", "least error", "error at the end"], rows)


def of_run(
    run: Folder,
    threshold: Threshold = 1e-3,
    plot: Plot = None,
    json_: Json = False,
    device: Device = "auto",
    cell: OwnCell = None,
) -> None:
    """Where the gradient goes in a trained model: from the last step of its data's first window."""
    from elman.lens.flow import check_threshold
    from elman.tasks import open_run
    from elman.training.watch import flows

    _check(plot)
    check_threshold(threshold)
    job = open_run(run, device, cell)
    job.check_data()
    flow = flows(job, next(iter(job.batches("train", 0))), None, threshold)[0].flow
    if plot is not None:
        flow.plot(plot, f"{_name(run)}: {job.title()}")
    if json_:
        print_json(flow.to_json())
    else:
        print(flow)


def inspect(
    run: Folder,
    text: Annotated[str, typer.Option(help="What the model reads, such as 'time traveller'.")],
    layer: Annotated[int, size("Which layer to draw, from 0.")] = 0,
    units: Annotated[int, size("Units to draw: those that vary most.")] = 32,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw into this file: .png, .svg or .pdf.", show_default="RUN/gates.png"),
    ] = None,
    json_: Json = False,
    device: Device = "auto",
    cell: OwnCell = None,
) -> None:
    """Gates and states of a language model while it reads a text, token by token.

    Draws them as heat maps, and says how often each gate is nearly closed
    (below 0.1) and nearly open (above 0.9).
    """
    from elman.plots.gates import draw_activity
    from elman.tasks import open_run
    from elman.training.watch import saturation

    plot = run / "gates.png" if plot is None else plot
    job = open_run(run, device, cell)
    if not hasattr(job, "activity"):
        raise InputError(f"{run} is a run of {job.name}, which reads no text.")
    _check(plot)
    if units < 1:
        raise InputError(f"--units must be at least 1, received {units}.")
    tokens, activities = job.activity(text)
    if not 0 <= layer < len(activities):
        raise InputError(
            f"--layer must be one of 0 to {len(activities) - 1}, the layers of {run}, "
            f"received {layer}."
        )
    looked = activities[layer]
    title = f"{_name(run)}: {job.title()}, layer {layer}"
    draw_activity(looked, tokens, plot, units, title)
    figures = {"tokens": tokens, "layer": layer, "gates": saturation(looked), "plot": str(plot)}
    if json_:
        print_json(figures)
        return
    print_rows(
        ["gate", "mean", "below 0.1", "above 0.9"],
        [
            [name, f"{g['mean']:.3f}", f"{g['below']:.1%}", f"{g['above']:.1%}"]
            for name, g in figures["gates"].items()
        ],
    )  # fmt: skip
    print(f"{plot}: {', '.join([*looked.gates, *looked.candidates, *looked.states])}")


def _name(run: Path) -> str:
    """What a run's folder is called, also where it is typed as a dot."""
    return run.resolve().name


def _check(plot: Path | None) -> None:
    from elman.plots.canvas import check_path

    if plot is not None:
        check_path(plot)
