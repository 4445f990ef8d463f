"""The version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("longleaf")
except PackageNotFoundError:  # run from a checkout that was never installed
    VERSION = "0+unknown"
