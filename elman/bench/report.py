"""What is made of measurements: a table, and a plot."""

from __future__ import annotations

from collections.abc import Sequence

from elman.bench.measurement import Measurement, geometric_mean
from elman.errors import InputError

_NOISY = 0.2


def table(rows: Sequence[Measurement]) -> str:
    """The rows as a Markdown table, with the geometric mean of each group last.

    Beside a time stands how far it spread (the interquartile range) where that was more than a
    fifth of it.
    """
    lines = [
        "| workload | cell | input, hidden, layers, batch, steps | threads | elman | peer "
        "| its own | ratio | of product rate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        shape = ", ".join(map(str, r.shape))
        ours = _amount(r, r.elman_ms, r.elman_spread, r.elman_bytes)
        theirs = _amount(r, r.peer_ms, r.peer_spread, r.peer_bytes)
        ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
        share = "" if r.share is None else f"{r.share:.0%}"
        lines.append(
            f"| {r.workload} | {r.cell} | {shape} | {r.threads} | {ours} | {r.peer} | {theirs} "
            f"| {ratio} | {share} |"
        )
    for group, alike in _grouped(rows, "workload", "cell", "peer", "threads").items():
        if len(alike) > 1:
            workload, cell, peer, threads = group
            lines.append(
                f"| {workload} | {cell} | geometric mean | {threads} | | {peer} | "
                f"| {geometric_mean(alike):.2f} | |"
            )
    return "\n".join(lines)


def _amount(row: Measurement, ms: float | None, spread: float | None, size: int | None) -> str:
    if size is not None:
        return f"{size / 1e6:.1f} MB"
    if ms is None:
        return ""
    noise = f" ± {spread:.0%}" if spread is not None and spread > _NOISY else ""
    if row.workload in ("main-job", "generate"):
        return f"{row.batch * row.steps / ms * 1e3:,.0f} /s{noise}"
    return f"{ms:.3f} ms{noise}" if ms < 1e3 else f"{ms / 1e3:.2f} s{noise}"


def plot(rows: Sequence[Measurement], path: Path) -> None:
    """Draw the ratios by shape, a panel a workload, cell and peer; above the line elman wins.

    What was measured in one shape alone shares the last panel. A filled mark stands for the most
    threads, an open one for fewer.

    Raises:
        InputError: no row has a ratio.
    """
    from matplotlib.figure import Figure

    panels = _panels(rows)
    if not panels:
        raise InputError(
            "there is nothing to draw: none of the rows has a peer to be compared with."
        )
    wide = min(_COLUMNS, len(panels))
    deep = -(-len(panels) // wide)
    figure = Figure(figsize=(1 + 4.2 * wide, 0.7 + 2.8 * deep), layout="constrained")
    grid = figure.subplots(deep, wide, sharey=True, squeeze=False)
    numbers = sorted({r.threads for r in rows}, reverse=True)
    for axes, (title, labelled) in zip(grid.flat, panels.items(), strict=False):
        _draw(axes, title, labelled, numbers)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set_ylabel("peer / elman")
    if len(numbers) > 1:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=9)
    figure.savefig(path, dpi=130)


def _panels(rows: Sequence[Measurement]) -> dict[str, list[tuple[str, Measurement]]]:
    """By title the rows, each with what stands under it."""
    panels, single = {}, []
    for (workload, cell, peer), alike in _grouped(rows, "workload", "cell", "peer").items():
        if len({r.shape for r in alike}) > 1:
            panels[f"{workload}, {cell} beside {peer}"] = [
                (f"{r.input}·{r.hidden}·{r.layers}\n{r.batch}×{r.steps}", r) for r in alike
            ]
        else:
            single += [(f"{workload} {cell}\n{peer}", r) for r in alike]
    if single:
        panels["in one shape"] = single
    return panels


def _grouped(rows: Sequence[Measurement], *names: str) -> dict[tuple, list[Measurement]]:
    """The rows that have a ratio, by some of their attributes."""
    groups: dict[tuple, list[Measurement]] = {}
    for row in rows:
        if row.ratio is not None:
            groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups


def _draw(
    axes: Any, title: str, labelled: list[tuple[str, Measurement]], numbers: list[int]
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    labels = list(dict.fromkeys(label for label, _ in labelled))
    axes.axhline(1, color="black", linewidth=1)
    for k, threads in enumerate(numbers):
        some = [(labels.index(label), r.ratio) for label, r in labelled if r.threads == threads]
        aside = 0.12 * (k - (len(numbers) - 1) / 2)
        axes.plot(
            [x + aside for x, _ in some], [ratio for _, ratio in some], "o", color="black",
            markerfacecolor="black" if k == 0 else "white", markersize=6,
            label=f"{threads} thread{'s' if threads > 1 else ''}",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    long = len(labels) * max(len(line) for label in labels for line in label.split("\n")) > 70
    axes.set_xticks(range(len(labels)), labels, fontsize=7, rotation=90 if long else 0)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", labelleft=True, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
