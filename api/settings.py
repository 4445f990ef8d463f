"""One frozen settings object, gathered once.

Lowest to highest: the defaults of each module's own configuration class, ``longleaf.toml``, the
environment (``LONGLEAF_SECTION__KEY``), the command line. A key that no section has is an error that
names the nearest valid one, and every error says which layer the value came from.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from api.environment import read_environment, variable
from api.meanings import field_names, meanings
from api.sections import PACKAGES, PluginChoice, Settings
from pipeline import plugins
from pipeline.errors import ConfigurationError

FILE_NAME = "longleaf.toml"

Tree = dict[str, Any]
Model = TypeVar("Model", bound=pydantic.BaseModel)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place. ``origin`` words a dotted key the way that place spells it."""

    values: Tree
    kind: str

    def origin(self, key: str) -> str:
        """What to call ``key`` in an error: an environment variable, a line of the file, a flag."""
        if self.kind == "environment":
            return variable(key)
        return f"{key} ({self.kind})"


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Gather every layer. ``flags`` are dotted keys from the command line; None means not given.

    Raises ConfigurationError for an unreadable file, an unknown key or variable, or a wrong value.
    """
    variables, named = read_environment()
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    layers = [
        _read_file(config or (Path(named) if named else None)),
        Layer(_nest(variables, "environment"), "environment"),
        Layer(_nest(given, "command line"), "command line"),
    ]
    return assemble(layers)


def assemble(layers: list[Layer]) -> Settings:
    """Later layers win, key by key. The options of a plugin that a later layer replaces are dropped,
    because they belong to the plugin that was chosen before."""
    merged: Tree = {}
    origins: dict[str, Layer] = {}
    for layer in layers:
        for section, value in layer.values.items():
            if not isinstance(value, dict):
                merged[section] = value
                origins[section] = layer
                continue
            below = merged.get(section)
            below = below if isinstance(below, dict) else {}
            if section in PACKAGES:
                before = below.get("name", Settings.model_fields[section].default.name)
                below = {"name": before, **below}
                if value.get("name", before) != before:
                    origins = {key: o for key, o in origins.items() if not key.startswith(f"{section}.")}
                    below = {}
            merged[section] = {**below, **value}
            origins.update({f"{section}.{key}": layer for key in value})
    for section in PACKAGES:
        _check_name(section, merged, origins)
    _reject_unknown(merged, origins)
    settings = _made(Settings, merged, merged, origins)
    for section, package in PACKAGES.items():
        choice: PluginChoice = getattr(settings, section)
        _made(plugins.config_class(package, choice.name), choice.options, merged, origins, section)
    return settings


def entries(settings: Settings) -> Iterator[tuple[str, Any, type[Any]]]:
    """Every dotted key with its value and the class it is a field of, sections in order; for a plugin
    section the options of the plugin that is chosen."""
    for section in Settings.model_fields:
        value = getattr(settings, section)
        if isinstance(value, PluginChoice):
            yield f"{section}.name", value.name, Settings
            value = plugins.configure(PACKAGES[section], value.name, **settings.plugin_options(section))
        elif not field_names(type(value)):
            yield section, value, Settings
        for name in field_names(type(value)):
            yield f"{section}.{name}", getattr(value, name), type(value)


def with_plugins(names: Mapping[str, str]) -> Settings:
    """The defaults with these plugins instead, by section."""
    default = Settings()
    other = {s: PluginChoice(name=n) for s, n in names.items() if getattr(default, s).name != n}
    return default.model_copy(update=other)


def settings_table() -> list[tuple[str, str, Any, str]]:
    """Key, environment variable, default and meaning of every setting, for people."""
    rows = []
    for key, default, owner in entries(Settings()):
        field = key.partition(".")[0] if owner is Settings else key.rpartition(".")[2]
        rows.append((key, variable(key), default, meanings(owner)[field]))
    return rows


def _read_file(path: Path | None) -> Layer:
    wanted = path is not None
    path = path or Path(FILE_NAME)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin with a BOM
    except FileNotFoundError:
        if wanted:
            raise ConfigurationError(
                f"There is no configuration file {str(path)!r}.", remedy="Check --config or LONGLEAF_CONFIG."
            ) from None
        return Layer({}, FILE_NAME)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"The configuration file {str(path)!r} cannot be read: {error}.",
            remedy="It must be valid TOML; see docs/configuration.md.",
        ) from error
    return Layer(values, path.name)


def _nest(flat: Mapping[str, Any], kind: str) -> Tree:
    tree: Tree = {}
    for key, value in flat.items():
        section, _, rest = key.partition(".")
        parsed = _parse(value)
        if not rest:
            tree[section] = parsed
        elif isinstance(tree.setdefault(section, {}), dict):
            tree[section][rest] = parsed
        else:
            raise ConfigurationError(
                f"{Layer({}, kind).origin(key)} sets part of {section!r}, which is set as a whole too.",
                remedy="Set one or the other.",
            )
    return tree


def _parse(value: Any) -> Any:  # noqa: ANN401 - whatever TOML could say
    """Text of a variable as TOML would give it, where only JSON can say it: lists, tables and null."""
    if isinstance(value, str) and (value[:1] in "[{" or value == "null"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _reject_unknown(merged: Tree, origins: Mapping[str, Layer]) -> None:
    names = {s: v["name"] for s, v in merged.items() if s in PACKAGES and isinstance(v, dict) and "name" in v}
    known = [key for key, _, _ in entries(with_plugins(names))]
    sections = {key.partition(".")[0] for key in known}
    for key, layer in origins.items():
        if key in known or (key in sections and not isinstance(merged.get(key), dict)):
            continue
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        nearest = f"Did you mean {layer.origin(close[0])}? " if close else ""
        raise ConfigurationError(
            f"There is no setting {layer.origin(key)}.",
            remedy=f"{nearest}`longleaf doctor --settings` lists all of them.",
        )


def _check_name(section: str, merged: Tree, origins: Mapping[str, Layer]) -> None:
    """Whether there is the plugin that was chosen. Its name says which options there are."""
    chosen, key = merged.get(section), f"{section}.name"
    if not isinstance(chosen, dict):
        return
    name = _made(PluginChoice, {"name": chosen["name"]}, merged, origins, section).name
    try:
        plugins.config_class(PACKAGES[section], name)
    except ConfigurationError as error:
        where = f"{origins[key].origin(key)}: " if key in origins else ""
        raise type(error)(f"{where}{error.message}", remedy=error.remedy) from error


def _made(
    kind: type[Model], values: Tree, merged: Tree, origins: Mapping[str, Layer], section: str = ""
) -> Model:
    """Values of everything, or of one section, checked. Raises ConfigurationError."""
    try:
        return kind(**values)
    except pydantic.ValidationError as error:
        raise _explain(error, merged, origins, [section] if section else []) from error


def _explain(
    error: pydantic.ValidationError, merged: Tree, origins: Mapping[str, Layer], within: list[str]
) -> ConfigurationError:
    first = error.errors(include_url=False)[0]
    path = [*within, *first["loc"]]
    length = next((n for n in (2, 1) if ".".join(map(str, path[:n])) in origins), len(path))
    key = ".".join(map(str, path[:length]))
    where = origins[key].origin(key) if key in origins else key
    inside = ".".join(_steps(merged, path)[length:])
    whole = isinstance(first["input"], Mapping)  # a missing key's surroundings, which may hold secrets
    given = "" if whole else f" is {first['input']!r}"
    return ConfigurationError(
        f"{where}{f', at {inside},' if inside else ''}{given}: {first['msg']}.",
        remedy="See docs/configuration.md for its meaning.",
    )


def _steps(values: Any, path: Sequence[int | str]) -> list[str]:  # noqa: ANN401 - whatever TOML can say
    """The part of a path that the values have: pydantic's go on with the kinds of a union."""
    steps = []
    for step in path:
        if not (step in values if isinstance(values, Mapping) else isinstance(values, list)):
            break
        values = values[step]
        steps.append(str(step))
    return steps
