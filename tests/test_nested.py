from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

import elman
from elman import nested
from elman.errors import InputError

Memory = namedtuple("Memory", "keys values")

tensors = st.integers(-9, 9).map(lambda k: torch.full((2,), float(k)))
others = st.none() | st.integers() | st.text(max_size=2)
states = st.recursive(
    tensors | others,
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.tuples(part, part).map(lambda pair: Memory(*pair))
        | st.dictionaries(st.text(max_size=2), part, max_size=3)
    ),
    max_leaves=8,
)


def alike(a, b):
    """Whether two states have the same types and the same values all through."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b


@given(state=states)
def test_every_tensor_is_reached_and_all_else_stays(state):
    assert alike(nested.map(lambda t: t, state), state)
    doubled = nested.map(lambda t: 2 * t, state)
    assert alike(nested.map(lambda t: t / 2, doubled), state)
    before, after = nested.leaves(state), nested.leaves(doubled)
    assert len(before) == len(after)
    assert all(torch.equal(2 * a, b) for a, b in zip(before, after, strict=True))
    # Two at a time: each meets the one in its own place.
    assert alike(nested.map(torch.add, state, state), doubled)
    given_back = iter(before)
    assert alike(nested.map(lambda _: next(given_back), state), state)


def test_states_of_every_kind():
    h = torch.ones(2)
    assert nested.map(torch.neg, None) is None
    assert torch.equal(nested.map(torch.neg, h), -h)
    kept = nested.map(torch.neg, Memory(h, [h, None]))
    assert isinstance(kept, Memory)
    assert torch.equal(kept.values[0], -h)
    packed = nested.map(torch.clone, pack_sequence([h, h[:1]]))
    assert torch.equal(packed.data, torch.ones(3))
    assert torch.equal(packed.batch_sizes, torch.tensor([2, 1]))


def test_places_name_what_stands_there():
    h = torch.ones(2)
    found = list(nested.places((h, None, {"c": [h, 3]}), "carry"))
    assert [place for place, _ in found] == ["carry[0]", "carry[2]['c'][0]", "carry[2]['c'][1]"]
    assert found[2][1] == 3
    assert len(nested.leaves((h, None, {"c": [h, 3]}))) == 2


@pytest.mark.parametrize(
    "other",
    [(torch.ones(2),), torch.ones(2), {"h": torch.ones(2), "c": 0}, (torch.ones(2), None), None],
)
def test_states_that_are_nested_differently(other):
    state = (torch.ones(2), torch.ones(2))
    with pytest.raises(InputError, match="two states must be nested alike, received a "):
        nested.map(torch.add, state, other)
    with pytest.raises(InputError, match="received a dict of 2 and a "):
        nested.map(torch.add, {"h": state[0], "x": state[1]}, other)


def test_a_list_may_stand_for_a_tuple():
    found = nested.map(torch.add, (torch.ones(2),), [torch.ones(2)])
    assert isinstance(found, tuple)
    assert torch.equal(found[0], torch.full((2,), 2.0))


@pytest.mark.parametrize("sizes", [[3, 3], [3, 4]])
@pytest.mark.parametrize("cell", [elman.cells.GRU, elman.cells.LSTM])
def test_beams_choose_rows_of_any_state(cell, sizes):
    network = elman.Recurrent(cell(2, 3), hidden_sizes=sizes)
    x, rows = torch.randn(5, 4, 2), torch.tensor([3, 0, 0])
    with elman.engine("reference"):
        _, state = network(x)
        _, expected = network(x[:, rows])
    found = nested.map(lambda s: s.index_select(-2, rows), state)
    for a, b in zip(nested.leaves(found), nested.leaves(expected), strict=True):
        assert torch.allclose(a, b)


def test_compilers_see_through_it():
    state = (torch.ones(2), {"c": [torch.ones(2), None]}, Memory(torch.ones(2), 3))

    def doubled(state):
        return nested.map(lambda t, u: t + u, state, state)

    compiled = torch.compile(doubled, backend="eager", fullgraph=True)
    assert alike(compiled(state), doubled(state))
