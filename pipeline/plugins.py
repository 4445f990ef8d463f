"""Plugins by file name: ``indexers/exact.py`` is the plugin ``exact`` of the package ``indexers``.

A plugin module defines ``Config`` (a frozen pydantic model that forbids unknown keys), ``build(config)``,
and ``TINY`` (a ``Config`` with which the conformance suite can run it offline). Its optional
dependencies are imported inside ``build``, so a missing one hurts only those who select it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

import pydantic

from pipeline.errors import ConfigurationError, MissingDependencyError


def names(package: str) -> list[str]:
    """Names of every plugin of ``package``, sorted. Imports nothing but the package itself."""
    root = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_"))


def configure(package: str, name: str, **options: Any) -> pydantic.BaseModel:  # noqa: ANN401 - options are the plugin's own
    """The plugin's checked ``Config``. Raises ConfigurationError naming the nearest valid spelling."""
    config: pydantic.BaseModel = _module(package, name).Config
    known = list(config.model_fields)
    for key in options:
        if key not in known:
            raise ConfigurationError(
                f"{package} plugin {name!r} has no option {key!r}.", remedy=_nearest(key, known)
            )
    try:
        return config(**options)  # type: ignore[operator, no-any-return]
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{package} plugin {name!r}: option {where!r} is {first.get('input')!r}: {first['msg']}.",
            remedy=f"Options are: {', '.join(known)}.",
        ) from error


def load(package: str, name: str, **options: Any) -> Any:  # noqa: ANN401 - the seam decides the type
    """Build a plugin from its options.

    Raises ConfigurationError for an unknown plugin or option, and MissingDependencyError when a
    package it needs is not installed.
    """
    config = configure(package, name, **options)
    try:
        return _module(package, name).build(config)
    except ImportError as error:
        extra = name.replace("_", "-")
        raise MissingDependencyError(
            f"{package} plugin {name!r} needs the package {error.name!r}, which is not installed.",
            remedy=f"Install it with: pip install 'longleaf[{extra}]'.",
        ) from error


def _module(package: str, name: str) -> Any:  # noqa: ANN401 - a module with the three names above
    known = names(package)
    if name not in known:
        raise ConfigurationError(f"There is no {package} plugin {name!r}.", remedy=_nearest(name, known))
    return importlib.import_module(f"{package}.{name}")


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid names: {', '.join(known)}."
