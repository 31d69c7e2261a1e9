"""Side by side with what a user would pick instead: in one process, in turns, warmed up.

    from elman.bench import comparisons, measure, table

    print(table(list(measure(comparisons(("train", "step"), cells=("lstm", "peephole"))))))

``elman bench`` is the same on the command line.
"""

from elman.bench.cells import CELLS
from elman.bench.comparison import comparisons, measure
from elman.bench.measurement import Comparison, Measurement, Shape, as_json, machine
from elman.bench.profiling import Profile, profile
from elman.bench.report import table
from elman.bench.targets import TARGETS, all_comparisons, judge, summary
from elman.bench.workloads import WORKLOADS

__all__ = [
    "CELLS",
    "TARGETS",
    "WORKLOADS",
    "Comparison",
    "Measurement",
    "Profile",
    "Shape",
    "all_comparisons",
    "as_json",
    "comparisons",
    "judge",
    "machine",
    "measure",
    "profile",
    "summary",
    "table",
]
