"""Fixtures shared by every test: offline, few threads, and a private data directory."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator

import audit_hook
import pytest
from postgres import Cluster, cluster
from tallies import lines

audit_hook.listen()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what it starts in the background; processes of tests would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for all tests of the session."""
    yield from cluster()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a promise that was tried."""
    for line in lines():
        terminalreporter.write_line(line)
