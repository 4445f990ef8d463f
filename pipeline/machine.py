"""What this machine is, in words."""

from __future__ import annotations

import platform
from pathlib import Path

_TOLD = Path("/proc/cpuinfo")


def processor() -> str:
    """The processor's model."""
    return _first_processor("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """Who made it, as x86 processors tell it (``AuthenticAMD``); nothing where none is told."""
    return _first_processor("vendor_id")


def _first_processor(key: str) -> str:
    """What Linux tells of its first processor under this name; nothing where it tells nothing."""
    text = _TOLD.read_text(encoding="utf-8", errors="replace") if _TOLD.exists() else ""
    told = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in told if name.strip() == key), "")
