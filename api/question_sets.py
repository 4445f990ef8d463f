"""Documents as people have them (files and folders) to sets with generated questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from api.sources import find, to_sources
from pipeline.errors import InvalidRequestError, LongleafError
from pipeline.evaluation.dataset import EvaluationSet
from pipeline.evaluation.generate import generate
from pipeline.evaluation.saving import save_set
from pipeline.read import Limits, read
from pipeline.types import Document


def make_set(
    paths: Sequence[str],
    folder: Path,
    *,
    each: int,
    seed: int,
    limits: Limits,
    skipped: Callable[[str], None],
) -> EvaluationSet:
    """Read files, ask questions of them, and write the set to ``folder``.

    ``skipped`` is told of files that cannot be read. Raises InvalidRequestError if none can, ConflictError
    where there is a set already.
    """
    found, _ = find(paths)
    documents: list[Document] = []
    for source in to_sources(found, metadata={}, document_id=None, title=None, password=None):
        try:
            if source.data is None:
                raise InvalidRequestError(f"{source.name} is no file.", remedy="Name files or folders.")
            document = read(source.data, name=source.name, limits=limits)
        except LongleafError as error:
            skipped(f"{source.name}: {error}")
            continue
        documents.append(replace(document, id=source.document_id or source.name))
    if not documents:
        raise InvalidRequestError(
            f"None of {len(found)} files can be read.", remedy="Name documents that `longleaf ingest` takes."
        )
    made = replace(generate(documents, each=each, seed=seed), name=folder.resolve().name)
    save_set(made, folder)
    return made
