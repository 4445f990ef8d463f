"""A PostgreSQL of the tests' own: a temporary cluster on a Unix socket, fresh tables for each test."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

BINARIES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


class Cluster:
    """A running server. ``database()`` makes an empty database and gives its URL."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "--pgdata", folder / "data", "--auth", "trust", "--encoding", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder}"
        self._run(
            "pg_ctl", "start", "--wait", "--pgdata", self._folder / "data", "--log", self._folder / "log",
            "--options", options,
        )  # fmt: skip

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", self._folder / "data")

    def database(self) -> str:
        """URL of an empty database, in truth an empty schema of one: a database has a thousand files."""
        name = f"test_{uuid.uuid4().hex}"
        self._run("psql", "--quiet", "--host", self._folder, "--command", f"CREATE SCHEMA {name}", "postgres")
        return f"postgresql://{self._user}@/postgres?host={self._folder}&options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                f"--reuid={self._user}",
                f"--regid={self._user}",
                "--clear-groups",
                *command,
            ]
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stderr}"


def cluster() -> Iterator[Cluster]:
    """A server until the generator is closed. Skips, with the reason, where none can run."""
    programs = next((folder for folder in BINARIES if (folder / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if os.geteuid() == 0 and "postgres" not in {account.pw_name for account in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="longleaf-postgres-"))
    try:
        running = Cluster(folder, programs)
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
