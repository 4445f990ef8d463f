"""The reference of all settings, made from the code: ``python -m api.reference > docs/configuration.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from api.environment import variable
from api.meanings import meanings
from api.sections import PACKAGES, Settings
from api.settings import entries, settings_table, with_plugins
from pipeline import plugins

_HEAD = """# Configuration

One settings object is gathered at start and never changed: the defaults below, over them `longleaf.toml`
(in the working directory, or named by `--config` or `LONGLEAF_CONFIG`), over that the environment, over
that the command line (`--data`, `--set section.key=value` and each command's own options). A name that is
not in these tables is an error that says which one is nearest. `longleaf doctor --settings` shows the
values in force.

```toml
data = "/var/lib/longleaf"

[chunking]
passage_tokens = 256

[server]
port = 9000
```

In a variable a list or an object is written as JSON, and `null` stands for no value; an empty variable
counts as unset. Everything stored lives under the folder `data`, but for the ledger when `ledger.url` names
a PostgreSQL database (`LONGLEAF_DATABASE_URL` is taken too; where both are set they must agree).

Some variables that begin like settings are none and are passed over: those of `.env.example` and of the
examples, and what Kubernetes says of a Service named `longleaf` (`LONGLEAF_SERVICE_HOST` and others).

A plugin's name without a dot is one of those below; `package.module` is one of your own
([plugins.md](plugins.md)).

This page is made by `python -m api.reference`; a test keeps it in step with the code.
"""


def configuration_reference() -> str:
    """The whole page."""
    sections: dict[str, list[str]] = {}
    for key, name, default, meaning in settings_table():
        sections.setdefault(key.partition(".")[0], []).append(_row(key, name, default, meaning))
    parts = [_HEAD]
    about = meanings(Settings)
    for section, rows in sections.items():
        parts.append("\n".join([f"## {section}", "", about[section], "", *_HEADER, *rows, ""]))
        if section in PACKAGES:
            parts += _other_plugins(section)
    return "\n".join(parts)


_HEADER = ("| setting | variable | default | meaning |", "|---|---|---|---|")


def _other_plugins(section: str) -> Iterator[str]:
    """The options of each plugin that could be chosen instead."""
    chosen = Settings.model_fields[section].default.name
    for name in plugins.names(PACKAGES[section]):
        if name == chosen:
            continue
        rows = [
            _row(key, variable(key), default, meanings(owner)[key.rpartition(".")[2]])
            for key, default, owner in entries(with_plugins({section: name}))
            if key.startswith(f"{section}.") and owner is not Settings
        ]
        options = [*_HEADER, *rows] if rows else ["It has no options."]
        yield "\n".join([f'With `{section}.name = "{name}"`:', "", *options, ""])


def _row(key: str, name: str, default: object, meaning: str) -> str:
    escaped = meaning.replace("``", "`").replace("|", "\\|")
    return f"| `{key}` | `{name}` | `{_default(default)}` | {escaped} |"


def _default(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        value = dict(value)
    if isinstance(value, tuple | frozenset):
        value = sorted(value) if isinstance(value, frozenset) else list(value)
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(configuration_reference())
