"""Minute quotas of several processes: each leases a twentieth at a time and counts that by itself.

So a request asks the database only when its lease is used up or out of date, the event loop never waits
for it, and all processes together never hand out more than there is. What something costs is often known
only once it is done: that may leave a debt, which is told to the others at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from pipeline.levels import Levels

PARTS = 20
"""Into how many leases a minute's worth is divided."""
LEASE_SECONDS = 5.0
"""A lease that was not used by then is void: its bucket has been filling up meanwhile."""
ALONE_SECONDS = 10.0
"""After the database did not answer, this process counts by itself for so long."""

_MOST_LEASES = 10_000
_log = logging.getLogger("longleaf.quotas")


@dataclass(slots=True)
class _Lease:
    left: float = 0.0  # below zero: used, and not yet told
    until: float = 0.0
    refused_until: float = 0.0


class Leases:
    """What this process holds of shared buckets. Thread-safe."""

    def __init__(self, levels: Levels, clock: Callable[[], float] = time.monotonic) -> None:
        self._levels = levels
        self._clock = clock
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._lock = threading.Lock()
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="quotas")
        self._alone_until = 0.0

    async def take(self, name: str, amount: float, per_minute: int) -> float | None:
        """Take ``amount`` and return 0, or the seconds until there is some; None if nobody can tell."""
        wait = self._at_hand(name, amount)
        if wait is not None or self._alone:
            return wait
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asking, self._lease, name, amount, per_minute)

    def spend(self, name: str, amount: float, per_minute: int) -> bool:
        """Take ``amount`` whatever is there; false if this process counts by itself now."""
        if self._alone:
            return False
        with self._lock:
            lease = self._of(name)
            lease.left -= amount
            owes = lease.left < 0
        if owes:
            try:
                self._asking.submit(self._settle, name, per_minute)
            except RuntimeError:  # closed meanwhile
                return False
        return True

    def close(self) -> None:
        """Tell what is owed; what is left of leases is lost."""
        self._asking.shutdown(wait=True)
        self._levels.close()

    @property
    def _alone(self) -> bool:
        return self._clock() < self._alone_until

    def _of(self, name: str) -> _Lease:
        """The lease of a name; the longest unused one is forgotten when there are too many."""
        lease = self._leases.setdefault(name, _Lease())
        self._leases.move_to_end(name)
        if len(self._leases) > _MOST_LEASES:
            self._leases.popitem(last=False)
        return lease

    def _at_hand(self, name: str, amount: float) -> float | None:
        """0 if it could be taken from the lease, or the seconds that are known; None if one has to ask."""
        at = self._clock()
        with self._lock:
            lease = self._of(name)
            if at < lease.refused_until:
                return lease.refused_until - at
            if at < lease.until and lease.left > 0 and lease.left >= amount:
                lease.left -= amount
                return 0.0
        return None

    def _settle(self, name: str, per_minute: int) -> None:
        """Tell the database what is owed, unless one that took a lease has done so."""
        with self._lock:
            owes = self._of(name).left < 0
        if owes and not self._alone:
            self._ask(name, 0.0, per_minute)

    def _lease(self, name: str, amount: float, per_minute: int) -> float | None:
        """As :meth:`take`, asking the database. Runs in one thread only."""
        wait = self._at_hand(name, amount)  # those before may have brought enough
        return wait if wait is not None or self._alone else self._ask(name, amount, per_minute)

    def _ask(self, name: str, amount: float, per_minute: int) -> float | None:
        at = self._clock()
        with self._lock:
            lease = self._of(name)
            back = lease.left if lease.left < 0 or at < lease.until else 0.0
            lease.left = 0.0
        least = max(amount, 1.0)
        try:
            given, wait = self._levels.take(
                name, back=back, least=least, most=max(least, per_minute / PARTS), per_minute=per_minute
            )
        except (SQLAlchemyError, OSError) as error:
            _log.warning("minute quotas are counted by this process alone: %s", type(error).__name__)
            with self._lock:
                self._alone_until = at + ALONE_SECONDS
                self._of(name).left += back
            return None
        with self._lock:
            lease = self._of(name)
            lease.left += given - (amount if given else 0.0)
            lease.until = at + LEASE_SECONDS
            lease.refused_until = at + wait
        return wait
