"""What crosses from Python to C++: where the two sides differ, nothing runs."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from elman.compiler.cpu import build, layouts


def other(name: str, change) -> list[str]:
    """The fields of a struct as Python would declare them if they had been changed there alone."""
    fields = list(next(s for s in layouts.STRUCTS if s.__name__ == name)._fields)
    return change(fields)


CHANGES = {
    "one more": lambda fields: [*fields, "news"],
    "one less": lambda fields: fields[:-1],
    "another order": lambda fields: [fields[1], fields[0], *fields[2:]],
    "another name": lambda fields: [*fields[:-1], fields[-1] + "_"],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["State", "Program", "Scan"])
def test_a_field_on_one_side_alone_does_not_compile(name, change, monkeypatch):
    changed = namedtuple(name, other(name, CHANGES[change]))
    structs = [changed if s.__name__ == name else s for s in layouts.STRUCTS]
    monkeypatch.setattr(layouts, "STRUCTS", structs)
    with pytest.raises(build.BuildError, match=rf"error.*{name}"):
        build.runtime.__wrapped__(torch.float32)


def test_every_struct_is_declared_as_it_is():
    agreement = layouts.agreement()
    for layout in layouts.STRUCTS:
        assert f"sizeof({layout.__name__}) == {8 * len(layout._fields)}" in agreement
    assert build.runtime(torch.float32).elman_vector_bytes() in (16, 32, 64)


def test_a_record_has_all_its_fields():
    pack = layouts.packer("elman_sum_rows")
    given = dict.fromkeys(layouts.ColumnSums._fields, 1)
    assert len(pack(**given)) == 8 * len(given)
    with pytest.raises(TypeError, match="threads"):
        pack(**{k: v for k, v in given.items() if k != "threads"})
    with pytest.raises(TypeError, match="news"):
        pack(**given, news=1)
    with pytest.raises(TypeError):
        pack(*given.values())


def test_fields_are_changed_by_their_names():
    at = layouts.positions(layouts.StackState)
    numbers = layouts.packed([layouts.StackState(before=1, after=2)] * 3)
    numbers[2 * len(at) + at.after] = 7
    assert numbers.tolist() == [1, 2, 1, 2, 1, 7]
    with pytest.raises(AttributeError):
        at.between  # noqa: B018
