"""Tiny random models, made once for the golden tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import write_model


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-pooled BERT with 544 positions."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """``write_model`` into a new folder."""
    return lambda *args, **options: write_model(tmp_path / "model", *args, **options)
