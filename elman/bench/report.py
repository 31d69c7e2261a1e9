"""What is made of measurements: a table."""

from __future__ import annotations

from collections.abc import Sequence

from elman.bench.measurement import Measurement, geometric_mean

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


def _grouped(rows: Sequence[Measurement], *names: str) -> dict[tuple, list[Measurement]]:
    """The rows that have a ratio, by some of their attributes."""
    groups: dict[tuple, list[Measurement]] = {}
    for row in rows:
        if row.ratio is not None:
            groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups
