"""Keeping an installation well: ``doctor``, ``verify``, ``repair`` and ``version``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command

if TYPE_CHECKING:
    from pipeline.records import VersionKey

_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "missing": ("!!", "bold red")}


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "doctor")(doctor)
    command(app, "verify")(verify)
    command(app, "repair")(repair)
    command(app, "version")(version)


def doctor(
    run: Run,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its value instead.")
    ] = False,
) -> int:
    """Check models, index, versions and disk, and say how to get what is missing.

    Example: longleaf doctor
    """
    if settings:
        return _settings(run)
    from api.doctor import examine

    checks = list(examine(run.longleaf))
    if run.json:
        run.emit({"checks": checks})
    else:
        for check in checks:
            mark, style = _MARKS[check.state]
            run.out.print(f"{mark}  {check.name}: ", style=style, end="", soft_wrap=True)
            run.out.print(check.detail, soft_wrap=True)
            if check.remedy:
                run.out.print(f"    fix: {check.remedy}", soft_wrap=True)
    return FAILED if any(check.state == "missing" for check in checks) else DONE


def verify(
    run: Run,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the stored files.")] = False,
) -> int:
    """Compare index and files with the ledger, and change nothing.

    Example: longleaf verify
    """
    from pipeline import reconcile

    longleaf = run.longleaf
    found = reconcile.verify(longleaf.ledger, longleaf.indexer, files=not quick)
    clean = all(state.clean for state in found)
    if run.json:
        run.emit({"clean": clean, "collections": found})
        return DONE if clean else FAILED
    for state in found:
        run.out.print(f"{state.collection}: {'in order' if state.clean else 'not in order'}")
        for layer in state.layers:
            told = layer.damaged or f"{layer.missing} missing, {layer.orphans} unowned"
            run.out.print(f"   {layer.index}: {layer.expected} points, {told}")
            for problem in layer.problems:
                run.out.print(f"      {problem}")
        for key in state.unreadable:
            run.out.print(f"   {_told(key)}: its stored file is damaged; ingest it again")
    if not clean:
        run.note("Put the index in order with: longleaf repair", "yellow")
    return DONE if clean else FAILED


def repair(run: Run) -> int:
    """Rebuild what the index lacks from the ledger, and remove what it should not have.

    Example: longleaf repair
    """
    from pipeline import reconcile
    from pipeline.errors import IndexDamagedError

    parts = run.longleaf
    try:
        parts.open_stores()
    except IndexDamagedError as error:
        run.note(f"{error.message} All of the index is made anew.", "yellow")
        parts.discard_index()
    done = reconcile.repair(
        parts.ledger,
        parts.indexer,
        parts.embedder,
        parts.analyser,
        run.settings.chunking,
        parts=lambda record: parts.benches.parts(record.settings.get("own", {})),
    )
    failed = any(collection.failed or collection.refused for collection in done)
    if run.json:
        run.emit({"collections": done})
        return FAILED if failed else DONE
    for collection in done:
        if collection.refused:
            run.out.print(f"{collection.collection}: left as it is. {collection.refused}")
            continue
        rebuilt, removed = collection.rebuilt_documents, collection.deleted_orphans
        run.out.print(f"{collection.collection}: {rebuilt} documents rebuilt, {removed} points removed")
        for identity, why in collection.failed.items():
            run.out.print(f"   {identity}: {why}")
    return FAILED if failed else DONE


def version(run: Run) -> None:
    """Print the version.

    Example: longleaf version
    """
    from api.version import VERSION

    if run.json:
        run.emit({"version": VERSION})
    else:
        run.out.print(VERSION)


def _settings(run: Run) -> int:
    from api.commands.tables import table
    from api.settings import entries

    rows = [(key, value) for key, value, _ in entries(run.settings)]
    if run.json:
        run.emit({"settings": dict(rows)})
    else:
        run.out.print(table([{"setting": key, "value": str(value)} for key, value in rows]))
    return DONE


def _told(key: VersionKey) -> str:
    return f"{key.document_id} (version {key.version})"
