"""Keeping an installation well: ``doctor``, ``verify``, ``repair`` and ``version``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command

if TYPE_CHECKING:
    from pipeline.records import VersionKey

_LENGTHS, _CANDIDATES = "256,1024,4096", 20
_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "missing": ("!!", "bold red")}


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "doctor")(doctor)
    command(app, "verify", needs_data=True)(verify)
    command(app, "repair", needs_data=True)(repair)
    command(app, "version")(version)


def doctor(
    run: Run,
    part: Annotated[
        str | None,
        typer.Argument(metavar="[embedder]", help="Measure how long a text the embedder can find facts in."),
    ] = None,
    *,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its value instead.")
    ] = False,
    lengths: Annotated[
        str | None, typer.Option(help=f"Of the embedder: tokens of the texts; {_LENGTHS} unless said.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help=f"Of the embedder: texts of each length; {_CANDIDATES} unless said.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Of the embedder: draw the result as PNG.")] = None,
) -> int:
    """Check models, index, versions and disk, and say how to get what is missing.

    Example: longleaf doctor embedder --plot reach.png
    """
    given = {"lengths": lengths, "candidates": candidates, "plot": plot}
    measured = [f"--{name}" for name, value in given.items() if value is not None]
    if part not in (None, "embedder") or (measured and part is None):
        from pipeline.errors import InvalidRequestError

        raise InvalidRequestError(
            f"The doctor does not know {part!r}." if part else f"{measured[0]} is of the embedder alone.",
            remedy="Say: longleaf doctor embedder",
        )
    if settings:
        return _settings(run)
    if part is not None:
        wanted = _tokens(_LENGTHS if lengths is None else lengths)
        return _doctor_embedder(run, wanted, _CANDIDATES if candidates is None else candidates, plot)
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


def _doctor_embedder(run: Run, lengths: list[int], candidates: int, plot: Path | None) -> int:
    from api import embedder_doctor
    from api.commands.tables import table
    from pipeline.passkeys import effective_tokens, measure

    if plot is not None:
        embedder_doctor.check_plot(plot)
    reached = []
    with embedder_doctor.embedder_of(run.settings) as embedder:
        measuring = measure(embedder, lengths, candidates, run.settings.chunking)
        notes = list(embedder_doctor.notes(run.settings, embedder))
        for reach in measuring:
            reached.append(reach)
            run.note(f"{reach.tokens:,} tokens measured, {reach.tokens_a_second:,.0f} a second")
        fingerprint = str(embedder.fingerprint)
    effective = {by: effective_tokens(reached, by) for by in ("unit", "document")}
    if plot is not None:
        embedder_doctor.plot(reached, fingerprint[:90], plot)
    if run.json:
        run.emit({"embedder": fingerprint, "reached": reached, "effective_tokens": effective, "notes": notes})
        return DONE
    run.out.print(fingerprint, soft_wrap=True)
    rows = [
        {
            "tokens": r.tokens,
            "best unit": r.unit,
            "one vector": r.document,
            "texts": r.candidates,
            "covered by": r.windowing,
        }
        for r in reached
    ]
    run.out.print(table(rows))
    run.out.print(
        f"Effective window: {effective['unit']:,} tokens by the best unit, {effective['document']:,} by one "
        "vector a document (of those measured)",
        soft_wrap=True,
    )
    for note in notes:
        run.out.print(f"note  {note}", soft_wrap=True)
    if plot is not None:
        run.note(f"Plotted in {plot}")
    return DONE


def verify(
    run: Run,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the stored files.")] = False,
) -> int:
    """Compare index and files with the ledger, and change nothing.

    Example: longleaf verify
    """
    from pipeline import reconcile
    from pipeline.foreign import foreign_indexes

    longleaf = run.longleaf
    found = reconcile.verify(longleaf.ledger, longleaf.indexer, files=not quick)
    others = run.settings.other_indexes()
    clean = all(state.clean for state in found) and not others
    if not found:
        run.note("Nothing is there to compare. Add documents with: longleaf ingest FILE")
    if run.json:
        run.emit({"clean": clean, "collections": found, "other_indexes": list(others)})
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
    for engine, path in others.items():
        run.out.print(f"index of {engine}: not configured; what is deleted stays in it")
        for name in foreign_indexes(path):
            run.out.print(
                f"   repair leaves it, since {name!r} in it is a program's own: remove {path} yourself"
            )
    if not clean:
        run.note("Put the index in order with: longleaf repair", "yellow")
    return DONE if clean else FAILED


def repair(run: Run) -> int:
    """Rebuild what the index lacks from the ledger, and remove what it should not have: also indexes of other
    engines than the configured one, once that one is in order.

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
    engines = [] if failed else parts.remove_other_indexes()
    if run.json:
        run.emit({"collections": done, "removed_indexes": engines})
        return FAILED if failed else DONE
    for collection in done:
        if collection.refused:
            run.out.print(f"{collection.collection}: left as it is. {collection.refused}")
            continue
        rebuilt, removed = collection.rebuilt_documents, collection.deleted_orphans
        run.out.print(f"{collection.collection}: {rebuilt} documents rebuilt, {removed} points removed")
        for identity, why in collection.failed.items():
            run.out.print(f"   {identity}: {why}")
    for engine in engines:
        run.out.print(f"The index of {engine}, which is not configured, was removed.")
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


def _tokens(lengths: str) -> list[int]:
    from pipeline.errors import InvalidRequestError

    parts = [part.strip() for part in lengths.split(",")]
    for part in parts:
        if not part.removeprefix("-").isdecimal():
            raise InvalidRequestError(
                f"--lengths is {lengths!r}, and {part!r} is no whole number.",
                remedy=f"Write numbers of tokens with commas, such as {_LENGTHS}.",
            )
    return [int(part) for part in parts]


def _told(key: VersionKey) -> str:
    return f"{key.document_id} (version {key.version})"
