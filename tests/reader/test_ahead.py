"""How far a file object reads ahead."""

from jcache_plugins.fsspec.ahead import FIRST_WINDOW_BYTES, GROWTH_FROM_START, LAST_WINDOW_BYTES, STREAK, Window

SIZE = 1 << 30


def sequential(reads: int, step: int) -> Window:
    window = Window()
    for i in range(reads):
        assert window.follow(i * step, (i + 1) * step) == (i > 0 or window.next == step)
    return window


def test_nothing_is_read_ahead_before_some_reads_have_followed_one_another() -> None:
    assert sequential(STREAK - 1, 8000).grow(SIZE) == []
    pieces = sequential(STREAK, 8000).grow(SIZE)
    assert pieces
    assert pieces[0][0] == STREAK * 8000
    assert pieces[-1][1] <= STREAK * 8000 + max(GROWTH_FROM_START * STREAK * 8000, FIRST_WINDOW_BYTES)


def test_pieces_follow_one_another_within_the_window_and_the_file() -> None:
    window = sequential(5, 10_000_000)
    pieces = window.grow(SIZE)
    assert [a for a, _ in pieces] == [50_000_000, *(b for _, b in pieces[:-1])]
    assert pieces[-1][1] <= 50_000_000 + LAST_WINDOW_BYTES
    assert window.grow(SIZE) == [], "once"
    assert sequential(5, 10_000_000).grow(50_000_100) == [(50_000_000, 50_000_100)]
    assert sequential(5, 10_000_000).grow(50_000_000) == []


def test_what_waits_for_proof_makes_room_for_one_more_window_and_not_for_two() -> None:
    window = sequential(5, 10_000_000)
    end = window.grow(SIZE)[-1][1]
    window.unproved_bytes = end - window.next
    more = window.grow(SIZE)
    assert more[0][0] == end
    window.unproved_bytes += more[-1][1] - end
    window.grow(SIZE)
    assert window.ahead_until <= window.next + 2 * LAST_WINDOW_BYTES
    assert window.grow(SIZE) == []


def test_a_jump_collapses_it() -> None:
    window = sequential(5, 10_000_000)
    window.grow(SIZE)
    window.unproved_bytes = 1
    assert not window.follow(7, 8)
    assert (window.ahead_until, window.unproved_bytes, window.grow(SIZE)) == (0, 0, [])
