"""Side by side with what a user would pick instead: in one process, in turns, warmed up.

    from elman.bench import bench, table

    print(table(list(bench(works=("train", "step"), cells=("lstm", "peephole")))))

``elman bench`` is the same on the command line.
"""

from elman.bench.bars import BARS, everything, judge, summary
from elman.bench.cells import CELLS
from elman.bench.compare import bench, comparisons, measure
from elman.bench.profiling import Profile, profile
from elman.bench.report import plot, table
from elman.bench.rows import Row, Shape, as_json, geometric_mean, machine
from elman.bench.works import PEERS, SHAPES, WORKS

__all__ = [
    "BARS",
    "CELLS",
    "PEERS",
    "SHAPES",
    "WORKS",
    "Profile",
    "Row",
    "Shape",
    "as_json",
    "bench",
    "comparisons",
    "everything",
    "geometric_mean",
    "judge",
    "machine",
    "measure",
    "plot",
    "profile",
    "summary",
    "table",
]
