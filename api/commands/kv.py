"""``longleaf kv``: the cached attention states of passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.frame import DONE, FAILED, Run, command
from api.commands.options import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.lm.kv_disk import DiskTier
    from pipeline.records import VersionKey

_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    family = typer.Typer(
        help="Cached states of passages: what is kept, and keep it well.", no_args_is_help=True
    )
    command(family, "stats", needs_data=True)(stats)
    command(family, "warm", needs_data=True)(warm)
    command(family, "verify", needs_data=True)(verify)
    command(family, "prune", needs_data=True)(prune)
    app.add_typer(family, name="kv")


def stats(
    run: Run,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load the model and time the reading of a passage.")
    ] = False,
) -> None:
    """Show what is kept and what keeping costs: bytes and, measured, seconds for 1,000 tokens.

    Example: longleaf kv stats --measure
    """
    settings = run.settings.contexts
    tier = _disk(run)
    told: dict[str, Any] = {"mode": settings.mode, "build": settings.build, "format": settings.format}
    told |= {"files": len(tier), "bytes": tier.bytes, "budget_bytes": tier.budget_bytes}
    tier.close()
    if measure:
        contexts = run.longleaf.contexts
        told |= contexts.measured_cost()
    if run.json:
        run.emit(told)
        return
    run.out.print(f"mode {settings.mode}, built at {settings.build}, stored as {settings.format}")
    used, budget = told["bytes"] / _MIB, told["budget_bytes"] / _MIB
    run.out.print(f"{told['files']:,} passages, {used:,.1f} of {budget:,.0f} MiB on disk")
    if measure:
        run.out.print(
            f"1,000 tokens take {told['bytes_per_1000_tokens'] / _MIB:,.1f} MiB "
            f"and {told['seconds_per_1000_tokens']:.2f} s to build"
        )
    else:
        run.note("What keeping costs, in bytes and seconds: longleaf kv stats --measure")


def warm(
    run: Run,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Which collection.")] = "default",
    document_id: Annotated[str | None, typer.Option("--document", help="Only this document.")] = None,
    tenant: Tenant = "default",
) -> int:
    """Build the states of every passage that has none.

    Example: longleaf kv warm -c contracts
    """
    from pipeline.cached_states import build_states

    longleaf = run.longleaf
    contexts = longleaf.contexts
    counts = {"memory": 0, "disk": 0, "built": 0}
    tokens, seconds = 0, 0.0
    for key in _versions(run, tenant, collection, document_id):
        for built in build_states(contexts, longleaf.ledger, longleaf.indexer, key):
            counts[built.found] += 1
            if built.found == "built":
                tokens, seconds = tokens + built.tokens, seconds + built.seconds
        run.note(f"{key.document_id}: done")
    contexts.store.flush()
    unwritten = contexts.store.counts.unwritten
    told = {**counts, "built_tokens": tokens, "seconds": round(seconds, 3), "unwritten": unwritten}
    if run.json:
        run.emit(told)
    else:
        run.out.print(
            f"{counts['built']:,} passages built ({tokens:,} tokens in {seconds:.1f} s), "
            f"{counts['disk'] + counts['memory']:,} were there"
        )
    if unwritten:
        run.note(
            f"{unwritten} could not be written to disk: see contexts.disk_bytes and free space", "yellow"
        )
    return FAILED if unwritten else DONE


def verify(
    run: Run,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read manifests only, and load no model to compare with.")
    ] = False,
) -> int:
    """Check every file of cached states, and change nothing.

    Stale ones are of another model, prefix or format and are never used; orphans have no document any more.

    Example: longleaf kv verify
    """
    counts, bad = _checked(run, quick=quick)
    if run.json:
        run.emit({**counts, "files": [{"path": c.path, "state": c.state, "why": c.why} for c in bad]})
    else:
        run.out.print(", ".join(f"{count:,} {state}" for state, count in counts.items()))
        for each in bad:
            run.out.print(f"   {each.path}: {each.state}: {each.why}", soft_wrap=True)
        if bad:
            run.note("Remove them with: longleaf kv prune", "yellow")
    return FAILED if counts["damaged"] else DONE


def prune(
    run: Run,
    to: Annotated[int | None, typer.Option(min=0, help="Keep at most so many bytes.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read manifests only, and load no model to compare with.")
    ] = False,
) -> None:
    """Remove what is damaged, stale or without a document, then the least useful beyond the budget.

    Example: longleaf kv prune --to 1000000000
    """
    _, bad = _checked(run, quick=quick)
    tier = _disk(run)
    for each in bad:
        tier.discard(each)
    files, size = tier.prune(tier.budget_bytes if to is None else to)
    tier.close()
    removed = {"files": files + len(bad), "bytes": size + sum(each.bytes for each in bad)}
    if run.json:
        run.emit(removed)
    else:
        run.out.print(f"{removed['files']:,} files removed, {removed['bytes'] / _MIB:,.1f} MiB")


def _disk(run: Run) -> DiskTier:
    from pipeline.lm.kv_disk import DiskTier
    from pipeline.lm.kv_identity import TenantKeys

    folder = run.settings.data / "kv"
    return DiskTier(folder, TenantKeys.in_folder(folder), run.settings.contexts.disk_bytes)


def _checked(run: Run, *, quick: bool) -> tuple[dict[str, int], list[Any]]:
    tier = _disk(run)
    compares = not quick and run.settings.language_model.spec != "none"
    origin = run.longleaf.contexts.origin if compares and len(tier) else None
    counts = {"ok": 0, "stale": 0, "orphan": 0, "damaged": 0}
    bad = []
    for each in tier.check(_versions(run, None, None, None), origin, data=not quick):
        counts[each.state] += 1
        if each.state != "ok":
            bad.append(each)
    tier.close()
    return counts, bad


def _versions(
    run: Run, tenant: str | None, collection: str | None, document_id: str | None
) -> Iterator[VersionKey]:
    """Live versions of documents: of one collection, or without a tenant of all."""
    from pipeline.records import VersionKey

    ledger = run.longleaf.ledger
    if tenant is not None and collection is not None and document_id is not None:
        record = ledger.document(tenant, collection, document_id)
        yield VersionKey(record.tenant, record.collection, record.id, record.version)
        return
    if tenant is not None and collection is not None:
        places = [(tenant, collection)]
    else:
        places = [(record.tenant, record.name) for record in ledger.collections()]
    for owner, name in places:
        after: str | None = None
        while page := ledger.documents(owner, name, after=after, limit=500):
            for record in page:
                yield VersionKey(owner, name, record.id, record.version)
            after = page[-1].id
