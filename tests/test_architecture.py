"""The house rules that can be read from the source: who imports whom, and what is never called."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "embedders", "indexers", "rerankers", "api")
PLUGINS = {"embedders", "indexers", "rerankers"}
# Who may import whom; a package may always import itself.
MAY_IMPORT = {
    "pipeline": set(),
    "embedders": {"pipeline"},
    "indexers": {"pipeline"},
    "rerankers": {"pipeline"},
    "api": {"pipeline"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module, wherever in the file, including ``import_module("...")`` of a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value), node.lineno


def forbidden_calls(tree: ast.AST) -> Iterator[str]:
    """Ways to run code that came with data: pickles, torch.load, remote code, eval."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            modules = []
        for module in modules:
            if module.split(".")[0] in {
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "joblib",
                "marshal",
                "shelve",
            }:
                yield f"line {node.lineno}: import {module}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"torch.load", "eval", "exec", "os.system"} or name.endswith(
                ("pickle.load", "pickle.loads")
            ):
                yield f"line {node.lineno}: {name}()"
            for keyword in node.keywords:
                value = keyword.value
                allowed = isinstance(value, ast.Constant) and value.value is False
                if keyword.arg in {"trust_remote_code", "allow_pickle"} and not allowed:
                    yield f"line {node.lineno}: {keyword.arg}={ast.unparse(value)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_inward(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[package] | {package}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(tree)
        if (top := module.split(".")[0]) in PACKAGES and top not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(PLUGINS))
def test_plugins_are_one_file_each(package: str) -> None:
    """A plugin may build on another of its package, never on one of another package."""
    for path in (ROOT / package).glob("*.py"):
        for module, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
            assert module.split(".")[0] not in PLUGINS - {package}, f"{path.name} line {line}: {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_that_came_with_data(path: Path) -> None:
    assert not list(forbidden_calls(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_rules_catch_what_they_name() -> None:
    bad = ast.parse(
        "import pickle\nfrom indexers.exact import build\n"
        "torch.load(x)\nload(m, trust_remote_code=True)\nimportlib.import_module('embedders.hashing')\n"
    )
    assert [module for module, _ in imports(bad)] == ["pickle", "indexers.exact", "embedders.hashing"]
    assert len(list(forbidden_calls(bad))) == 3


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "base", "common", "helpers", "helper", "manager", "misc"}
    assert not [path for path in SOURCES if path.stem in drawers]


MODELS = {"torch", "transformers", "sentence_transformers", "tokenizers", "qdrant_edge"}
SERVICES = {"fastapi", "starlette", "uvicorn", "sqlalchemy"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("api.cli", MODELS | SERVICES | {"numpy"}),
        ("api.settings", MODELS | {"fastapi", "uvicorn"}),
        ("api.build", MODELS | {"fastapi", "uvicorn"}),
        ("pipeline.plugins", MODELS | SERVICES),
    ],
)
def test_starting_is_lean(module: str, heavy: set[str]) -> None:
    """The command line answers ``--help`` without loading a model library, the web framework or SQL."""
    loaded = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.split() == []


def test_every_plugin_module_is_lean() -> None:
    """Choosing settings imports plugin modules; their libraries wait for ``build``."""
    code = """
import importlib, sys
from pipeline import plugins
for package in ("embedders", "indexers", "rerankers"):
    for name in plugins.names(package):
        importlib.import_module(f"{package}.{name}")
heavy = {"torch", "transformers", "sentence_transformers", "faiss", "qdrant_client", "qdrant_edge"}
print(*sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.split() == []
