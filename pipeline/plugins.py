"""Plugins by file name: ``indexers/exact.py`` is the plugin ``exact`` of the package ``indexers``. A name
with a dot, ``company.search``, is any other module that can be imported (docs/plugins.md).

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

from pipeline.errors import ConfigurationError, LongleafError, MissingDependencyError


def names(package: str) -> list[str]:
    """Names of every plugin of ``package``, sorted. Imports nothing but the package itself."""
    root = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_"))


def config_class(package: str, name: str) -> type[pydantic.BaseModel]:
    """The plugin's ``Config``. Raises ConfigurationError for a module that is not there, cannot be imported
    or is no plugin, and MissingDependencyError where a package that it imports is not installed."""
    kind: type[pydantic.BaseModel] = _module(package, name).Config
    return kind


def configure(package: str, name: str, **options: Any) -> pydantic.BaseModel:  # noqa: ANN401 - options are the plugin's own
    """The plugin's checked ``Config``. Raises what :func:`config_class` raises, and ConfigurationError for a
    wrong option, naming the nearest valid spelling."""
    config = config_class(package, name)
    known = list(config.model_fields)
    for key in options:
        if key not in known:
            raise ConfigurationError(
                f"{package} plugin {name!r} has no option {key!r}.", remedy=_nearest(key, known)
            )
    try:
        return config(**options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{package} plugin {name!r}: option {where!r} is {first.get('input')!r}: {first['msg']}.",
            remedy=f"Options are: {', '.join(known)}.",
        ) from error


def load(package: str, name: str, **options: Any) -> Any:  # noqa: ANN401 - the seam decides the type
    """Build a plugin from its options. Raises what :func:`configure` raises, and MissingDependencyError when
    a package that it needs is not installed."""
    config = configure(package, name, **options)
    try:
        return _module(package, name).build(config)
    except ImportError as error:
        raise _not_importable(package, name, error) from error


def _module(package: str, name: str) -> Any:  # noqa: ANN401 - a module with the names above
    path = name if "." in name and not name.startswith(".") else f"{package}.{name}"
    if path != name and name not in (known := names(package)):
        raise ConfigurationError(f"There is no {package} plugin {name!r}.", remedy=_nearest(name, known))
    try:
        module = importlib.import_module(path)
    except LongleafError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{path}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"There is no module {error.name!r} for the {package} plugin {name!r}.",
                remedy="Install it beside Longleaf, or name its folder in PYTHONPATH; see docs/plugins.md.",
            ) from error
        raise _not_importable(package, name, error) from error
    missing = [part for part in ("Config", "build") if not callable(getattr(module, part, None))]
    if missing:
        raise ConfigurationError(
            f"The module {path!r} is no {package} plugin: it has no {' and no '.join(missing)}.",
            remedy="See docs/plugins.md for what a plugin has.",
        )
    return module


def _not_importable(package: str, name: str, error: Exception) -> ConfigurationError:
    if isinstance(error, ModuleNotFoundError):
        return MissingDependencyError(
            f"{package} plugin {name!r} needs the package {error.name!r}, which is not installed.",
            remedy="Install it in the environment that Longleaf runs in.",
        )
    return ConfigurationError(
        f"{package} plugin {name!r} cannot be imported: {type(error).__name__}: {error}.",
        remedy="Mend the module, or what it imports.",
    )


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid names: {', '.join(known)}."
