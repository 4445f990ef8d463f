"""What this machine is, in words."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
