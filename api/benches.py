"""What one collection is worked with: the configured parts, or its own where it was created with others.

A collection may be created with its own embedder, chunking or analyser. They are kept in the ledger with
it, and everything that reads or writes the collection asks here for the parts that fit.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from threading import RLock
from typing import TYPE_CHECKING, Any

from api.sections import PACKAGES
from pipeline import layers, plugins
from pipeline.chunk import ChunkConfig
from pipeline.errors import ConfigurationError, InvalidRequestError, NotFoundError
from pipeline.lexical import Analyser, LexicalConfig

if TYPE_CHECKING:
    from api.build import Longleaf
    from pipeline.answer import Answerer
    from pipeline.ingest import Ingestor
    from pipeline.records import CollectionRecord
    from pipeline.rerank import Searching
    from pipeline.seams import Embedder

_KEPT = 16
# BM25's average lengths of a collection that has no documents yet: English text has about three words to
# four tokens, and an ordinary document (a paper, a contract) about 2,000 words.
_WORDS_PER_TOKEN = 0.75
_ORDINARY_WORDS = 2_000.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts that work on a collection."""

    embedder: Embedder
    retriever: Searching
    answerer: Answerer
    ingestor: Ingestor


class Benches:
    """Every bench of one Longleaf; those last used are kept. Thread-safe."""

    def __init__(self, longleaf: Longleaf) -> None:
        self._longleaf = longleaf
        self._made: OrderedDict[str, Bench] = OrderedDict()
        self._embedders: dict[str, Embedder] = {}
        self._lock = RLock()

    def of(self, tenant: str, collection: str) -> Bench:
        """The bench of a collection; the configured one where it has no settings of its own, or where
        there is no such collection yet. Raises InvalidRequestError for a name that none can have."""
        try:
            own = self._longleaf.ledger.collection(tenant, collection).settings.get("own", {})
        except NotFoundError:
            own = {}
        if not own:
            longleaf = self._longleaf
            return Bench(longleaf.embedder, longleaf.retriever, longleaf.answerer, longleaf.ingestor)
        name = json.dumps(own, sort_keys=True)
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(own)
            self._made.move_to_end(name)
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
            return self._made[name]

    def create(
        self,
        tenant: str,
        name: str,
        *,
        embedder: str | None = None,
        chunking: Mapping[str, Any] | None = None,
        analyser: Mapping[str, Any] | None = None,
    ) -> CollectionRecord:
        """Make an empty collection with settings of its own; what is None is as configured.

        Raises InvalidRequestError for a setting that does not exist or is out of range, or an embedder
        that is neither configured nor in ``server.collection_embedders``; ConflictError when the
        collection exists.
        """
        settings = self._longleaf.settings
        allowed = {settings.embedder.name, *settings.server.collection_embedders}
        if embedder is not None and embedder not in allowed:
            raise InvalidRequestError(
                f"Collections cannot be made with the embedder {embedder[:64]!r}.",
                remedy=f"Choose from {', '.join(sorted(allowed))}; server.collection_embedders allows more.",
            )
        own: dict[str, Any] = {}
        if embedder not in (None, settings.embedder.name):
            own["embedder"] = embedder
        if chunking is not None:
            own["chunking"] = asdict(_changed(settings.chunking, "chunking", chunking))
        if analyser is not None:
            own["analyser"] = asdict(_changed(settings.lexical, "analyser", analyser))
        vectors, terms, cut = self.parts(own)
        passage_words = _WORDS_PER_TOKEN * cut.passage_tokens
        self._longleaf.ingestor.recover()
        record = self._longleaf.ledger.create_collection(
            tenant,
            name,
            fingerprint=str(vectors.fingerprint),
            chunking=asdict(cut),
            lexical={
                "analyser": terms.parameters,
                "avg_len": {"passages": passage_words, "documents": max(_ORDINARY_WORDS, passage_words)},
            },
            settings={"own": own} if own else {},
        )
        for index, schema in layers.schemas(record, vectors.fingerprint.dim).items():
            self._longleaf.indexer.create(index, schema)
        return record

    def parts(self, own: Mapping[str, Any]) -> tuple[Embedder, Analyser, ChunkConfig]:
        """What a collection with these settings of its own is written with."""
        return self._embedder(own), self._analyser(own), self._chunking(own)

    def _make(self, own: Mapping[str, Any]) -> Bench:
        longleaf = self._longleaf
        embedder, analyser, chunking = self.parts(own)
        retriever = longleaf.make_retriever(embedder, analyser)
        return Bench(
            embedder,
            retriever,
            longleaf.make_answerer(retriever, embedder, analyser.config),
            longleaf.ingestor.with_parts(embedder=embedder, analyser=analyser, chunking=chunking),
        )

    def _chunking(self, own: Mapping[str, Any]) -> ChunkConfig:
        given = own.get("chunking")
        return self._longleaf.settings.chunking if given is None else ChunkConfig(**given)

    def _analyser(self, own: Mapping[str, Any]) -> Analyser:
        given = own.get("analyser")
        if given is None:
            return self._longleaf.analyser
        return Analyser(LexicalConfig(**{**given, "stop_words": tuple(given["stop_words"])}))

    def _embedder(self, own: Mapping[str, Any]) -> Embedder:
        name = own.get("embedder")
        settings = self._longleaf.settings
        if name is None or name == settings.embedder.name:
            return self._longleaf.embedder
        with self._lock:
            if name not in self._embedders:
                known = plugins.config_class(PACKAGES["embedder"], name).model_fields
                shared = {
                    "cache": settings.models.cache,
                    "allow_download": settings.models.allow_download,
                    "statistics": settings.data / "embedder" / name,
                }
                options = {key: value for key, value in shared.items() if key in known}
                self._embedders[name] = plugins.load(PACKAGES["embedder"], name, **options)
            return self._embedders[name]


def _changed(configured: Any, what: str, given: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a frozen config
    """The configured settings with some values replaced, every value of the type it had."""
    for key, value in given.items():
        before = getattr(configured, key, None)
        if before is None:
            raise InvalidRequestError(
                f"There is no setting {what}.{key[:64]}.",
                remedy=f"Choose from {', '.join(asdict(configured))}.",
            )
        wanted = (
            list if isinstance(before, tuple) else int | float if isinstance(before, float) else type(before)
        )
        if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(before, bool)):
            raise InvalidRequestError(
                f"{what}.{key} is of the wrong type.", remedy=f"Its default is {before!r}."
            )
    values = {key: tuple(map(str, v)) if isinstance(v, list) else v for key, v in given.items()}
    try:
        changed = replace(configured, **values)
        if isinstance(changed, LexicalConfig):
            Analyser(changed)
    except ConfigurationError as error:
        raise InvalidRequestError(error.message, remedy=error.remedy) from error
    return changed
