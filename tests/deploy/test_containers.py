"""The container files. There is no container engine here, so: the file against the published schema of
Compose and rules of our own, the Dockerfile read line by line, and every command line and health check of
a Longleaf container run on this machine, against a PostgreSQL and a server with Qdrant's contract.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from qdrant_server import qdrant_server

from api.keys import KeyRing
from api.metrics import Metrics
from api.settings import Layer, assemble
from indexers._qdrant_version import OLDEST

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
SECRETS = {"POSTGRES_PASSWORD": "a-password", "QDRANT_API_KEY": "a-key"}


def interpolated(value: Any, given: Mapping[str, str] = SECRETS) -> Any:
    """As Compose fills in variables."""
    if isinstance(value, dict):
        return {key: interpolated(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, given) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: given.get(found[1], found[2]), value).replace("$$", "$")
    return value


def test_the_file_is_what_compose_takes() -> None:
    schema = json.loads((ROOT / "tests/data/compose_spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    broken = COMPOSE | {"services": {"x": {"imagee": "y"}}}
    assert list(validator.iter_errors(broken)), "the schema refuses what it should"


def refused_by_compose(compose: Mapping[str, Any]) -> list[str]:
    """What Compose says of secrets and configurations when it starts containers, which no schema tells:
    docker/compose, ``pkg/compose/secrets.go``."""
    return [
        f"{service}: {each}"
        for service, made in compose["services"].items()
        for kind in ("secrets", "configs")
        for each in made.get(kind, [])
        if made.get("read_only")
        and "file" not in compose[kind][each if isinstance(each, str) else each["source"]]
    ]


def test_compose_starts_every_service() -> None:
    assert refused_by_compose(COMPOSE) == []
    service = {"read_only": True, "secrets": ["key"]}
    broken = {"services": {"x": service}, "secrets": {"key": {"environment": "KEY"}}}
    assert refused_by_compose(broken) == ["x: key"], "as prometheus was"
    assert refused_by_compose({**broken, "secrets": {"key": {"file": "key.txt"}}}) == []


def test_prometheus_gets_its_key_as_a_file_or_says_what_is_missing(tmp_path: Path) -> None:
    service = interpolated(SERVICES["prometheus"], {"LONGLEAF_METRICS_KEY": "id.secret"})
    assert "/run/secrets:mode=1777" in service["tmpfs"], "the user of the container may write there"
    shell, flag, script, *name = service["entrypoint"]
    script = script.replace("/run/secrets", str(tmp_path)).replace("/bin/prometheus", "echo")
    command = [shell, flag, script, *name, *service["command"]]
    environment = {"PATH": os.environ["PATH"], **service["environment"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == service["command"]
    assert (tmp_path / "metrics_key").read_text() == "id.secret"
    assert (tmp_path / "metrics_key").stat().st_mode & 0o077 == 0
    environment["METRICS_KEY"] = ""
    without = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (without.returncode, b"LONGLEAF_METRICS_KEY" in without.stderr) == (1, True)


def test_every_profile_is_there() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service["profiles"]}
    assert profiles == {"default", "server", "cluster", "gpu", "observability"}
    for service in SERVICES.values():
        for needed in service.get("depends_on", {}):
            assert set(service["profiles"]) <= set(SERVICES[needed]["profiles"]), needed


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_held_short(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert re.search(r"\d+\.\d+", tag), "a version is pinned"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    if name != "postgres" and "qdrant" not in name:  # those images become a user of their own
        user = service["user"].partition(":")[0]
        assert int(user) > 0
    assert "unprivileged" in tag if "qdrant" in name else True
    for mount in service.get("volumes", []):
        source, _, rest = mount.partition(":")
        assert source in COMPOSE["volumes"] or (source.startswith("./deploy/") and rest.endswith(":ro"))
        if source.startswith("."):
            assert (ROOT / source).exists()
    for port in service.get("ports", []):
        assert interpolated(port, {}).startswith("127.0.0.1:"), "only this machine, unless told otherwise"


def test_qdrant_is_one_that_the_adapter_takes() -> None:
    tags = {service["image"].rpartition(":")[2] for name, service in SERVICES.items() if "qdrant" in name}
    [tag] = tags
    assert tuple(map(int, re.findall(r"\d+", tag)[:2])) >= OLDEST


def test_no_secret_is_written_down() -> None:
    names = ("PASSWORD", "API_KEY", "SECRET", "TOKEN", "METRICS_KEY")
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if any(name in key for name in names) or key.endswith("__URL"):
                bare = VARIABLE.sub("", str(value))
                assert not re.search(r"://[^/@]*:[^@/]+@", bare), key
                assert bare == "" or "://" in bare, key
    for line in (ROOT / ".env.example").read_text().splitlines():
        key, _, value = line.partition("=")
        if any(name in key for name in names) and not line.startswith("#"):
            assert value == "", key
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    named = {line.partition("=")[0] for line in (ROOT / ".env.example").read_text().splitlines()}
    assert used <= named, "every variable is explained"


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_each_container_exist(name: str) -> None:
    flat = interpolated(OURS[name].get("environment", {}))
    values: dict[str, Any] = {"data": "/data"}
    for variable, value in flat.items():
        section, _, key = variable.removeprefix("LONGLEAF_").lower().partition("__")
        values.setdefault(section, {})[key] = value
    assemble([Layer(values, "environment")])


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    parted = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in parted]


def test_the_dockerfile_keeps_the_rules() -> None:
    steps = instructions()
    known = "FROM ARG ENV WORKDIR RUN COPY USER VOLUME EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD".split()  # noqa: SIM905
    assert {word for word, _ in steps} <= set(known), "no ADD, no MAINTAINER, no SHELL"
    for word, rest in steps:
        if word == "FROM":
            assert re.match(r"[a-z/]+:\d+\.\d+\.\d+", rest), "a version is pinned"
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                ignored = (ROOT / ".dockerignore").read_text().splitlines()
                assert f"!{source.removeprefix('./')}" in ignored, f"{source} is in the build context"
        if word == "ENV":
            assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", rest)
        if word == "RUN":
            assert "curl" not in rest and "| sh" not in rest and "sudo" not in rest
            if "pip install" in rest and "--index-url" not in rest:
                assert rest.count("pip install") == rest.count("-c pinned.txt"), "every version is pinned"
        if word in ("CMD", "ENTRYPOINT"):
            assert isinstance(json.loads(rest), list), "exec form, so that signals arrive"
    assert [rest for word, rest in steps if word == "USER"] == ["10001:10001"]
    assert steps.index(("USER", "10001:10001")) > max(i for i, (word, _) in enumerate(steps) if word == "RUN")
    assert [word for word, _ in steps].count("HEALTHCHECK") == 1
    extras = next(rest for word, rest in steps if rest.startswith("EXTRAS="))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = ", project, re.MULTILINE) for extra in extras.split("=")[1].split(","))


# What the containers run


@contextmanager
def started(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def healthy(service: dict[str, Any], environment: dict[str, str]) -> bool:
    program, *arguments = service["healthcheck"]["test"][1:]
    assert program == "longleaf"
    command = [sys.executable, "-m", "api.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in OURS if "cluster" not in name and "gpu" not in name])
def test_each_command_line_starts_and_is_healthy(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Those of the profiles gpu and cluster are the same, with other values of the same settings."""
    service = OURS[name]
    twins = {"longleaf": "longleaf-gpu", "api": "api-cluster", "worker": "worker-cluster"}
    assert OURS[twins[name]]["command"] == service["command"]
    assert OURS[twins[name]]["healthcheck"] == service["healthcheck"]
    KeyRing(tmp_path / "data").create("first")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with qdrant_server(tmp_path / "qdrant", SECRETS["QDRANT_API_KEY"]) as qdrant:
        own = interpolated(service.get("environment", {}))
        places = {"LONGLEAF_INDEXER__URL": qdrant.url}
        if "LONGLEAF_LEDGER__URL" in own:  # skips where there is no PostgreSQL
            places["LONGLEAF_LEDGER__URL"] = request.getfixturevalue("postgres").database()
        inherited = {key: text for key, text in os.environ.items() if not key.startswith("LONGLEAF_")}
        environment = {
            **inherited,
            **{key: places.get(key, text) for key, text in own.items()},
            "LONGLEAF_DATA": str(tmp_path / "data"),
            "LONGLEAF_SERVER__PORT": str(port),
            "LONGLEAF_EMBEDDER__NAME": "hashing",
            "LONGLEAF_LANGUAGE_MODEL__SPEC": "none",
            **({} if own else {"LONGLEAF_INDEXER__NAME": "exact"}),
        }
        serves = service["command"][0] == "serve"
        if serves:
            assert not healthy(service, environment), "nothing runs yet"
        with started(service["command"], environment) as process:
            until = time.monotonic() + 60
            while not healthy(service, environment):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.2)
            if own and serves:
                assert qdrant.seen, "the vectors are where the environment says"


def test_without_a_key_a_container_says_what_to_do(tmp_path: Path) -> None:
    environment = {**os.environ, "LONGLEAF_DATA": str(tmp_path), "LONGLEAF_SERVER__PORT": "0"}
    command = [sys.executable, "-m", "api.cli", *OURS["longleaf"]["command"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "longleaf keys create" in done.stderr


# What watches them


def test_prometheus_asks_every_server_with_its_key() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    [names] = job["dns_sd_configs"]
    assert set(names["names"]) == {name for name in OURS if OURS[name]["command"][0] == "serve"}
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    mounted = [mount.split(":") for mount in SERVICES["prometheus"]["volumes"]]
    assert ["./deploy/prometheus.yml", "/etc/prometheus/prometheus.yml", "ro"] in mounted
    assert all((ROOT / "deploy" / rule).exists() for rule in config["rule_files"])


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    told = Metrics()
    told.request("GET", "/", 200, 0.1)
    told.stages({"embed": 0.1})
    told.answered("extractive", {}, {"prompt_tokens": 1, "drafted_tokens": 1})
    told.ingested("created", 1, {"reading": 0.1})
    text = told.exposition().decode()
    pools = {"queue_depth", "queue_oldest_seconds", "queue_refused", "workers_busy"}
    jobs = {"job_documents", "job_oldest_seconds", "job_documents_ended_total"}  # tests/api/test_http_jobs.py
    known = set(re.findall(r"^# HELP (\w+)", text, re.MULTILINE)) | {f"longleaf_{n}" for n in pools | jobs}
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/longleaf.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    used = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for expression in asked
        for name in re.findall(r"\b(?:longleaf|process)_\w+", expression)
    }
    assert len(used) >= 10
    assert used <= known, used - known
    for expression in asked:  # each server tells of all jobs: of several, one is believed
        of_jobs = expression.count("longleaf_job_documents") + expression.count("longleaf_job_oldest")
        assert of_jobs == expression.count("max by (stage)"), expression
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {p["datasource"]["uid"] for p in dashboard["panels"]} == {sources["datasources"][0]["uid"]}
