"""Every example runs as it is printed, against a server that wants a key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import serving
from small_library import small_settings

from api.build import open_longleaf
from api.keys import KeyRing

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SAID = {
    "curl.sh": ["sluice in repair", "event: done", "three months", "== the text"],
    "with_httpx.py": ["best passage: ", "lease[62:", "streamed: ", "three months' notice"],
    "with_openai.py": ["three months' notice", "#char=62,", "streamed: ", "dimensions: 256"],
    "with_langchain.py": ["three months' notice", "dimensions: 256"],
}


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    settings = small_settings(tmp_path_factory.mktemp("examples"))
    key = KeyRing(settings.data).create("examples")
    with open_longleaf(settings) as longleaf, serving(longleaf) as url:
        yield {"LONGLEAF_URL": url, "LONGLEAF_KEY": key}


def test_none_is_left_out() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs(name: str, access: dict[str, str]) -> None:
    if name.endswith(".sh") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["sh"] if name.endswith(".sh") else [sys.executable]
    command += [str(EXAMPLES / name)]
    environment = {**os.environ, **access}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in SAID[name]:
        assert words in done.stdout
    headers = {"authorization": f"Bearer {access['LONGLEAF_KEY']}"}
    left = httpx.get(f"{access['LONGLEAF_URL']}/v1/collections", headers=headers).json()
    assert left == {"collections": []}, "it leaves nothing behind"
