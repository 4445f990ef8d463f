"""How much each key and each tenant may use: requests and tokens by the minute, documents and bytes.

Minutes are shared by all processes of one ledger (:mod:`api.leases`), and kept in this process alone while
there is none or it does not answer. What is stored is counted in the ledger itself.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from api.leases import Leases
from api.sections import Quota, QuotaSettings
from pipeline.errors import QuotaExceededError, RateLimitedError
from pipeline.ledger import Ledger
from pipeline.levels import Levels

_MINUTE = 60.0
_MOST_BUCKETS = 10_000


class Buckets:
    """Token buckets (Turner 1986) by name: each holds one minute's worth and fills up steadily.

    At most ``_MOST_BUCKETS`` are kept, the longest unused forgotten first; a forgotten one is full.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str, amount: float, per_minute: int) -> float:
        """Take ``amount`` if the bucket is not empty, and return 0; else the seconds until it is not.

        The level may fall below zero: what something costs is often known only once it is done.
        """
        now = self._clock()
        with self._lock:
            level, stamp = self._levels.pop(name, (float(per_minute), now))
            level = min(per_minute, level + (now - stamp) * per_minute / _MINUTE)
            wait = 0.0
            if level >= min(amount, 1.0):
                level -= amount
            else:
                wait = (1.0 - level) * _MINUTE / per_minute
            self._levels[name] = (level, now)
            while len(self._levels) > _MOST_BUCKETS:
                self._levels.popitem(last=False)
        return wait

    def spend(self, name: str, amount: float, per_minute: int) -> None:
        """Take ``amount`` whatever is there."""
        self.take(name, 0.0, per_minute)
        with self._lock:
            level, stamp = self._levels[name]
            self._levels[name] = (level - amount, stamp)


class Quotas:
    """What the settings allow, and what has been used of it."""

    def __init__(self, settings: QuotaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._buckets = Buckets(clock)
        self._leases: Leases | None = None
        self._arriving: dict[str, list[int]] = {}
        self._lock = Lock()

    def share(self, ledger: Ledger) -> None:
        """Count minutes together with the other processes of this ledger from now on, if any are limited."""
        limits = [self._settings, *self._settings.tenants.values()]
        if any(limit.requests_per_minute or limit.tokens_per_minute for limit in limits):
            self._leases = Leases(Levels(ledger.database, ledger.root))

    def close(self) -> None:
        """Tell the other processes what is still to be counted."""
        if self._leases is not None:
            self._leases.close()

    def of(self, tenant: str) -> Quota:
        """The limits of one tenant: its own where it has any, else everybody's."""
        own = self._settings.tenants.get(tenant)
        return self._settings if own is None else own

    async def request(self, tenant: str, key: str) -> None:
        """Count one request of a key. Raises RateLimitedError when it had its number."""
        most = self.of(tenant).requests_per_minute
        if most is not None:
            self._refuse(await self._take(f"requests {tenant} {key}", 1.0, most), f"{most} requests a minute")

    async def ask_tokens(self, tenant: str) -> None:
        """Whether the tenant may use more tokens. Raises RateLimitedError."""
        most = self.of(tenant).tokens_per_minute
        if most is not None:
            self._refuse(await self._take(f"tokens {tenant}", 0.0, most), f"{most} tokens a minute")

    def spend_tokens(self, tenant: str, tokens: int) -> None:
        """Count tokens that were used. Never waits."""
        most = self.of(tenant).tokens_per_minute
        if most is None:
            return
        name = f"tokens {tenant}"
        if self._leases is None or not self._leases.spend(name, float(tokens), most):
            self._buckets.spend(name, float(tokens), most)

    async def _take(self, name: str, amount: float, per_minute: int) -> float:
        wait = None if self._leases is None else await self._leases.take(name, amount, per_minute)
        return self._buckets.take(name, amount, per_minute) if wait is None else wait

    def _refuse(self, wait: float, limit: str) -> None:
        if wait > 0:
            seconds = max(1, math.ceil(wait))
            error = RateLimitedError(
                f"The limit is {limit}.", remedy=f"Try again in {seconds} seconds, or raise it under quotas."
            )
            error.retry_after_seconds = seconds
            raise error

    @contextmanager
    def storing(self, ledger: Ledger, tenant: str, *, documents: int, size_bytes: int) -> Iterator[None]:
        """Hold room for an upload while it is ingested. Raises QuotaExceededError before any work.

        What is on its way counts, so that two uploads together cannot take more than there is.
        """
        quota = self.of(tenant)
        if quota.documents is None and quota.bytes is None:
            yield
            return
        held = [ledger.totals(tenant, record.name) for record in ledger.collections(tenant)]
        with self._lock:
            arriving = self._arriving.setdefault(tenant, [0, 0])
            _check("documents", sum(t.documents for t in held) + arriving[0], documents, quota.documents)
            _check("bytes", sum(t.bytes for t in held) + arriving[1], size_bytes, quota.bytes)
            arriving[0] += documents
            arriving[1] += size_bytes
        try:
            yield
        finally:
            with self._lock:
                arriving[0] -= documents
                arriving[1] -= size_bytes


def _check(what: str, held: int, more: int, most: int | None) -> None:
    if most is not None and held + more > most:
        raise QuotaExceededError(
            f"The upload has {more:,} {what}, the tenant {held:,}; together at most {most:,} are allowed.",
            remedy=f"Delete some documents, or raise quotas.{what}.",
        )
