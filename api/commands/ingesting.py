"""``longleaf ingest``: documents in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.frame import DONE, FAILED, Run, command
from api.commands.options import Collection, Tenant

if TYPE_CHECKING:
    from pipeline.errors import LongleafError
    from pipeline.ingest import IngestResult, Progress, Source
    from pipeline.jobs import OnConflict

_WATCH_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "ingest")(ingest)


def ingest(
    run: Run,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Files, folders, patterns such as 'a/**/*.pdf', or - for standard input."
        ),
    ] = None,
    *,
    collection: Collection = "default",
    tenant: Tenant = "default",
    title: Annotated[str | None, typer.Option(help="Title; for one file.")] = None,
    document_id: Annotated[
        str | None, typer.Option("--id", help="Id; for one file. Its relative path otherwise.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", "-m", metavar="KEY=VALUE|JSON", help="What filters can ask for. Repeatable."
        ),
    ] = None,
    password: Annotated[str | None, typer.Option(help="For encrypted files; kept nowhere.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="JSON lines with path or text, and id, title, metadata, media_type of each."),
    ] = None,
    on_conflict: Annotated[
        str, typer.Option(help="For another content of a document: replace, skip, fail or new_version.")
    ] = "replace",
    queue: Annotated[
        bool, typer.Option("--queue", help="Only accept it as a job, for a service to work on.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, with files as they come and change, until stopped.")
    ] = False,
) -> int:
    """Read documents, cut them, embed them and put them into the index.

    A file that has not changed costs nothing; a changed one replaces its older version.

    Example: longleaf ingest contracts/ -c contracts -m year=2024
    """
    from api.manifests import read_manifest
    from api.sources import find, read_metadata, to_sources
    from pipeline.errors import InvalidRequestError
    from pipeline.jobs import check_on_conflict

    longleaf = run.longleaf  # first, because what is wrong with the settings is told before anything else
    if (not paths and manifest is None) or (watch and (manifest or queue or not paths)):
        raise InvalidRequestError(
            "There is nothing to ingest." if not watch else "Only files and folders can be watched.",
            remedy="Name files, folders or patterns; or --manifest FILE without --watch.",
        )
    policy = check_on_conflict(on_conflict)
    shared = read_metadata(metadata or [])
    if watch:
        return _watch(
            run, paths or [], tenant=tenant, collection=collection, metadata=shared, on_conflict=policy
        )
    found, skipped = find(paths or [])
    given = to_sources(found, metadata=shared, document_id=document_id, title=title, password=password)
    sources = [*(given if paths else ()), *(read_manifest(manifest, shared) if manifest else ())]
    if skipped:
        run.note(f"Left out {len(skipped)} files of other kinds, such as {skipped[0].name}.")
    if queue:
        job, _ = longleaf.job_queue.submit(sources, tenant=tenant, collection=collection, on_conflict=policy)
        if run.json:
            run.emit({"job": job})
        else:
            run.out.print(job.id)
            run.note(f"Accepted {job.documents_total} documents. Watch: longleaf jobs wait {job.id}")
        return DONE
    return _ingest(run, sources, tenant=tenant, collection=collection, on_conflict=policy)


def _watch(
    run: Run,
    paths: list[str],
    *,
    tenant: str,
    collection: str,
    metadata: dict[str, Any],
    on_conflict: OnConflict,
) -> int:
    """Ingest what comes and changes until interrupted. Files that go do not take their documents along."""
    from api.sources import Watcher, to_sources

    watcher = Watcher(paths)
    run.note("Watching; stop with Ctrl-C.", "bold")
    while True:
        for found in watcher.changed():
            given = to_sources([found], metadata=metadata, document_id=None, title=None, password=None)
            _ingest(run, list(given), tenant=tenant, collection=collection, on_conflict=on_conflict)
        time.sleep(_WATCH_SECONDS)


def _ingest(run: Run, sources: list[Source], *, tenant: str, collection: str, on_conflict: OnConflict) -> int:
    from pipeline.errors import LongleafError

    started = time.perf_counter()
    results: list[IngestResult] = []
    notes: list[str] = []
    stopped: LongleafError | None = None
    with progress_bar(run, len(sources)) as show:
        ingestor = run.longleaf.benches.of(tenant, collection).ingestor
        ingestion = ingestor.ingest(
            sources,
            tenant=tenant,
            collection=collection,
            on_conflict=on_conflict,
            progress=show,
            note=notes.append,
        )
        try:
            results.extend(ingestion)
        except LongleafError as error:  # what was finished before is kept, and told
            stopped = error
    _report(run, results, time.perf_counter() - started, notes, stopped)
    _cache(run, results)
    return FAILED if stopped or any(result.status == "failed" for result in results) else DONE


def _cache(run: Run, results: list[IngestResult]) -> None:
    """See the building of cached states through, if settings ask for it and anything is new."""
    from api import building

    new = sum(result.status in ("created", "replaced") for result in results)
    if new and building.at_ingestion(run.settings):
        run.note(f"Building cached states of {new} documents; Ctrl-C leaves the rest to their first use.")
        run.longleaf.cached_states.drain()
        contexts = run.longleaf.made.get("contexts")
        if contexts is not None:  # else no model could be loaded, which was told
            contexts.store.flush()


def _report(
    run: Run,
    results: list[IngestResult],
    seconds: float,
    notes: list[str],
    stopped: LongleafError | None,
) -> None:
    counts = Counter(result.status for result in results)
    tokens = sum(result.tokens for result in results if result.status in ("created", "replaced"))
    if run.json:
        totals = {
            **{str(status): count for status, count in counts.items()},
            "tokens": tokens,
            "seconds": round(seconds, 3),
        }
        error = {"error": stopped} if stopped else {}
        run.emit({"documents": results, "totals": totals, "notes": notes, **error})
        return
    from api.commands.tables import table

    stored = [result for result in results if result.status != "failed"]
    if stored:
        columns = ("document_id", "status", "version", "pages", "tokens", "passages", "title")
        run.out.print(table([{name: getattr(result, name) for name in columns} for result in stored]))
    for result in results:
        for warning in result.warnings:
            run.note(f"{result.document_id}: {warning}", "yellow")
    for result in results:
        if result.status == "failed":
            run.note(f"failed: {result.name or 'standard input'}: {result.message}", "bold red")
            if result.remedy:
                run.note(f"  fix: {result.remedy}", "")
    for note in notes:
        run.note(note, "yellow")
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "nothing stored"
    run.note(f"{told}; {tokens:,} tokens in {seconds:.1f} s.")
    if stopped:
        run.fail(stopped)


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
