"""Columns that read like lists of pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.vectors import Extents, Vector

pairs = st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), max_size=6)


@given(pairs, pairs)
def test_a_vector_reads_like_a_list(ranges, more) -> None:
    vector = Vector.of(ranges)
    assert vector == ranges
    assert list(vector) == ranges
    assert [vector[i] for i in range(len(vector))] == ranges
    assert vector[1:3] == ranges[1:3]
    assert Vector.of(vector) is vector
    assert vector.lengths() == [stop - start for start, stop in ranges]
    vector.extend(Vector.of(more))
    vector.append(7, 8)
    assert vector == [*ranges, *more, (7, 8)]


@given(pairs)
def test_ascending_means_disjoint_not_empty_and_in_order(ranges) -> None:
    bounds = [bound for pair in ranges for bound in pair]
    expected = (
        bool(ranges) and ranges[0][0] >= 0 and bounds == sorted(bounds) and all(start < stop for start, stop in ranges)
    )
    assert Vector.of(ranges).is_ascending == expected


@pytest.mark.parametrize("ranges", [[(None, 5)], [(0, None)], [(0, 5), (None, 9)], [(0, 5), (7, None)]])
def test_bounds_that_are_not_known_do_not_ascend(ranges) -> None:
    assert not Vector.of(ranges).is_ascending


def test_extents_know_their_size() -> None:
    assert Extents().size_bytes == 0
    extents = Extents([0, 9], [b"abc", memoryview(b"de")])
    assert extents.size_bytes == 5
    assert extents == [(0, b"abc"), (9, b"de")]
    assert extents != [(0, b"abc")]
    assert not Extents()
