"""Let a producer work while its consumer is busy: one thread, a bounded queue, order kept."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """What the thread leaves last: the error that ended it, or None."""

    error: BaseException | None


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items, produced by a thread of their own at most ``depth`` ahead.

    An error of the producer is raised in its place in the order. Closing stops the producer after
    the item it is working on, closes it, and waits for its thread.
    """
    line: queue.Queue[T | _End] = queue.Queue(depth)
    closed = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                line.put(item)
                if closed.is_set():
                    break
        except BaseException as raised:  # noqa: BLE001 - raised again by the consumer
            error = raised
        finally:
            if isinstance(items, Generator):
                items.close()
            line.put(_End(error))

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := line.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        while thread.is_alive():  # whatever it still puts must find room
            try:
                line.get(timeout=0.05)
            except queue.Empty:
                continue
        thread.join()
