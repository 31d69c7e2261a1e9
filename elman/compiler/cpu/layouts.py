"""What crosses from Python to C++: structs whose fields both sides know by name.

Each is a struct of the runtime (``runtime/*.hpp`` says what its fields mean) with the same
fields in the same order, of eight bytes each: a number or an address. No record is made with a
field missing or one too many; and where the two sides differ, :func:`agreement`, which is
compiled with the runtime, does not compile.
"""

from __future__ import annotations

import struct
from array import array
from collections import namedtuple
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar

Layout = TypeVar("Layout")

State = namedtuple("State", "first again history present last added again_out width slots past")
"""A state that goes from step to step."""

Buffer = namedtuple("Buffer", "data step row width place state zeroed")
"""Rows in memory, a step after the other, or where a state is read from."""

Product = namedtuple("Product", "source target depth columns matrix down across packed")
"""What fills a buffer: another times a matrix."""

Function = namedtuple("Function", "run width whole_rows slots buffers offsets")
"""An emitted function, and where its arguments lie."""

Stage = namedtuple("Stage", "first_product products first_function functions")
"""Products, and then the functions that read them."""

Program = namedtuple(
    "Program",
    "steps batch threads reverse backward resets lengths states state_count buffers "
    "buffer_count products product_count functions stages stage_count team",
)
"""What runs at every step of a loop over time."""

Kept = namedtuple("Kept", "now then bytes")
"""Memory that something was computed from, and what it held then."""

StackState = namedtuple("StackState", "before after")
"""A state of all layers of a stack, before a step and after it."""

Stack = namedtuple(
    "Stack",
    "layers inputs layer_count threads states state_count kept kept_count x y",
)
"""One step of layers of which each reads what the one before it wrote."""

MatrixProduct = namedtuple(
    "MatrixProduct",
    "a a_down a_across b b_down b_across rows depth columns out out_row bias add threads",
)
"""A product of whole matrices."""

ColumnSums = namedtuple("ColumnSums", "rows row row_count columns out threads")
"""The sum of a matrix's rows."""

Scan = namedtuple(
    "Scan",
    "steps batch units width reverse backward resets lengths a a_step a_row b first again c "
    "from_c carried to_a to_b to_again threads",
)
"""A linear recurrence over time, or its gradient."""

ENTRIES: dict[str, Any] = {
    "elman_run": Program,
    "elman_pack": Program,
    "elman_step": Stack,
    "elman_product": MatrixProduct,
    "elman_sum_rows": ColumnSums,
    "elman_scan": Scan,
}
"""The functions of the runtime, and the one struct that each takes."""

STRUCTS = (
    State,
    Buffer,
    Product,
    Function,
    Stage,
    Kept,
    StackState,
    *dict.fromkeys(ENTRIES.values()),
)


def agreement() -> str:
    """C++ that compiles only where every struct of the runtime has the fields that it has here."""
    lines = ["#include <cstddef>", "#include <type_traits>"]
    for layout in STRUCTS:
        name, fields = layout.__name__, layout._fields
        for k, field in enumerate(fields):
            lines.append(
                f"static_assert(offsetof({name}, {field}) == {8 * k} && "
                f'sizeof({name}::{field}) == 8, "{name}.{field} is not where Python puts it");'
            )
        lines.append(
            f"static_assert(sizeof({name}) == {8 * len(fields)}, "
            f'"{name} has a field that Python does not know");'
        )
    for entry, layout in ENTRIES.items():
        lines.append(f"static_assert(std::is_invocable_v<decltype({entry}), {layout.__name__}*>);")
    return "\n".join(lines) + "\n"


def packed(records: Iterable[tuple[int, ...]]) -> array[int]:
    """Structs one after the other, as C++ reads them."""
    return array("q", list(chain.from_iterable(records)))


def positions(layout: type[Layout]) -> Layout:
    """A record in which every field holds its own position, to change one in :func:`packed`."""
    return layout(*range(len(layout._fields)))  # type: ignore[attr-defined]


def address(numbers: array[int]) -> int:
    """Where numbers lie in memory."""
    return numbers.buffer_info()[0]


def packer(entry: str) -> Callable[..., bytes]:
    """A function that packs, from its fields by keyword, the struct that a function here takes.

    It is made as ``collections.namedtuple`` makes its own.
    """
    fields = ENTRIES[entry]._fields
    names = ", ".join(fields)
    pack: Callable[..., bytes] = eval(
        f"lambda *, {names}: pack({names})", {"pack": struct.Struct(f"{len(fields)}q").pack}
    )
    return pack
