"""What is counted and timed, for Prometheus. No label ever holds a name that a client chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from api.version import VERSION
from api.work import Pool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Names of the pipeline's timings, and what operators call them.
_STAGES = {
    "tokenise": "tokenise",
    "embed": "embed",
    "search": "search",
    "fuse": "rank",
    "rerank": "rerank",
    "load": "load",
    "retrieve": "retrieve",
    "order": "order",
    "extract": "extract",
    "prompt": "prompt",
    "prefill": "prefill",
    "first_token": "first_token",
    "generate": "decode",
    "ground": "ground",
}
_INGESTION = ("reading", "chunking", "counting", "embedding", "indexing", "caching")
# Names of an answer's usage, and which counter they add to.
_TOKENS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "context_tokens": "context"}
_DRAFTS = {"drafted_tokens": "drafted", "accepted_tokens": "accepted"}
_KV = {"cached_prompt_tokens": "hit", "cached_tokens": "hit", "encoded_tokens": "stored"}


class Metrics:
    """The numbers of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self._requests = Histogram(
            "longleaf_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "longleaf_stage_seconds",
            "Time of each stage of searches and answers.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._ingestion = Histogram(
            "longleaf_ingestion_seconds",
            "Time of each stage of a document's ingestion.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._documents = Counter(
            "longleaf_documents", "Documents ingested, by what became of them.", ["status"], registry=registry
        )
        self._tokens = Counter("longleaf_tokens", "Tokens read and written.", ["kind"], registry=registry)
        self._kv = Counter(
            "longleaf_kv_tokens",
            "Tokens of prompts and passages whose attention states were requested, found, made and stored, "
            "and of passages that left memory or disk for want of room.",
            ["event"],
            registry=registry,
        )
        self._evicted: list[Callable[[], Mapping[str, float]]] = []
        self._told: dict[str, float] = {}
        self._scraping = Lock()
        self._drafts = Counter(
            "longleaf_draft_tokens",
            "Tokens drafted, and those of them that were accepted.",
            ["outcome"],
            registry=registry,
        )
        self._answers = Counter("longleaf_answers", "Answers, by their kind.", ["kind"], registry=registry)
        Info("longleaf_build", "What is running.", registry=registry).info({"version": VERSION})

    def watch(self, pools: Sequence[Pool]) -> None:
        """Tell the state of these pools at every scrape."""
        self._registry.register(_Pools(pools))

    def gauge(self, name: str, help_: str, ask: Callable[[], Mapping[str, float]], label: str) -> None:
        """Ask for values by label at every scrape."""
        self._registry.register(_Asked(name, help_, ask, label))

    def counter(self, name: str, help_: str, ask: Callable[[], Mapping[str, float]], label: str) -> None:
        """Ask for totals by label at every scrape; they only grow."""
        self._registry.register(_Asked(name, help_, ask, label, CounterMetricFamily))

    def evictions(self, ask: Callable[[], Mapping[str, float]]) -> None:
        """Ask at every scrape how many tokens' states have left the cache, by event; they only grow."""
        self._evicted.append(ask)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request that was answered. ``route`` is the template, never the path."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def stages(self, timings: Mapping[str, float]) -> None:
        """Seconds by stage, as a retrieval or an answer tells them."""
        for name, seconds in timings.items():
            if name in _STAGES:
                self._stages.labels(_STAGES[name]).observe(seconds)

    def answered(self, kind: str, timings: Mapping[str, float], usage: Mapping[str, object]) -> None:
        """One answer: its kind (extractive, composed, not_found), seconds, and what it tells of tokens."""
        self._answers.labels(kind).inc()
        self.stages(timings)
        for names, counter in ((_TOKENS, self._tokens), (_DRAFTS, self._drafts), (_KV, self._kv)):
            for name, label in names.items():
                value = usage.get(name)
                if isinstance(value, int | float):
                    counter.labels(label).inc(value)
        if isinstance(usage.get("prompt_tokens"), int | float):
            self._kv.labels("requested").inc(float(usage["prompt_tokens"]))  # type: ignore[arg-type]

    def embedded(self, tokens: int, seconds: float) -> None:
        """Texts that were embedded for a client."""
        self._tokens.labels("embedded").inc(tokens)
        self._stages.labels("embed").observe(seconds)

    def ingested(self, status: str, tokens: int, seconds: Mapping[str, float]) -> None:
        """One document that was ingested, or not."""
        self._documents.labels(status).inc()
        self._tokens.labels("ingested").inc(tokens)
        for stage in _INGESTION:
            if stage in seconds:
                self._ingestion.labels(stage).observe(seconds[stage])

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        with self._scraping:
            for event, total in ((event, n) for ask in self._evicted for event, n in ask().items()):
                self._kv.labels(event).inc(max(total - self._told.get(event, 0.0), 0.0))
                self._told[event] = total
        return generate_latest(self._registry)


class _Pools(Collector):
    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily("longleaf_queue_depth", "Requests waiting for a worker.", labels=["kind"])
        age = GaugeMetricFamily(
            "longleaf_queue_oldest_seconds", "How long the longest of them has waited.", labels=["kind"]
        )
        busy = GaugeMetricFamily("longleaf_workers_busy", "Workers that have work.", labels=["kind"])
        refused = GaugeMetricFamily(
            "longleaf_queue_refused",
            "Requests refused because the line was full, since the start.",
            labels=["kind"],
        )
        for pool in self._pools:
            state = pool.state()
            depth.add_metric([pool.name], state.waiting)
            age.add_metric([pool.name], state.oldest_seconds)
            busy.add_metric([pool.name], state.running)
            refused.add_metric([pool.name], state.refused)
        yield from (depth, age, busy, refused)


Family = GaugeMetricFamily | CounterMetricFamily


class _Asked(Collector):
    def __init__(
        self,
        name: str,
        help_: str,
        ask: Callable[[], Mapping[str, float]],
        label: str,
        kind: type[Family] = GaugeMetricFamily,
    ) -> None:
        self._name, self._help, self._ask, self._label, self._kind = name, help_, ask, label, kind

    def collect(self) -> Iterator[Family]:
        family = self._kind(self._name, self._help, labels=[self._label])
        for label, value in self._ask().items():
            family.add_metric([label], value)
        yield family
