"""What this machine is, in words."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model."""
    return _told("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """Who made it, as x86 processors tell it (``AuthenticAMD``); nothing where none is told."""
    return _told("vendor_id")


def _told(key: str) -> str:
    """What the system tells of its first processor under this name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
