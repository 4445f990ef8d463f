"""What every benchmark prints first, and intervals for what it counts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.machine import processor


def heading(workload: str) -> None:
    """Machine, commit and workload."""
    root = Path(__file__).parent.parent
    commit = _output(["git", "-C", str(root), "describe", "--always", "--dirty"])
    versions = ", ".join(_version(package) for package in ("torch", "transformers", "qdrant-edge-py"))
    print(
        f"machine   {processor()}, {os.cpu_count()} cores, {platform.system()}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"versions  Python {platform.python_version()}, {versions}; commit {commit}")
    print(f"workload  {workload}", flush=True)


def interval(values: Sequence[float], *, seed: int = 0, draws: int = 2_000) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval (percentile method, Efron 1979)."""
    sample = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(sample), (draws, len(sample)))
    low, high = np.percentile(sample[picks].mean(1), [2.5, 97.5])
    return float(sample.mean()), float(low), float(high)


def shown(values: Sequence[float]) -> str:
    """Mean, interval and n, for a table."""
    mean, low, high = interval(values)
    return f"{mean:.4f} [{low:.4f}, {high:.4f}] n={len(values)}"


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
