"""The two published files of the contract against the served document, and against real answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from server import Server
from tenants import COUNT, DOWNLOAD, EVENTS, KEYS, Json, Tenant, client, event, events

FILES = sorted((Path(__file__).parent / "contract").glob("*.json"))
LIST_FILE = Path(__file__).parent / "contract" / "audit-events.openapi.json"


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Path below the server's root, method and operation."""
    (server,) = document["servers"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield server["url"].rstrip("/") + path, method, operation


def contract_operations() -> list[Any]:
    return [
        pytest.param(path, method, operation, id=f"{method} {path}")
        for file in FILES
        for path, method, operation in operations(json.loads(file.read_text()))
    ]


@pytest.fixture(scope="module")
def served(server: Server) -> Json:
    with client(server.url) as anybody:
        answer = anybody.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    found: Json = answer.json()
    return found


def test_there_are_two_files() -> None:
    assert [operation.id for operation in contract_operations()] == [
        "get /v1/audit-events/download",
        "get /v1/audit-events",
    ]


def test_the_document_is_of_the_same_version_of_openapi(served: Json) -> None:
    assert {json.loads(file.read_text())["openapi"] for file in FILES} == {served["openapi"]} == {"3.1.1"}


@pytest.mark.parametrize(("path", "method", "operation"), contract_operations())
def test_each_operation_is_served(served: Json, path: str, method: str, operation: Json) -> None:
    """With its tags and summary, and each parameter by name, place and type, none of them required."""
    own = {(path, method): operation for path, method, operation in operations(served)}[path, method]
    assert own["tags"] == operation["tags"]
    assert own["summary"] == operation["summary"]
    parameters = {(each["name"], each["in"]): each for each in own["parameters"]}
    for each in operation["parameters"]:
        mine = parameters[each["name"], each["in"]]
        assert mine["schema"] == each["schema"]
        assert mine["description"].startswith(each["description"])
    assert not any(each.get("required") for each in own["parameters"])


@pytest.mark.parametrize(("path", "method", "operation"), contract_operations())
def test_each_answer_is_documented(served: Json, path: str, method: str, operation: Json) -> None:
    """Each status with its content types; a schema is that of the contract, or one of several."""
    own = {(path, method): operation for path, method, operation in operations(served)}[path, method]
    for status, response in operation["responses"].items():
        mine = own["responses"][status]
        assert mine["description"] == response["description"]
        for media, content in response.get("content", {}).items():
            offered = mine["content"][media].get("schema")
            if "schema" in content:
                assert content["schema"] in (offered, *(offered or {}).get("anyOf", ()))
            else:
                assert offered is None


def test_each_schema_has_what_the_contract_has(served: Json) -> None:
    """Every property, in the same order, with the same type and description; and every kind."""
    schemas = json.loads(LIST_FILE.read_text())["components"]["schemas"]
    for name, schema in schemas.items():
        mine = served["components"]["schemas"][name]
        assert mine["type"] == schema["type"]
        if "enum" in schema:
            assert mine["enum"] == schema["enum"]
        for member, described in schema.get("properties", {}).items():
            assert described.items() <= mine["properties"][member].items(), member
    assert len(schemas["model.Kind"]["enum"]) == 44


def validator(document: Json, schema: Json) -> jsonschema_rs.Draft202012Validator:
    """Of a schema with the components it refers to; what is not named in an object is refused."""
    components = json.loads(json.dumps(document["components"]))
    return jsonschema_rs.Draft202012Validator({**schema, "components": components}, validate_formats=True)


def response_schema(document: Json, path: str, method: str, status: int, media: str) -> Json:
    own = {(path, method): operation for path, method, operation in operations(document)}[path, method]
    schema: Json = own["responses"][str(status)]["content"][media].get("schema", {})
    return schema


@pytest.fixture
def filled(tenant: Tenant) -> Tenant:
    tenant.record(
        *events(3),
        event(
            configuration="gw:7", description="d", timestamp="2020-01-01T00:00:00Z", details={"a": [1, None]}
        ),
        *(event(resourceKind=kind) for kind in ("Fleet", "APIKey", "Unknown")),
    )
    return tenant


def test_real_answers_of_the_list_are_those_of_the_contract(filled: Tenant) -> None:
    """Events and errors alike; an event has no member beyond the contract's but `details`."""
    contract = json.loads(LIST_FILE.read_text())
    strict = json.loads(LIST_FILE.read_text())
    strict["components"]["schemas"]["model.AuditEvent"]["properties"]["details"] = {"type": "object"}
    strict["components"]["schemas"]["model.AuditEvent"]["additionalProperties"] = False
    strict["components"]["schemas"]["model.ErrorResponse"]["additionalProperties"] = False
    for answer, status in (
        (filled.reader.get(EVENTS), 200),
        (filled.reader.get(EVENTS, params={"user": "nobody"}), 200),
        (filled.reader.get(EVENTS, params={"limit": 2}), 200),
        (filled.reader.get(EVENTS, params={"min-date": "x"}), 400),
        (filled.client(None).get(EVENTS), 401),
        (filled.writer.get(EVENTS), 403),
    ):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/json"
        for document in (contract, strict):
            schema = response_schema(document, EVENTS, "get", status, "application/json")
            validator(document, schema).validate(answer.json())


def test_real_answers_are_those_of_the_served_document(served: Json, filled: Tenant) -> None:
    """Of each route that answers in JSON, right and wrong."""
    admin = filled.admin
    made = filled.record(event())[0]
    key = admin.post(KEYS, json={"role": "reader", "expires": "2099-01-01T00:00:00Z", "envelope": True})
    wrapped = filled.client(key.json()["key"])
    wrapped.get(EVENTS)
    for path, method, answer in (
        (EVENTS, "get", filled.reader.get(EVENTS)),
        (EVENTS, "get", wrapped.get(EVENTS)),
        (EVENTS, "get", filled.reader.get(EVENTS, headers={"Accept": "image/png"})),
        (EVENTS, "post", admin.post(EVENTS, json=event())),
        (EVENTS, "post", admin.post(EVENTS, json={})),
        (EVENTS, "post", admin.post(EVENTS, json=event(id=made))),
        (EVENTS, "post", admin.post(EVENTS, content=b" " * (16 * 1024 * 1024 + 1))),
        (EVENTS, "post", admin.post(EVENTS, content=b"", headers={"Content-Type": "text/plain"})),
        (DOWNLOAD, "get", filled.writer.get(DOWNLOAD, headers={"Accept": "application/json"})),
        (COUNT, "get", filled.reader.get(COUNT)),
        (EVENTS + "/{id}", "get", filled.reader.get(f"{EVENTS}/{made}")),
        (EVENTS + "/{id}", "get", filled.reader.get(f"{EVENTS}/x")),
        (KEYS, "post", key),
        (KEYS, "get", admin.get(KEYS)),
        (KEYS + "/{id}", "delete", admin.delete(f"{KEYS}/x")),
        ("/v1/version", "get", admin.get("/v1/version")),
        ("/health", "get", admin.get("/health")),
        ("/openapi.json", "get", admin.get("/openapi.json")),
    ):
        schema = response_schema(served, path, method, answer.status_code, answer.headers["Content-Type"])
        validator(served, schema).validate(answer.json())


def test_the_download_answers_in_octets(filled: Tenant) -> None:
    """As the contract has it: 200 is an octet-stream of CSV, and so are its errors."""
    for answer, status in (
        (filled.reader.get(DOWNLOAD), 200),
        (filled.reader.get(DOWNLOAD, params={"max-date": "x"}), 400),
        (filled.client(None).get(DOWNLOAD), 401),
        (filled.writer.get(DOWNLOAD), 403),
    ):
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/octet-stream")


def test_members_stand_in_the_order_of_the_contracts_server(filled: Tenant) -> None:
    """And `account` and `configuration` alone are left out when there is none."""
    order = [
        "id",
        "timestamp",
        "resourceName",
        "description",
        "resourceKind",
        "configuration",
        "action",
        "user",
    ]
    for doc in filled.docs():
        members = [name for name in doc if name not in ("account", "details")]
        assert members == [name for name in order if name in doc]
        assert set(order) - set(doc) <= {"configuration"}
        assert all(doc[name] for name in doc)
