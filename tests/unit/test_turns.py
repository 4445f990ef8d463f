"""Turns are mutually exclusive and come in order of arrival."""

from __future__ import annotations

import threading
import time

from pipeline.turns import Turns


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_waiters_come_first_come_first_served_before_one_that_comes_back():
    turns, order = Turns(), []

    def worker(name: str) -> None:
        with turns.turn():
            order.append(name)

    threads = []
    with turns.turn():
        for n, name in enumerate("abc"):
            threads.append(threading.Thread(target=worker, args=(name,)))
            threads[-1].start()
            wait_until(lambda n=n: len(turns._waiting) == n + 1)
    with turns.turn():
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "again"]


def test_never_two_at_once():
    turns, inside, most = Turns(), 0, 0

    def worker() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns.turn():
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_inside_passes_the_turn_on():
    turns = Turns()
    for _ in range(2):
        try:
            with turns.turn():
                raise ValueError("step failed")
        except ValueError:
            pass
    with turns.turn():
        pass
