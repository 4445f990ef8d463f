"""The environment's share of the settings: which ``LONGLEAF_*`` variables are settings, and what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from pipeline.errors import ConfigurationError

PREFIX = "LONGLEAF_"

# Variables that are no settings, and who reads them: a shell may well have them while a command runs.
RESERVED: Mapping[str, str] = {
    "LONGLEAF_CONFIG": "which file of settings to read",
    "LONGLEAF_DEV_DATA": "where tests find development data",
    "LONGLEAF_RELIABILITY": "how much tests try",
    "LONGLEAF_TEST_QDRANT_URL": "a Qdrant server for tests",
    "LONGLEAF_GENERATED_REQUESTS": "how many requests tests make up",
    "LONGLEAF_BIND": "docker-compose.yml: address of published ports",
    "LONGLEAF_PORT": "docker-compose.yml: published port; Kubernetes: address of a Service named longleaf",
    "LONGLEAF_PORTS": "docker-compose.yml: published ports of replicas",
    "LONGLEAF_METRICS_KEY": "docker-compose.yml: Prometheus' key",
    "LONGLEAF_URL": "examples: where the service is",
    "LONGLEAF_KEY": "examples: the key to ask it with",
}
# What Kubernetes tells every container of each Service, here those named longleaf or longleaf-something:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_A_SERVICE = re.compile(
    r"LONGLEAF_([A-Z0-9]+_)*"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://")  # the value of its variable that ends in _PORT
_ALIASES = {"LONGLEAF_DATABASE_URL": "ledger.url"}  # by the name that hosting services give it


def read_environment() -> tuple[dict[str, str], str | None]:
    """The only place that reads ``LONGLEAF_*``: dotted keys with their text, and the file named by
    ``LONGLEAF_CONFIG``. Empty variables count as unset, as compose files write them.

    Raises ConfigurationError where two variables set the same key to different values.
    """
    values: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.startswith(PREFIX) or not value or _is_reserved(name, value):
            continue
        key = _ALIASES.get(name) or name.removeprefix(PREFIX).lower().replace("__", ".")
        if values.setdefault(key, value) != value:
            raise ConfigurationError(
                f"{names[key]} and {name} both set {key}, to different values.", remedy="Unset one of them."
            )
        names[key] = name
    return values, os.environ.get("LONGLEAF_CONFIG") or None


def variable(key: str) -> str:
    """The environment variable of a dotted key: ``server.port`` is ``LONGLEAF_SERVER__PORT``."""
    return PREFIX + key.upper().replace(".", "__")


def _is_reserved(name: str, value: str) -> bool:
    if name in RESERVED or _OF_A_SERVICE.fullmatch(name):
        return True
    return name.endswith("_PORT") and _ADDRESS_OF_A_SERVICE.match(value) is not None
