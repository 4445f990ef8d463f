"""``longleaf ingest --dry-run``: what would become of each source. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from api.commands.frame import DONE, FAILED, Run
from api.commands.intake import Shelf, tell_failures
from api.stored import has_data
from pipeline import outlook

if TYPE_CHECKING:
    from api.sources import LeftOut
    from pipeline.read import Limits
    from pipeline.records import DocumentRecord
    from pipeline.sources import Source


def foresee(
    run: Run, sources: Sequence[Source], shelf: Shelf, left_out: Sequence[LeftOut], limits: Limits
) -> int:
    """Tell it, and give the exit code that ingesting would give as far as can be seen."""
    stored = has_data(run.settings)

    def find(document_id: str) -> DocumentRecord | None:
        if not stored:
            return None
        return run.longleaf.ledger.find(shelf.tenant, shelf.collection, document_id)

    seen = [outlook.foresee(source, find, shelf.on_conflict, limits) for source in sources]
    counts = Counter(each.status for each in seen)
    if run.json:
        run.emit({"dry_run": True, "documents": seen, "totals": counts, "left_out": left_out})
        return FAILED if counts["failed"] else DONE
    from api.commands.tables import table

    columns = ("document_id", "status", "bytes", "format")
    if good := [each for each in seen if each.status != "failed"]:
        run.out.print(table([{name: getattr(each, name) for name in columns} for each in good]))
    tell_failures(run, seen)
    for item in left_out:
        run.note(f"left out: {item.path}: {item.reason}")
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    run.note(f"Would be: {told}. Nothing was written.")
    return FAILED if counts["failed"] else DONE
