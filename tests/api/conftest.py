"""Clients of a small installation; see ``small_library``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_library import SMALL, client_of, fill, small_settings
from starlette.testclient import TestClient

from api.cli import main
from api.sections import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of an empty installation in single-user mode."""
    with client_of(settings) as client:
        yield client


@pytest.fixture
def library(client: TestClient) -> TestClient:
    """The client after uploading three documents into the collection ``books``."""
    fill(client)
    return client


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The same as ``library``, shared by tests that change nothing."""
    with client_of(small_settings(tmp_path_factory.mktemp("shelf"))) as client:
        fill(client)
        yield client


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on an installation of its own: exit code, and what it printed as JSON."""

    def call(*arguments: str | Path) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), "--data", str(tmp_path / "data"), "--json", *SMALL])
        return int(stopped.value.code or 0), json.loads(capsys.readouterr().out)

    return call
