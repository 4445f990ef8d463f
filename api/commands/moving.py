"""Moving collections: ``reindex``, ``export`` and ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.commands.frame import Run, command
from api.commands.intake import progress_bar
from api.commands.options import Tenant


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "reindex", needs_data=True)(reindex)
    command(app, "export", needs_data=True)(export)
    command(app, "import")(import_)


def reindex(
    run: Run,
    collection: Annotated[str, typer.Argument(help="Which collection.")] = "default",
    tenant: Tenant = "default",
) -> None:
    """Build a collection's index anew, as the settings now say, and switch to it in one step.

    Searches see the old one until then; an interrupted run goes on where it stopped. A document that is cut
    into other passages loses its cached states. Settings that a collection was made with as its own stay.

    Example: longleaf reindex contracts --set chunking.passage_tokens=192
    """
    from api import building
    from pipeline.reindex import reindex as build

    parts = run.longleaf
    total = parts.ledger.totals(tenant, collection).documents
    own = parts.ledger.collection(tenant, collection).settings.get("own", {})
    embedder, analyser, chunking = parts.benches.parts(own)
    with progress_bar(run, total) as show:
        done = build(
            parts.ledger,
            parts.indexer,
            embedder,
            analyser,
            chunking,
            caches=[parts.cached_states],
            tenant=tenant,
            collection=collection,
            progress=show,
        )
    if done.recut and building.at_ingestion(run.settings):
        run.note("Building cached states of changed passages; Ctrl-C leaves the rest to their first use.")
        parts.cached_states.drain()
    if run.json:
        run.emit(done)
    else:
        resumed = f" ({done.resumed} from an interrupted run)" if done.resumed else ""
        run.out.print(
            f"{collection}: {done.documents} documents{resumed}, {done.passages} passages, {done.units} units"
        )


def export(
    run: Run,
    collection: Annotated[str, typer.Argument(help="Which collection.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    tenant: Tenant = "default",
) -> None:
    """Write a collection with its documents and vectors to a folder of JSON lines and safetensors.

    Example: longleaf export contracts contracts-2024
    """
    from pipeline.moving import export_collection

    done = export_collection(
        run.longleaf.ledger, run.longleaf.indexer, folder, tenant=tenant, collection=collection
    )
    if run.json:
        run.emit(done)
    else:
        run.out.print(f"{folder}: {done.documents} documents, {done.points} points")


def import_(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="What export wrote.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Another name than it had.")
    ] = None,
    tenant: Tenant = "default",
) -> None:
    """Bring an exported collection into this installation and its index, without embedding anything.

    Example: longleaf import contracts-2024 --set indexer.name=qdrant
    """
    from pipeline.importing import import_collection

    done = import_collection(
        run.longleaf.ledger, run.longleaf.indexer, folder, tenant=tenant, collection=collection
    )
    if run.json:
        run.emit(done)
    else:
        there = f", {done.unchanged} of them there already" if done.unchanged else ""
        run.out.print(f"{done.collection}: {done.documents} documents{there}, {done.points} points")
