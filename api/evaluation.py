"""Open a Longleaf for each set to be evaluated, and let :mod:`pipeline.evaluation` measure it.

What was ingested for a set is kept under ``data/evaluation``, keyed by the set's content and by every
setting that decides what is in an index, so that a second run (or one that was interrupted) goes on from
there, and settings of the search are tried without ingesting again. What an embedder learns of documents
(:mod:`embedders._fitted`) is kept there, too, and learnt of the set's own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.build import open_longleaf
from api.plain import plain
from api.sections import PACKAGES, PluginChoice
from pipeline import measure, plugins
from pipeline.errors import ConfigurationError, InvalidRequestError, LongleafError
from pipeline.evaluation.ablate import Ablated, Switch, ablated
from pipeline.evaluation.answers import Likelihood
from pipeline.evaluation.report import Report, SetReport, summary
from pipeline.evaluation.runner import Ingested, Plan, Progress, ask, ingest, warm_up
from pipeline.machine import processor

if TYPE_CHECKING:
    from api.build import Longleaf
    from api.sections import Settings
    from pipeline.evaluation.dataset import EvaluationSet
    from pipeline.types import Fingerprint

COLLECTION = "evaluation"
_INGESTION_FILE = "ingestion.json"
_PLACES = ("data", "indexer.path", "embedder.cache", "embedder.statistics")
_VERSIONED = ("longleaf", "torch", "qdrant-edge-py", "ir-measures")


def evaluate(
    settings: Settings, sets: Sequence[EvaluationSet], plan: Plan, *, seed: int, progress: Progress
) -> Report:
    """Ingest and ask each set in turn. The same data, settings and seed give the same quality numbers.

    Raises, before any work, InvalidRequestError where the settings allow no search as deep as the plan's, and
    MissingDependencyError without ir-measures.
    """
    if plan.depth > settings.retrieval.max_top_k:
        raise InvalidRequestError(
            f"Rankings are made of {plan.depth} passages, and retrieval.max_top_k is "
            f"{settings.retrieval.max_top_k}.",
            remedy=f"Add --set retrieval.max_top_k={plan.depth}.",
        )
    measure.rankings({}, {}, plan.cutoffs)
    reports = [
        evaluate_set(settings, each, plan, seed=seed, progress=_named(progress, each.name)) for each in sets
    ]
    return Report(about(settings, plan, seed), reports)


def evaluate_set(
    settings: Settings, given: EvaluationSet, plan: Plan, *, seed: int, progress: Progress
) -> SetReport:
    """One set in a data folder of its own."""
    with open_longleaf(_learning_in(None, settings)) as probe:
        folder = settings.data / "evaluation" / f"{given.name}-{_key(settings, probe, given)}"
    own = _learning_in(folder / "embedder", settings.model_copy(update={"data": folder}))
    with open_longleaf(own) as longleaf:
        ingested = ingest(given, longleaf.ingestor, COLLECTION, progress)
        ingested = _remembered(folder / _INGESTION_FILE, ingested)
    with open_longleaf(own) as longleaf:  # once more, so that a first run costs what a later one does
        warm_up(given, longleaf.retriever, COLLECTION, plan)
        asked = ask(
            given,
            longleaf.retriever,
            COLLECTION,
            plan,
            answerer=longleaf.answerer if plan.answers else None,
            likelihood=_likelihood(longleaf) if plan.answers else None,
            progress=progress,
        )
    size = _disk_bytes(folder)
    cost = {
        "bytes_on_disk": float(size),
        "bytes_per_token": size / max(ingested.tokens, 1),
        "peak_memory_bytes": float(_peak_bytes()),
    }
    return summary(given.name, ingested, asked, cost, seed=seed)


def _learning_in(folder: Path | None, settings: Settings) -> Settings:
    """An embedder that learns of documents keeps it in ``folder`` whatever the settings say, or nowhere."""
    chosen = settings.embedder
    if "statistics" not in settings.plugin_options("embedder"):
        return settings
    options = {**chosen.options, "statistics": folder and folder / chosen.name}
    learning = PluginChoice(name=chosen.name, **options)
    return settings.model_copy(update={"embedder": learning})


def _likelihood(longleaf: Longleaf) -> Likelihood | None:
    """None where no language model writes."""
    settings = longleaf.settings
    if settings.language_model.spec == "none" or settings.answer.mode == "extractive":
        return None
    return Likelihood(longleaf.language_model, settings.answer)


def applicable(settings: Settings, switches: Sequence[Switch]) -> tuple[list[Switch], dict[str, str]]:
    """The switches that these settings allow, and by name why the others do not apply."""
    kept, left_out = [], {}
    for switch in switches:
        try:
            changed = _changed(settings, switch.settings)
        except ConfigurationError as error:
            left_out[switch.name] = error.message
            continue
        if changed == settings:
            left_out[switch.name] = "It is what the settings say already."
        else:
            kept.append(switch)
    return kept, left_out


def ablation(
    settings: Settings,
    sets: Sequence[EvaluationSet],
    plan: Plan,
    defaults: Report,
    switches: Sequence[Switch],
    *,
    seed: int,
    progress: Progress,
) -> tuple[list[Ablated], dict[str, str]]:
    """Every switch over every set, against what the settings gave; and by name why others failed."""
    found, failed = [], {}
    for switch in switches:
        show = _named(progress, switch.name)
        try:
            report = evaluate(_changed(settings, switch.settings), sets, plan, seed=seed, progress=show)
        except LongleafError as error:
            failed[switch.name] = error.message
        else:
            found.append(ablated(switch, defaults, report, seed=seed))
    return found, failed


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with some values replaced, checked as if they had been given."""
    values: dict[str, Any] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        before = values.get(section, getattr(settings, section))
        if isinstance(before, PluginChoice):
            values[section] = PluginChoice(**{**before.model_dump(), name: value})
            plugins.configure(PACKAGES[section], before.name, **values[section].options)
        else:
            values[section] = replace(before, **{name: value})
    return settings.model_copy(update=values)


def about(settings: Settings, plan: Plan, seed: int) -> dict[str, Any]:
    """Machine, versions and settings, for whoever reads the numbers later."""
    from api.sections import Settings as Defaults
    from api.settings import entries

    defaults = {key: value for key, value, _ in entries(Defaults())}
    changed = {
        key: plain(value)
        for key, value, _ in entries(settings)
        if key not in _PLACES and defaults.get(key) != value
    }
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {"python": platform.python_version(), **_versions()},
        "seed": seed,
        "plan": plain(asdict(plan)),
        "settings": changed,
    }


def _key(settings: Settings, longleaf: Longleaf, given: EvaluationSet) -> str:
    """What decides the content of the index, as 12 hexadecimal digits."""
    content = hashlib.sha256()
    for document in given.documents:
        file = [str(document.file), document.file.stat().st_size] if document.file else []
        row = [document.id, document.title, document.text, document.language, *file]
        content.update(json.dumps(row, ensure_ascii=False).encode())
    parts = {
        "documents": content.hexdigest(),
        "embedder": str(_unnamed(longleaf.embedder.fingerprint, settings.embedder.name)),
        "indexer": settings.indexer.name,
        "indexer_options": {k: str(v) for k, v in settings.plugin_options("indexer").items() if k != "path"},
        "chunking": asdict(settings.chunking),
        "lexical": longleaf.analyser.parameters,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _unnamed(fingerprint: Fingerprint, embedder: str) -> Fingerprint:
    """Without the name that an embedder which learns drew (``whitened=<name>``): another every time."""
    drawn = f"{embedder}="
    kept = (embedder if option.startswith(drawn) else option for option in fingerprint.options)
    return replace(fingerprint, options=tuple(kept))


def _remembered(path: Path, ingested: Ingested) -> Ingested:
    """With the seconds that the first, uninterrupted ingestion took, also when nothing had to be done."""
    if ingested.seconds is not None:
        path.write_text(json.dumps({"seconds": ingested.seconds}), encoding="utf-8")
    elif path.exists():
        seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        return Ingested(**{**{f: getattr(ingested, f) for f in Ingested.__slots__}, "seconds": seconds})
    return ingested


def _named(progress: Progress, name: str) -> Progress:
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


def _disk_bytes(folder: Path) -> int:
    """What the files take on disk once everything has reached it."""
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                size += os.fstat(file.fileno()).st_blocks * 512
    return size


def _peak_bytes() -> int:
    """Most memory that this process had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> Mapping[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _commit() -> str:
    root = str(Path(__file__).parent.parent)
    command = ["git", "-C", root, "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
