"""Keeping data safe: ``backup``, ``restore`` and ``migrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.commands.frame import DONE, Run, command


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "backup", needs_data=True)(backup)
    command(app, "restore")(restore)
    command(app, "migrate", needs_data=True)(migrate)


def backup(
    run: Run, folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")]
) -> None:
    """Write a backup, while the service runs: ledger, texts, originals, what is on its way in, what
    embedders have learnt, and calibrations.

    Indexes and caches are not in it; they are made again from what is.

    Example: longleaf backup /backups/monday
    """
    from pipeline.backup import back_up

    report = back_up(run.longleaf.ledger, folder)
    if run.json:
        run.emit(report)
    else:
        run.note(
            f"{report.documents:,} documents and {report.waiting:,} on their way in: {report.files:,} files, "
            f"{report.bytes:,} bytes in {report.seconds:.1f} s; writers waited {report.locked_seconds:.2f} s."
        )
        for name in report.not_in_it:
            run.note(
                f"Index {name!r} is no collection's: no backup holds it, and a restore removes it.", "yellow"
            )


def restore(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished backup.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace all data that is there, with its index.")
    ] = False,
    deletions: Annotated[
        list[Path] | None,
        typer.Option(
            "--deletions-from",
            metavar="DIR",
            help="A data folder or later backup whose deletions hold too. Repeatable.",
        ),
    ] = None,
    index: Annotated[
        bool, typer.Option(help="Build the index at once, or by `longleaf repair` later.")
    ] = True,
) -> int | None:
    """Put a backup in the place of the data, and build its index. Stop the service before.

    What was deleted since the backup stays deleted, as far as the data in place or --deletions-from tell, and
    keys that were revoked stay revoked. Newer keys and the audit log stay.

    Example: longleaf restore /backups/monday --replace
    """
    from api.commands.keeping import repair
    from pipeline.restoring import restore as put_back

    settings = run.settings
    url = settings.ledger.url.get_secret_value() if settings.ledger.url else None
    report = put_back(folder, settings.data, url=url, replace=replace, deletions=deletions or ())
    if run.json:
        run.emit(report)
    else:
        run.note(
            f"Restored the backup of {report.created}: {report.documents:,} documents, {report.waiting:,} on "
            f"their way in; {report.left_out:,} had been deleted since and stay so."
        )
    if not index:
        return DONE
    if run.json:  # one JSON value is printed, and it is out already
        run.json = False
        run.out.quiet = True
    return repair(run)


def migrate(run: Run) -> None:
    """Bring data of an older Longleaf forward. There is no way back but a backup.

    Example: longleaf migrate
    """
    from pipeline.ledger import Ledger
    from pipeline.migrations import SCHEMA_VERSION

    settings = run.settings
    url = settings.ledger.url.get_secret_value() if settings.ledger.url else None
    ledger = Ledger(settings.data, url=url, migrate=True)
    found = ledger.database.found_version
    ledger.close()
    if run.json:
        run.emit({"from": found, "to": SCHEMA_VERSION})
    elif found == SCHEMA_VERSION:
        run.note(f"The data has version {SCHEMA_VERSION} already.")
    else:
        run.note(f"The data went from version {found} to {SCHEMA_VERSION}.")
