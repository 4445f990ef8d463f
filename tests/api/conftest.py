"""Clients of a small installation; see ``small_library``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_library import client_of, fill, small_settings
from starlette.testclient import TestClient

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
