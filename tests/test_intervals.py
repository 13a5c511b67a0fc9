"""The interval map against a plain dictionary of bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jcache.reader.intervals import IntervalMap

steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.booleans()), max_size=40)


@given(steps, st.integers(0, 60), st.integers(0, 60))
def test_find_says_of_each_byte_where_it_is(steps, a, b) -> None:
    intervals: IntervalMap[int] = IntervalMap()
    owner: dict[int, int] = {}
    for number, (start, length, remove) in enumerate(steps):
        stop = start + length
        if remove:
            intervals.remove(start)
            if start in owner and owner.get(start - 1) != owner[start]:
                gone = owner[start]
                owner = {at: value for at, value in owner.items() if value != gone}
        elif not any(at in owner for at in range(start, stop)):
            intervals.add(start, stop, number)
            owner |= dict.fromkeys(range(start, stop), number)
    start, stop = min(a, b), max(a, b)
    at = start
    for piece_start, piece_stop, value in intervals.find(start, stop):
        assert piece_start == at < piece_stop
        at = piece_stop
        assert {owner.get(byte) for byte in range(piece_start, piece_stop)} == {value}
    assert at == stop
    assert len(intervals) == len(set(owner.values()))
    assert {(a, b) for a, b, _ in intervals} == {
        (min(bytes_), max(bytes_) + 1)
        for value in set(owner.values())
        if (bytes_ := [at for at in owner if owner[at] == value])
    }


def test_nothing_and_everything() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    assert intervals.find(0, 0) == []
    assert intervals.find(5, 9) == [(5, 9, None)]
    intervals.add(3, 3, "empty")
    assert len(intervals) == 0
    intervals.remove(3)
    intervals.add(0, 2**63, "all")
    assert intervals.find(5, 9) == [(5, 9, "all")]
    intervals.clear()
    assert not list(intervals)


def test_neighbours_stay_apart() -> None:
    intervals: IntervalMap[str] = IntervalMap()
    for start, name in ((20, "c"), (0, "a"), (10, "b")):
        intervals.add(start, start + 10, name)
    assert intervals.find(5, 25) == [(5, 10, "a"), (10, 20, "b"), (20, 25, "c")]
    intervals.remove(10)
    assert intervals.find(5, 25) == [(5, 10, "a"), (10, 20, None), (20, 25, "c")]


@pytest.mark.parametrize("order", range(5))
def test_any_order_of_adding_and_removing(order: int) -> None:
    chosen = random.Random(order)
    starts = list(range(0, 1000, 10))
    chosen.shuffle(starts)
    intervals: IntervalMap[int] = IntervalMap()
    for start in starts:
        intervals.add(start, start + 10, start)
    assert [start for start, _, _ in intervals] == sorted(starts)
    chosen.shuffle(starts)
    for start in starts:
        intervals.remove(start)
        assert intervals.find(start, start + 10) == [(start, start + 10, None)]
    assert len(intervals) == 0
