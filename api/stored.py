"""Whether there is anything to look at, found out without beginning an installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.sections import Settings


def has_data(settings: Settings) -> bool:
    """Whether the data folder holds a ledger. One in a database of its own is there already."""
    from pipeline.backup import LEDGER

    return settings.ledger.url is not None or (settings.data / LEDGER).exists()
