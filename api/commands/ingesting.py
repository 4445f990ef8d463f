"""``longleaf ingest``: documents in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from api.commands.frame import Run, command
from api.commands.options import Collection, Tenant


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
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Put before every id that is a path, e.g. 2023/, so that files of one name in two folders "
            "do not replace each other.",
        ),
    ] = "",
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
        bool,
        typer.Option(
            "--watch",
            help="Go on, with files as they come and change, until stopped. Beside `longleaf serve` on the "
            "same data: with --queue.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done. Files are not parsed.")
    ] = False,
) -> int:
    """Read documents, cut them, embed them and put them into the index.

    A file that has not changed costs nothing; a changed one replaces its older version.

    Example: longleaf ingest contracts/ -c contracts -m year=2024
    """
    from api import sources
    from api.commands.intake import Shelf, accept, report, store
    from api.manifests import read_manifest
    from pipeline.errors import InvalidRequestError
    from pipeline.jobs import check_on_conflict
    from pipeline.records import check_name

    limits = run.settings.reading  # first: what is wrong with the settings is told before anything else
    if not paths and manifest is None:
        raise InvalidRequestError(
            "There is nothing to ingest.", remedy="Name files, folders or patterns, or a --manifest."
        )
    shelf = Shelf(
        check_name("tenant", tenant), check_name("collection", collection), check_on_conflict(on_conflict)
    )
    shared = sources.read_metadata(metadata or [])
    made = partial(sources.to_sources, metadata=shared, password=password)
    if watch:
        from api.commands.following import Watcher, follow

        unfit = {"--manifest": manifest, "--id": document_id, "--title": title, "--dry-run": dry_run}
        _refuse_with_watch({**unfit, "standard input": sources.STANDARD_INPUT in (paths or [])})
        follow(run, Watcher(paths or [], prefix), made, shelf, queue=queue)
    found, left_out = sources.find(paths or [], prefix)
    given = list(made(found, document_id=document_id, title=title)) if paths else []
    given += read_manifest(manifest, shared, prefix, given) if manifest else []
    if dry_run:
        from api.commands.foreseeing import foresee

        return foresee(run, given, shelf, left_out, limits)
    for line in sources.summed_up(left_out):
        run.note(f"Left out, {line}.")
    if queue:
        return accept(run, given, shelf, left_out)
    return report(run, store(run, given, shelf), left_out)


def _refuse_with_watch(others: Mapping[str, object]) -> None:
    """Raise InvalidRequestError if any of these was given."""
    from pipeline.errors import InvalidRequestError

    for name, given in others.items():
        if given:
            raise InvalidRequestError(
                f"There can be no {name} with --watch.", remedy="Name files, folders or patterns to watch."
            )
