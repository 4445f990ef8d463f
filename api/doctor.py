"""What this installation has, lacks and should know: one check after the other, none of them fatal."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from api.build import Longleaf
from api.sections import PACKAGES, Settings
from api.stored import has_data
from api.version import VERSION
from pipeline import plugins
from pipeline.errors import LongleafError, ModelNotConvertedError

GIB = 1024**3
LITTLE_DISK_BYTES = 2 * GIB
LITTLE_MEMORY_BYTES = 2 * GIB

State = Literal["ok", "note", "missing"]

_LIBRARIES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "qdrant-edge-py",
    "sqlalchemy",
    "pypdfium2",
    "fastapi",
    "uvicorn",
)
# What the arithmetic of the models gains from, in the words of /proc/cpuinfo.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. ``missing`` means that something asked for cannot work; ``note`` that it can."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(longleaf: Longleaf) -> Iterator[Check]:
    """Every check, in the order a person would ask."""
    settings = longleaf.settings
    yield Check("longleaf", "ok", f"{VERSION} on Python {platform.python_version()}, {platform.platform()}")
    yield from _libraries()
    yield _processor()
    yield _memory()
    yield _disk(settings.data)
    yield _guarded("embedder", lambda: _embedder(settings))
    yield _guarded("language model", lambda: _language_model(settings))
    yield _guarded("ledger", lambda: _ledger(longleaf))
    yield _guarded("index", lambda: _index(longleaf))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except LongleafError as error:
        return Check(name, "missing", error.message, error.remedy)


def _libraries() -> Iterator[Check]:
    found, absent = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    found.append(f"sqlite {sqlite3.sqlite_version}")
    yield Check("libraries", "ok", ", ".join(found))
    if absent:
        yield Check("libraries", "missing", ", ".join(absent), "pip install --upgrade longleaf")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        features = ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "none of note"
    except OSError:
        features = "not known on this system"
    return Check("processor", "ok", f"{platform.machine()}, {cores} cores; vector features: {features}")


def _memory() -> Check:
    try:
        rows = dict(
            line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        )
        available = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Check("memory", "note", "not known on this system")
    detail = f"{available / GIB:.1f} GiB available"
    if available < LITTLE_MEMORY_BYTES:
        return Check("memory", "note", detail, "Ingestion with the default models takes about 1.5 GB.")
    return Check("memory", "ok", detail)


def _disk(data: Path) -> Check:
    place = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK):
        return Check("disk", "missing", f"{place} cannot be written.", "Choose another folder with --data.")
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free for {data.absolute()}"
    if free < LITTLE_DISK_BYTES:
        return Check("disk", "note", detail, "Free some space, or choose another folder with --data.")
    return Check("disk", "ok", detail)


def _embedder(settings: Settings) -> Check:
    choice = settings.embedder
    options = settings.plugin_options("embedder")
    config = plugins.configure(PACKAGES["embedder"], choice.name, **options)
    spec, url = getattr(config, "model", None), getattr(config, "url", None)
    if url is not None:
        return Check("embedder", "ok", f"{choice.name}: {spec or 'its model'} at {url} (not asked)")
    built = plugins.load(PACKAGES["embedder"], choice.name, **options)
    detail = choice.name
    if isinstance(spec, str):
        from pipeline.models import locate

        found = locate(spec, cache=settings.models.cache)
        detail += f": {spec} at {found.path}, SHA-256 {found.revision}"
    else:
        detail += f" of {config.inner}" if hasattr(config, "inner") else " (no model)"
    warning = getattr(built, "warning", "")
    return Check("embedder", "note" if warning else "ok", f"{detail}. {warning}" if warning else detail)


def _language_model(settings: Settings) -> Check:
    chosen = settings.language_model
    if chosen.spec == "none":
        return Check("language model", "note", "none configured: answers are quotations only")
    if chosen.url is not None:
        return Check("language model", "ok", f"{chosen.spec} at {chosen.url}, not asked now")
    from pipeline import device
    from pipeline.lm import loading
    from pipeline.models import locate

    device.check(chosen.device)  # first, because it matters before the model has been converted, too
    try:
        found = locate(chosen.spec, cache=settings.models.cache)
    except ModelNotConvertedError as error:
        return Check("language model", "note", error.message, error.remedy)
    loading.check(found.path, found.name, chosen.positions, chosen.window_tokens)
    return Check("language model", "ok", f"{chosen.spec} at {found.path}, SHA-256 {found.revision}")


def _ledger(longleaf: Longleaf) -> Check:
    if not has_data(longleaf.settings):
        return Check("ledger", "note", "nothing stored yet", "longleaf ingest FILE")
    names = [record.name for record in longleaf.ledger.collections("default")]
    return Check("ledger", "ok", f"{len(names)} collections: {', '.join(names) or 'none'}")


def _index(longleaf: Longleaf) -> Check:
    if not has_data(longleaf.settings):
        return Check("index", "note", f"{longleaf.settings.indexer.name}: nothing stored yet")
    indexer = longleaf.indexer
    sizes = [f"{name}: {indexer.count(name):,}" for name in indexer.names()]
    problems = [f"{name}: {told}" for name in indexer.names() for told in indexer.problems(name)]
    problems += [
        f"{engine}: not configured, and not kept up to date." for engine in longleaf.settings.other_indexes()
    ]
    if problems:
        return Check("index", "note", " ".join(problems), "longleaf repair")
    return Check("index", "ok", f"{longleaf.settings.indexer.name}: {'; '.join(sizes) or 'empty'} points")
