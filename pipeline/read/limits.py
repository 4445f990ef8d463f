"""How much one file may cost. Every limit is enforced by :mod:`pipeline.read.sandbox`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipeline.errors import ConfigurationError

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on reading one file. The defaults fit a 100 MB scan with a text layer on a laptop."""

    input_bytes: int = 256 * MIB
    """Largest file; checked before anything is read."""
    output_chars: int = 40_000_000
    """Longest text that may come out of one file."""
    memory_bytes: int = 1024 * MIB
    """Address space that parsing may add to the reader process."""
    cpu_seconds: int = 120
    """Processor time of parsing."""
    wall_seconds: float = 300.0
    """Time until an answer."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a limit that is not positive."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ConfigurationError(
                    f"The reading limit {field.name} is {value}.", remedy="Give a number above 0."
                )
