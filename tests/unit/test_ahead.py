"""A producer in its own thread: same items, same order, same errors, and it stops when told."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pipeline.ahead import ahead


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_same_items_in_the_same_order(depth):
    assert list(ahead(iter(range(50)), depth)) == list(range(50))
    assert threads() == 0


def test_errors_come_after_the_items_before_them():
    def produce():
        yield 1
        raise ValueError("broken")

    items = ahead(produce(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert threads() == 0


def test_at_most_depth_ahead_and_closed_at_the_end():
    made: list[int] = []
    closed = threading.Event()
    waiting = threading.Event()

    def produce():
        try:
            for i in range(1000):
                made.append(i)
                if len(made) == 5:
                    waiting.set()
                yield i
        finally:
            closed.set()

    with closing(ahead(produce(), 3)) as items:
        assert next(items) == 0
        assert waiting.wait(5), "one was taken, three lie in the queue, one is in the producer's hand"
        assert not closed.wait(0.1)
        assert len(made) == 5
    assert closed.is_set()
    assert len(made) < 10
    assert threads() == 0


def test_nested_producers_stop_too():
    inner_closed = threading.Event()

    def inner():
        try:
            while True:
                yield 1
        finally:
            inner_closed.set()

    with closing(ahead(inner(), 2)) as first, closing(ahead((x + 1 for x in first), 2)) as second:
        assert next(second) == 2
    assert inner_closed.is_set()
    assert threads() == 0
