"""Batches side by side give what one after the other gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from pipeline.encoder.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_results_are_in_order_whatever_takes_long(count: int) -> None:
    def run(n: int) -> int:
        time.sleep(0.01 if n % 3 == 0 else 0)
        return n * n

    assert list(side_by_side(run, range(count))) == [n * n for n in range(count)]
    assert torch.get_num_threads() == 2


def test_two_run_at_once() -> None:
    meeting = threading.Barrier(2)
    assert list(side_by_side(lambda _: meeting.wait(timeout=20) >= 0, range(4))) == [True] * 4


def test_an_error_is_raised_and_threads_are_restored() -> None:
    def run(n: int) -> int:
        return 1 // (n - 3)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(run, range(10)))
    assert torch.get_num_threads() == 2


def test_little_is_made_ahead_of_its_reader() -> None:
    made: list[int] = []
    results = side_by_side(made.append, range(100))
    for _ in range(3):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(made) <= 8
