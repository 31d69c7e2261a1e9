"""What crosses from Python to C++: structs whose fields both sides know by name.

Each class is a struct of the runtime (``runtime/*.hpp`` says what its fields mean) with the same
fields in the same order, of eight bytes each: a number or an address. No record is made with a
field missing or one too many; and where a class and its struct differ, :func:`agreement`, which is
compiled with the runtime, does not compile.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

Layout = TypeVar("Layout")


class State(NamedTuple):
    """A state that goes from step to step."""

    first: int
    again: int
    history: int
    present: int
    last: int
    added: int
    again_out: int
    width: int
    slots: int
    past: int


class Buffer(NamedTuple):
    """Rows in memory, a step after the other, or where a state is read from."""

    data: int
    step: int
    row: int
    width: int
    place: int
    state: int
    zeroed: int


class Product(NamedTuple):
    """What fills a buffer: another times a matrix."""

    source: int
    target: int
    depth: int
    columns: int
    matrix: int
    down: int
    across: int
    packed: int


class Function(NamedTuple):
    """An emitted function, and where its arguments lie."""

    run: int
    width: int
    whole_rows: int
    slots: int
    buffers: int
    offsets: int


class Stage(NamedTuple):
    """Products, and then the functions that read them."""

    first_product: int
    products: int
    first_function: int
    functions: int


class Program(NamedTuple):
    """What runs at every step of a loop over time."""

    steps: int
    batch: int
    threads: int
    reverse: int
    backward: int
    resets: int
    lengths: int
    states: int
    state_count: int
    buffers: int
    buffer_count: int
    products: int
    product_count: int
    functions: int
    stages: int
    stage_count: int
    team: int


class Kept(NamedTuple):
    """Memory that something was computed from, and what it held then."""

    now: int
    then: int
    bytes: int


class StackState(NamedTuple):
    """A state of all layers of a stack, before a step and after it."""

    before: int
    after: int


class Stack(NamedTuple):
    """One step of layers of which each reads what the one before it wrote."""

    layers: int
    inputs: int
    layer_count: int
    threads: int
    states: int
    state_count: int
    kept: int
    kept_count: int
    x: int
    y: int


class MatrixProduct(NamedTuple):
    """A product of whole matrices."""

    a: int
    a_down: int
    a_across: int
    b: int
    b_down: int
    b_across: int
    rows: int
    depth: int
    columns: int
    out: int
    out_row: int
    bias: int
    add: int
    threads: int


class ColumnSums(NamedTuple):
    """The sum of a matrix's rows."""

    rows: int
    row: int
    row_count: int
    columns: int
    out: int
    threads: int


class Scan(NamedTuple):
    """A linear recurrence over time, or its gradient."""

    steps: int
    batch: int
    units: int
    width: int
    reverse: int
    backward: int
    resets: int
    lengths: int
    a: int
    a_step: int
    a_row: int
    b: int
    first: int
    again: int
    c: int
    from_c: int
    carried: int
    to_a: int
    to_b: int
    to_again: int
    threads: int


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
    """C++ that compiles only where every struct of the runtime has the fields of its class."""
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

    It is made as ``collections.namedtuple`` makes its own, and takes a fifth of the time.
    """
    fields = ENTRIES[entry]._fields
    names = ", ".join(fields)
    pack: Callable[..., bytes] = eval(
        f"lambda *, {names}: pack({names})", {"pack": struct.Struct(f"{len(fields)}q").pack}
    )
    return pack
