"""The API reference: the OpenAPI document that the server serves, as a page of Markdown. Pure."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

Json = Mapping[str, Any]

TAGS: Final = {"audit-events": "Audit events", "api-keys": "API keys", "server": "Server"}
ERROR_STATUS_MIN: Final = 400
# What `required` means of a request, and of an answer.
NEEDED: Final = ", **needed**"
ALWAYS: Final = ", always there"

_HEAD = """# HTTP API

This is what the server tells at `/openapi.json`, as a page; {title} {version}. Errors have the form of
[ErrorResponse](#errorresponse); [Errors](errors.md) tells what causes each of them and what to do.

Unless it says otherwise, a request needs an API key, in one of these:
"""


def reference(document: Json) -> str:
    """The page of a document: every operation, grouped by tag, then every schema."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Json) -> Iterator[str]:
    yield _HEAD.format(**document["info"])
    yield from (f"- {_scheme(scheme)}" for scheme in document["components"]["securitySchemes"].values())
    for tag in document["tags"]:
        name = tag["name"]
        yield f"\n## {TAGS.get(name, name)}"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if name in operation["tags"]:
                    yield from _operation(method, path, operation, operations.get("get", {}))
    yield "\n## Schemas"
    sent = json.dumps(list(_bodies(document)))
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema, NEEDED if f'/{name}"' in sent else ALWAYS)


def _bodies(document: Json) -> Iterator[Json]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield operation.get("requestBody", {})


def _scheme(scheme: Json) -> str:
    if scheme["type"] == "apiKey":
        return f"the header `{scheme['name']}: KEY`"
    return f"the header `Authorization: {scheme['scheme'].title()} KEY`"


def _operation(method: str, path: str, operation: Json, get: Json) -> Iterator[str]:
    yield f"\n### {method.upper()} {path}\n"
    if method == "head" and _without_id(operation) == _without_id(get):
        yield f"What [GET](#{_anchor('get', path)}) answers, without the body."
        return
    yield operation["summary"] + "." + ("" if operation.get("security", True) else " It needs no key.")
    if parameters := operation.get("parameters"):
        yield "\n**Parameters**\n"
        yield from map(_parameter, parameters)
    if body := operation.get("requestBody"):
        yield f"\n**Body**{', needed' if body.get('required') else ''}\n"
        yield from _contents(body["content"], "", NEEDED)
    yield "\n**Answers**\n"
    yield from _answers(operation["responses"])


def _without_id(operation: Json) -> dict[str, Any]:
    return {name: value for name, value in operation.items() if name != "operationId"}


def _anchor(method: str, path: str) -> str:
    """The anchor of an operation's heading, as MyST and GitHub make it."""
    return f"{method} {path}".translate({ord(sign): None for sign in "/{}."}).replace(" ", "-")


def _parameter(parameter: Json) -> str:
    place = "" if parameter["in"] == "query" else f" in the {parameter['in']}"
    needed = NEEDED if parameter.get("required") else ""
    return f"- `{parameter['name']}`{place}: {_type(parameter['schema'])}{needed}{_told(parameter)}"


def _contents(content: Json, indent: str, required: str) -> Iterator[str]:
    """Each media type with its schema, and the members of one that is not among the schemas."""
    for media, body in content.items():
        schema = body.get("schema")
        yield f"{indent}- `{media}`{f': {_type(schema)}' if schema else ''}"
        yield from _members(schema or {}, indent + "  ", required)
        if "example" in body:
            example = json.dumps(body["example"], indent=2, ensure_ascii=False)
            yield "\n" + "\n".join(f"{indent}  {line}" for line in ["```json", *example.split("\n"), "```"])


def _members(schema: Json, indent: str, required: str) -> Iterator[str]:
    for part in [schema, *schema.get("anyOf", ())]:
        for name, member in part.get("properties", {}).items():
            mark = required if name in part.get("required", ()) else ""
            yield f"{indent}- `{name}`: {_type(member)}{mark}{_told(member)}"


def _answers(responses: Json) -> Iterator[str]:
    """One item an answer; errors that look the same share one."""

    def look(item: tuple[str, Json]) -> str:
        status, answer = item
        return json.dumps(answer.get("content")) if int(status) >= ERROR_STATUS_MIN else status

    for _, same in groupby(responses.items(), look):
        answers = list(same)
        names = ", ".join(f"`{status}` {answer['description']}" for status, answer in answers)
        yield f"- {names}"
        headers = {
            name: header for _, answer in answers for name, header in answer.get("headers", {}).items()
        }
        for name, header in headers.items():
            of = [f"`{status}`" for status, answer in answers if name in answer.get("headers", {})]
            of_some = f" of {', '.join(of)}" if len(answers) > 1 else ""
            yield f"  - header `{name}`{of_some}: {_type(header['schema'])}{_told(header)}"
        yield from _contents(answers[0][1].get("content", {}), "  ", ALWAYS)


def _schema(name: str, schema: Json, required: str) -> Iterator[str]:
    yield f"\n### {_name(name)}\n"
    if "properties" in schema:
        yield from _members(schema, "", required)
    else:
        yield f"{_type(schema)}{_told(schema)}"
    if schema.get("additionalProperties") is False:
        yield "\nOther members are refused."


def _name(reference: str) -> str:
    return reference.rpartition("/")[2].removeprefix("model.")


def _told(described: Json) -> str:
    text = described.get("description", "").rstrip(".")
    return f". {text}." if text else "."


def _type(schema: Json) -> str:
    """A schema in words: its type and its bounds."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "allOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"]) + _default(schema)
    types = schema.get("type", "anything")
    words = types if isinstance(types, str) else " or ".join(types)
    if words == "array":
        words = f"array of {_type(schema.get('items', {}))}"
    return words + "".join(f", {bound}" for bound in _bounds(schema)) + _default(schema)


def _default(schema: Json) -> str:
    return f", by default `{json.dumps(schema['default']).strip(chr(34))}`" if "default" in schema else ""


def _bounds(schema: Json) -> Iterator[str]:
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ):
        if low in schema and high in schema:
            yield f"{schema[low]:,} to {schema[high]:,}{unit}"
        elif low in schema:
            yield f"at least {schema[low]:,}{unit}"
        elif high in schema:
            yield f"at most {schema[high]:,}{unit}"
    if "format" in schema:
        yield "RFC 3339" if schema["format"] == "date-time" else str(schema["format"])
    if "pattern" in schema:
        yield f"pattern `{schema['pattern']}`"
