"""What is stored: ``longleaf documents`` and ``longleaf collections``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command, printable
from api.commands.options import Collection, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.records import DocumentRecord

_PAGE = 500  # documents asked of the ledger at a time


def register(app: typer.Typer) -> None:
    """Add the families to the command tree."""
    documents = typer.Typer(help="List, show and delete documents.", no_args_is_help=True)
    command(documents, "list", needs_data=True)(list_documents)
    command(documents, "show", needs_data=True)(show)
    command(documents, "delete", needs_data=True)(delete)
    app.add_typer(documents, name="documents")
    collections = typer.Typer(help="List and drop collections.", no_args_is_help=True)
    command(collections, "list", needs_data=True)(list_collections)
    command(collections, "drop", needs_data=True)(drop)
    app.add_typer(collections, name="collections")


def list_documents(run: Run, collection: Collection = "default", tenant: Tenant = "default") -> None:
    """List the documents of a collection.

    Example: longleaf documents list --collection contracts
    """
    from api.commands.tables import table
    from pipeline.records import tenant_option

    records = list(_all(run, tenant, collection))
    if run.json:
        run.emit({"documents": records})
        return
    if not records:
        place = "" if collection == "default" else f" -c {collection}"
        command_line = f"longleaf ingest FILE{place}{tenant_option(tenant)}"
        run.note(f"Collection {collection!r} has no documents. Add some with: {command_line}")
        return
    columns = ("id", "title", "version", "pages", "tokens", "passages", "updated")
    rows = [{name: getattr(record, name) for name in columns} for record in records]
    for row in rows:
        row["updated"] = f"{row['updated']:%Y-%m-%d %H:%M}"
    run.out.print(table(rows))


def show(
    run: Run,
    document_id: Annotated[str, typer.Argument(metavar="ID", help="As listed.")],
    *,
    collection: Collection = "default",
    tenant: Tenant = "default",
    text: Annotated[bool, typer.Option("--text", help="Print the document's text instead.")] = False,
    version: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="A version that was kept; else the live one.")
    ] = None,
) -> None:
    """Show what is known of a document, or its text.

    Example: longleaf documents show report.pdf --text
    """
    from api.plain import plain

    record = run.longleaf.ledger.document(tenant, collection, document_id, version)
    if text:
        document = run.longleaf.ledger.load(tenant, collection, document_id, record.version)
        if run.json:
            run.emit(document)
        else:
            run.out.out(printable(document.text), highlight=False)
        return
    if run.json:
        run.emit(record)
        return
    for name, value in plain(record).items():
        run.out.print(f"{name:>12}  {printable(str(value))}", soft_wrap=True)


def delete(
    run: Run,
    document_ids: Annotated[list[str], typer.Argument(metavar="ID", help="As listed.")],
    collection: Collection = "default",
    tenant: Tenant = "default",
) -> int | None:
    """Delete documents: their text, their original file and everything in the index.

    Example: longleaf documents delete report.pdf
    """
    from pipeline.errors import NotFoundError

    deleted, failed = [], []
    notes: list[str] = []
    for identity in document_ids:
        try:
            run.longleaf.ingestor.delete(tenant, collection, identity, notes.append)
            deleted.append(identity)
            run.note(f"Deleted {identity}.")
        except NotFoundError as error:
            failed.append(error)
            if not run.json:
                run.fail(error)
    if run.json:
        run.emit({"deleted": deleted, "notes": notes, "errors": failed})
    for note in notes:
        run.note(note, "yellow")
    return FAILED if failed else None


def list_collections(run: Run, tenant: Tenant = "default") -> None:
    """List the collections and what is in them.

    Example: longleaf collections list
    """
    from dataclasses import asdict

    from api.commands.tables import table

    ledger = run.longleaf.ledger
    rows = [
        {"name": record.name, **asdict(ledger.totals(tenant, record.name))}
        for record in ledger.collections(tenant)
    ]
    if run.json:
        run.emit({"collections": rows})
    elif rows:
        run.out.print(table(rows))
    else:
        run.note("No collection yet. The first ingestion makes one: longleaf ingest FILE")


def drop(
    run: Run,
    name: Annotated[str, typer.Argument(help="Which collection.")],
    tenant: Tenant = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a collection with all its documents.

    Example: longleaf collections drop contracts --yes
    """
    from pipeline.errors import InvalidRequestError

    run.longleaf.ledger.collection(tenant, name)
    if run.json and not yes:
        raise InvalidRequestError("Dropping a collection is not confirmed.", remedy="Add --yes.")
    if not yes and not _confirmed(f"Delete collection {name!r} with all its documents?"):
        hint = "" if sys.stdin and sys.stdin.isatty() else " Without a terminal, add --yes."
        run.note(f"Nothing was dropped.{hint}")
        return FAILED
    run.longleaf.ingestor.drop(tenant, name)
    if run.json:
        run.emit({"dropped": name})
    else:
        run.note(f"Dropped {name}.")
    return DONE


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except RuntimeError:  # standard input has ended (typer.Abort) or was closed
        return False


def _all(run: Run, tenant: str, collection: str) -> Iterator[DocumentRecord]:
    after = None
    while page := run.longleaf.ledger.documents(tenant, collection, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id
