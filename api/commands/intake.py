"""Sources into the store or into a job, and what is told of it: what every way to ingest shares."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.commands.frame import DONE, FAILED, Run

if TYPE_CHECKING:
    from api.sources import LeftOut
    from pipeline.errors import LongleafError
    from pipeline.ingest import IngestResult, Progress, Source
    from pipeline.jobs import OnConflict
    from pipeline.outlook import Outlook


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where documents go, and what happens where one is already."""

    tenant: str
    collection: str
    on_conflict: OnConflict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of sources: all, or those before what ``stopped`` the rest."""

    results: Sequence[IngestResult]
    seconds: float
    notes: Sequence[str]
    stopped: LongleafError | None


def accept(run: Run, sources: Sequence[Source], shelf: Shelf, left_out: Sequence[LeftOut] = ()) -> int:
    """Make a job of them, and say which."""
    job, _ = run.longleaf.job_queue.submit(
        sources, tenant=shelf.tenant, collection=shelf.collection, on_conflict=shelf.on_conflict
    )
    if run.json:
        run.emit({"job": job, "left_out": left_out})
    else:
        run.out.print(job.id)
        run.note(f"Accepted {job.documents_total} documents. Watch: longleaf jobs wait {job.id}")
    return DONE


def store(run: Run, sources: Sequence[Source], shelf: Shelf) -> Outcome:
    """Ingest them. Raises what is wrong before the first of them is looked at."""
    from pipeline.errors import LongleafError

    started = time.perf_counter()
    results: list[IngestResult] = []
    notes: list[str] = []
    stopped: LongleafError | None = None
    with progress_bar(run, len(sources)) as show:
        ingestion = run.longleaf.benches.of(shelf.tenant, shelf.collection).ingestor.ingest(
            sources,
            tenant=shelf.tenant,
            collection=shelf.collection,
            on_conflict=shelf.on_conflict,
            progress=show,
            note=notes.append,
        )
        try:
            results.extend(ingestion)
        except LongleafError as error:  # what was finished before is kept, and told
            stopped = error
    return Outcome(results, time.perf_counter() - started, notes, stopped)


def _cache(run: Run, results: Sequence[IngestResult]) -> None:
    """See the building of cached states through, if settings ask for it and anything is new."""
    from api import building

    new = sum(result.status in ("created", "replaced") for result in results)
    if new and building.at_ingestion(run.settings):
        run.note(f"Building cached states of {new} documents; Ctrl-C leaves the rest to their first use.")
        run.longleaf.cached_states.drain()
        contexts = run.longleaf.made.get("contexts")
        if contexts is not None:  # else no model could be loaded, which was told
            contexts.store.flush()


def report(run: Run, outcome: Outcome, left_out: Sequence[LeftOut] = ()) -> int:
    """Tell it, see the building of cached states through, and give the exit code."""
    results, stopped = outcome.results, outcome.stopped
    counts: Counter[str] = Counter(result.status for result in results)
    tokens = sum(result.tokens for result in results if result.status in ("created", "replaced"))
    if run.json:
        totals = {**counts, "tokens": tokens, "seconds": round(outcome.seconds, 3)}
        error = {"error": stopped} if stopped else {}
        told = {"documents": results, "totals": totals, "notes": outcome.notes, "left_out": left_out}
        run.emit({**told, **error})
    else:
        _print(run, outcome, counts, tokens)
    _cache(run, results)
    return FAILED if stopped or counts["failed"] else DONE


def _print(run: Run, outcome: Outcome, counts: Mapping[str, int], tokens: int) -> None:
    from api.commands.tables import table

    results = outcome.results
    stored = [result for result in results if result.status != "failed"]
    if stored:
        columns = ("document_id", "status", "version", "pages", "tokens", "passages", "title")
        run.out.print(table([{name: getattr(result, name) for name in columns} for result in stored]))
    for result in results:
        for warning in result.warnings:
            run.note(f"{result.document_id}: {warning}", "yellow")
    tell_failures(run, results)
    for note in outcome.notes:
        run.note(note, "yellow")
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "nothing stored"
    run.note(f"{told}; {tokens:,} tokens in {outcome.seconds:.1f} s.")
    if outcome.stopped:
        run.fail(outcome.stopped)


def tell_failures(run: Run, results: Sequence[IngestResult] | Sequence[Outlook]) -> None:
    """What could not be ingested, why, and what to do."""
    for result in results:
        if result.status == "failed":
            run.note(f"failed: {result.name or 'standard input'}: {result.message}", "bold red")
            if result.remedy:
                run.note(f"  fix: {result.remedy}", "")


@contextmanager
def progress_bar(run: Run, total: int) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on standard error while somebody watches it."""
    if run.json or not run.err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Bar(*columns, console=run.err, transient=True) as bar:
        task = bar.add_task("reading", total=total, tokens=0, name="")

        def show(now: Progress) -> None:
            bar.update(
                task,
                description=now.stage,
                completed=now.documents_done,
                tokens=now.tokens_done,
                name=now.name[-40:],
            )

        yield show
