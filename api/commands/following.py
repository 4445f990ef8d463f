"""``longleaf ingest --watch``: files as they come and change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from api.commands.intake import accept, report, store
from api.sources import Found, LeftOut, find_one, mode_of, summed_up, twins, two_of_one
from pipeline.errors import (
    IndexOwnedError,
    InvalidRequestError,
    LongleafError,
    StorageError,
    UnavailableError,
)

if TYPE_CHECKING:
    from api.commands.frame import Run
    from api.commands.intake import Shelf
    from pipeline.sources import Source

Taken = tuple[int, LongleafError | None]
"""How many files, from the first, are settled for good, and what stopped the rest."""

_PASSING = (IndexOwnedError, StorageError, UnavailableError)  # errors that are over some day
_LOOK_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_RESTS = 9  # times as long as a look takes, so that many files cost a tenth of a core
_JOB_DOCUMENTS = 256  # of one job


class Watcher:
    """Tells which files of some paths are new or changed since they were settled, once they are written.

    A file counts as written when two looks in a row find the same size and time.
    """

    def __init__(self, paths: Sequence[str], prefix: str = "") -> None:
        self._paths = paths
        self._prefix = prefix
        self._seen: dict[Path, tuple[int, int]] = {}
        self._settled: dict[Path, tuple[int, int]] = {}
        self.remarks: list[str] = []  # of the last look: what is not there, or not taken, and why

    def changed(self) -> list[Found]:
        """Files to ingest now. A folder that is empty, or gone for the moment, has none."""
        before, self._seen = self._seen, {}
        ready = []
        for item in self._look():
            with suppress(OSError):
                state = item.path.stat()
                stamp = (state.st_mtime_ns, state.st_size)
                self._seen[item.path] = stamp
                if before.get(item.path) == stamp != self._settled.get(item.path):
                    ready.append(item)
        return ready

    def settle(self, items: Sequence[Found]) -> None:
        """What became of these files is known: they are told again only once they change."""
        self._settled.update((item.path, self._seen[item.path]) for item in items)

    def _look(self) -> list[Found]:
        found: list[Found] = []
        left_out: list[LeftOut] = []
        self.remarks = []
        for given in self._paths:
            try:
                there, not_taken = find_one(given, self._prefix)
            except InvalidRequestError as error:
                self.remarks.append(f"{error.message} What comes there is taken.")
                continue
            found += there
            left_out += not_taken
            if [item.path for item in there] == [Path(given)] and not mode_of(Path(given)):
                self.remarks.append(f"There is no {given!r} yet. Once it is there it is taken.")
        pairs = list(twins(found))
        self.remarks += [two_of_one(*pair).message + " The second is left out." for pair in pairs]
        self.remarks += [f"Left out, {line}." for line in summed_up(left_out)]
        second = {twin.path for _, twin in pairs}
        return [item for item in found if item.path not in second]


def follow(
    run: Run,
    watcher: Watcher,
    made: Callable[[Sequence[Found]], Iterable[Source]],
    shelf: Shelf,
    *,
    queue: bool,
) -> NoReturn:
    """Ingest files as they come and change, or make jobs of them, until interrupted. What is over some day
    is waited for, with growing pauses. Files that go do not take their documents along.

    Raises what would stop every file for as long as this process runs.
    """

    def stored(files: Sequence[Found]) -> Taken:
        outcome = store(run, list(made(files)), shelf)
        if outcome.results:
            report(run, replace(outcome, stopped=None))
        return len(outcome.results), outcome.stopped

    def accepted(files: Sequence[Found]) -> Taken:
        some = files[:_JOB_DOCUMENTS]
        try:
            accept(run, list(made(some)), shelf)
        except _PASSING:
            raise
        except LongleafError as error:  # one of them is refused, and stops no other
            if len(some) == 1:
                run.fail(error)
            else:
                for file in some:
                    accepted([file])
        return len(some), None

    run.longleaf.ledger.collections()  # what is wrong with the data is told before anything is waited for
    run.note("Watching; stop with Ctrl-C.", "bold")
    _look_and_take(run, watcher, accepted if queue else stored)


def _look_and_take(run: Run, watcher: Watcher, take: Callable[[Sequence[Found]], Taken]) -> NoReturn:
    told: set[str] = set()
    trouble = ""
    pause = _LOOK_SECONDS
    while True:
        began = time.monotonic()
        ready = watcher.changed()
        rest = _RESTS * (time.monotonic() - began)
        for remark in watcher.remarks:
            if remark not in told:
                run.note(remark, "yellow")
        told = set(watcher.remarks)
        stopped = _taken(watcher, take, ready) if ready else None
        if stopped is not None:
            run.longleaf.ledger.ownership.release()  # whoever is in the way may need it to get on
            if stopped.code != trouble:
                run.fail(stopped)
                run.note("The files are taken once that is over.")
        trouble = stopped.code if stopped else ""
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if stopped else _LOOK_SECONDS
        time.sleep(max(pause, rest))


def _taken(
    watcher: Watcher, take: Callable[[Sequence[Found]], Taken], ready: Sequence[Found]
) -> LongleafError | None:
    """Settle what could be taken. What is over some day and stopped the rest is returned, all else raised."""
    try:
        count, stopped = take(ready)
    except _PASSING as error:
        return error
    watcher.settle(ready[:count])
    if stopped is not None and not isinstance(stopped, _PASSING):
        raise stopped
    return stopped
