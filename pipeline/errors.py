"""Every error Longleaf raises on purpose, in one tree.

::

    LongleafError
    ├── ConfigurationError        a setting, plugin name or option is wrong
    │   └── MissingDependencyError    an optional package is not installed
    ├── InvalidRequestError       the caller's input cannot be served
    │   ├── LimitExceededError        a stated limit was exceeded
    │   └── FilterError               a filter is malformed or names an unknown field
    ├── ForbiddenError            the key does not allow this
    │   └── QuotaExceededError        the tenant has used what it may
    ├── RateLimitedError          too much in too short a time; waiting helps
    ├── NotFoundError             a collection, document or job does not exist
    ├── ConflictError             the thing exists already or changed meanwhile
    ├── ReadError                 a file cannot become a document
    │   ├── UnsupportedFormatError    no reader for this kind of file
    │   ├── EmptyDocumentError        nothing in it
    │   ├── NoTextError               pages, but no text layer (needs OCR)
    │   ├── PasswordRequiredError     encrypted
    │   ├── DamagedFileError          not a valid file of its kind
    │   └── ReaderLimitError          parsing exceeded CPU, memory or output limits
    ├── EmbeddingError            the embedder cannot represent this input
    ├── IndexingError             the index cannot do this
    │   ├── FingerprintMismatchError  vectors of another embedder or chunker
    │   ├── IndexOwnedError           another process owns the embedded index
    │   └── IndexDamagedError         files of the index are unreadable
    ├── ModelError                a model cannot be loaded or run
    │   ├── ModelNotFoundError        weights are missing, with how to get them
    │   │   └── ModelNotConvertedError    they are there, and converted at first use
    │   ├── PromptTooLongError        the prompt exceeds the context window
    │   └── ModelMemoryError          memory ran out while it was loaded or run
    ├── StorageError              the data directory cannot be used
    │   ├── DiskFullError             no space left
    │   └── DataVersionError          data written by a newer Longleaf
    ├── UnavailableError          a dependency is down or overloaded; retrying may help
    └── WorkCancelledError        the caller cancelled

Each error carries a stable ``code`` (used by HTTP problem documents and ``--json``), the sentence
that says what was wrong with the offending value in it, and a ``remedy`` that says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LongleafError(Exception):
    """Root of the tree.

    ``message`` states what is wrong and names the offending value; ``remedy`` says what to do next.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes with the remedy intact."""
        return _rebuild, (type(self), self.message, self.remedy)


def _rebuild(kind: type[LongleafError], message: str, remedy: str) -> LongleafError:
    return kind(message, remedy=remedy)


class ConfigurationError(LongleafError):
    """A setting, plugin name or option is wrong."""

    code = "configuration"


class MissingDependencyError(ConfigurationError):
    """An optional package is not installed; the remedy names the extra."""

    code = "missing_dependency"


class InvalidRequestError(LongleafError):
    """The caller's input cannot be served as it is."""

    code = "invalid_request"
    status = 422


class LimitExceededError(InvalidRequestError):
    """A stated limit was exceeded; the message names the limit and the value."""

    code = "limit_exceeded"
    status = 413


class FilterError(InvalidRequestError):
    """A filter is malformed or names a field no document has."""

    code = "filter"
    status = 422


class ForbiddenError(LongleafError):
    """The caller's key does not allow this."""

    code = "forbidden"
    status = 403


class QuotaExceededError(ForbiddenError):
    """The tenant holds as many documents or bytes as it may; the message names the limit."""

    code = "quota_exceeded"


class RateLimitedError(LongleafError):
    """Too many requests or tokens within a minute; the same request succeeds later.

    ``retry_after_seconds`` says when, where it is known.
    """

    code = "rate_limited"
    status = 429
    retry_after_seconds: int | None = None


class NotFoundError(LongleafError):
    """A collection, document or job does not exist."""

    code = "not_found"
    status = 404


class ConflictError(LongleafError):
    """The thing exists already, or changed meanwhile."""

    code = "conflict"
    status = 409


class ReadError(LongleafError):
    """A file cannot become a document."""

    code = "unreadable"
    status = 422


class UnsupportedFormatError(ReadError):
    """No reader for this kind of file."""

    code = "unsupported_format"
    status = 415


class EmptyDocumentError(ReadError):
    """There is nothing in the file."""

    code = "empty_document"


class NoTextError(ReadError):
    """The file has pages but no text layer: it needs OCR first."""

    code = "no_text"


class PasswordRequiredError(ReadError):
    """The file is encrypted and the password is missing or wrong."""

    code = "password_required"


class DamagedFileError(ReadError):
    """The bytes are not a valid file of the kind they claim to be."""

    code = "damaged_file"


class ReaderLimitError(ReadError):
    """Parsing used more CPU time, memory or output than allowed."""

    code = "reader_limit"


class EmbeddingError(LongleafError):
    """The embedder cannot represent this input (NaN, no tokens, window too small)."""

    code = "embedding"


class IndexingError(LongleafError):
    """The index cannot do what was asked."""

    code = "index"


class FingerprintMismatchError(IndexingError):
    """The index holds vectors of another embedder or chunker."""

    code = "fingerprint_mismatch"
    status = 409


class IndexOwnedError(IndexingError):
    """Another process owns the embedded index."""

    code = "index_owned"
    status = 503


class IndexDamagedError(IndexingError):
    """Files of the index are unreadable; the ledger can rebuild them."""

    code = "index_damaged"


class ModelError(LongleafError):
    """A model cannot be loaded or run."""

    code = "model"


class ModelNotFoundError(ModelError):
    """Weights are missing; the remedy says how to get them."""

    code = "model_not_found"
    status = 503


class ModelNotConvertedError(ModelNotFoundError):
    """The weights are there, in a format that is converted at first use."""


class PromptTooLongError(ModelError):
    """The prompt does not fit the model's context window."""

    code = "prompt_too_long"
    status = 413


class ModelMemoryError(ModelError):
    """The memory of the machine or of its GPU does not hold what was asked."""

    code = "model_memory"
    status = 503


class StorageError(LongleafError):
    """The data directory cannot be used."""

    code = "storage"
    status = 503


class DiskFullError(StorageError):
    """No space left on the device that holds the data directory."""

    code = "disk_full"
    status = 507


class DataVersionError(StorageError):
    """The data directory was written by a newer Longleaf."""

    code = "data_version"


class UnavailableError(LongleafError):
    """A dependency is down or overloaded; retrying later may help."""

    code = "unavailable"
    status = 503


class WorkCancelledError(LongleafError):
    """The caller cancelled the work."""

    code = "cancelled"
    status = 499
