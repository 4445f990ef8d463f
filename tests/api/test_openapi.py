"""The description of the API is true: every example in it is sent, and every answer fits its schema."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

METHODS = ("get", "post", "put", "delete", "patch")
KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def references(part: Any) -> list[str]:
    """Every ``$ref`` below a part of the description."""
    if isinstance(part, list):
        return [found for item in part for found in references(item)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [found for item in part.values() for found in references(item)]


def test_every_reference_leads_somewhere(shelf: TestClient) -> None:
    description = shelf.get("/openapi.json").json()
    found = set(references(description))
    assert "#/components/schemas/TextDocument" in found
    for reference in found:
        target = description
        for step in reference.removeprefix("#/").split("/"):
            assert step in target, reference
            target = target[step.replace("~1", "/").replace("~0", "~")]


def operations(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def example_of(operation: dict[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = [content["example"]] if "example" in content else content.get("schema", {}).get("examples", [])
    return examples[0] if examples else None


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "answer") -> None:
    """Required keys and types of JSON, followed through references: enough to catch a false description."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        fits(value, root["components"]["schemas"][name], root, where)
        return
    if "anyOf" in schema:
        assert any(_fits(value, option, root) for option in schema["anyOf"]), where
        return
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), (
            f"{where} is {type(value).__name__}, not {schema['type']}"
        )
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), where
        for key, part in schema.get("properties", {}).items():
            if key in value:
                fits(value[key], part, root, f"{where}.{key}")
        if "properties" in schema:
            assert set(value) <= set(schema["properties"]), where
    if isinstance(value, list):
        for item in value:
            fits(item, schema.get("items", {}), root, f"{where}[]")


def _fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    try:
        fits(value, schema, root)
    except AssertionError:
        return False
    return True


def test_every_example_works_and_every_answer_fits(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    order = {"post": 0, "get": 1, "delete": 3}
    # Upload first, delete last, and collections after their documents.
    steps = sorted(operations(description), key=lambda s: (order[s[1]], "documents" not in s[0], -len(s[0])))
    upload = {"documents": [{"id": "waiting", "text": "It waits its turn."}]}
    job = client.post("/v1/collections/jobs/documents", params={"wait": False}, json=upload).json()
    sent = 0
    for path, method, operation in steps:
        names = {
            p["name"]: p.get("schema", {}).get("examples", p.get("examples"))
            for p in operation.get("parameters", [])
            if p["in"] == "path"
        }
        values = {
            name: given[0] if isinstance(given, list) else next(iter(given.values()))["value"]
            for name, given in names.items()
        }
        if "job_id" in values:
            values["job_id"] = job["id"]
        body = example_of(operation)
        if method == "post" and "requestBody" in operation:
            assert body is not None, f"{method} {path} has no example"
        response = client.request(method, path.format(**values), json=body)
        told = operation["responses"].get(str(response.status_code))
        assert told, f"{method} {path} answered {response.status_code}, which is not described"
        if path != "/readyz":
            assert response.is_success, response.text
        if response.content:
            schema = told["content"][response.headers["content-type"].partition(";")[0]]["schema"]
            is_json = response.headers["content-type"].partition(";")[0].endswith("json")
            fits(response.json() if is_json else response.text, schema, description)
        sent += 1
    assert sent == len(steps) >= 9


def test_every_operation_says_how_it_fails(shelf: TestClient) -> None:
    description = shelf.get("/openapi.json").json()
    for path, _, operation in operations(description):
        assert operation["summary"]
        if "requestBody" in operation:
            assert "415" in operation["responses"], path
        if {"compatible"} & set(operation["tags"]):
            for status in ("400", "401", "413", "429", "500", "503"):
                assert "application/json" in operation["responses"][status]["content"], (path, status)
            assert "422" not in operation["responses"], "wrong requests are 400 there"
        elif path.startswith("/v1"):
            for status in ("401", "413", "422", "500", "503"):
                assert "application/problem+json" in operation["responses"][status]["content"], (path, status)


@pytest.mark.parametrize("name", ["Hit", "Retrieval", "Answer", "Citation", "IngestResult", "DocumentRecord"])
def test_values_of_the_pipeline_are_described_by_themselves(shelf: TestClient, name: str) -> None:
    assert shelf.get("/openapi.json").json()["components"]["schemas"][name]["properties"]
