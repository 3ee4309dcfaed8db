"""The OpenAPI 3.1.1 document of what this server serves.

For the two endpoints of the contract it is the contract, and what this server adds to it.
"""

from collections.abc import Sequence
from typing import Any, Final

from auditplane import __version__, limits
from auditplane import query as queries
from auditplane.access.key import Role
from auditplane.event import KINDS
from auditplane.http.problems import JSON, OCTETS

Json = dict[str, Any]

GET_EVENT: Final = "getAuditEvent"
REVOKE_KEY: Final = "revokeApiKey"
LIFT_HOLD: Final = "liftHold"

# No control characters but tab and line breaks.
_TEXT: Final = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$"

_EXAMPLE: Final = {
    "resourceName": "otlp",
    "resourceKind": "Source",
    "action": "Modified",
    "user": "ann@example.com",
    "configuration": "prod-gateway:7",
}

_EVENT: Final = {"$ref": "#/components/schemas/model.AuditEvent"}
_ERROR: Final = {"$ref": "#/components/schemas/model.ErrorResponse"}
_KIND: Final = {"$ref": "#/components/schemas/model.Kind"}
_KEY: Final = {"$ref": "#/components/schemas/model.APIKey"}
_HOLD: Final = {"$ref": "#/components/schemas/model.Hold"}

_PROBLEMS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}

_RETRY_AFTER: Final[Json] = {
    "Retry-After": {"description": "After how many seconds to try again", "schema": {"type": "integer"}}
}
_ADVICE: Final[dict[int, Json]] = {
    401: {"WWW-Authenticate": {"description": "How to send a key", "schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
    507: _RETRY_AFTER,
}

_DATE_HELP: Final = f" in YYYYMMDDHHMMSS format; also {queries.DATE_FORMS}"
_ANY_TEXT: Final[Json] = {"type": "string"}
_PARAMETERS: Final[dict[str, tuple[Json, str]]] = {
    queries.CONFIGURATION: (_ANY_TEXT, "Name of the configuration; name:version for one version"),
    queries.USER: (_ANY_TEXT, "User associated with the audit event, in any case"),
    queries.MIN_DATE: (_ANY_TEXT, f"Minimum date for the audit event query{_DATE_HELP}. Inclusive"),
    queries.MAX_DATE: (_ANY_TEXT, f"Maximum date for the audit event query{_DATE_HELP}. Inclusive"),
    queries.ACTION: (_ANY_TEXT, "Action of the event"),
    queries.KIND: (_KIND, "Kind of the resource"),
    queries.NAME: (_ANY_TEXT, "Name of the resource"),
    queries.WORDS: (
        _ANY_TEXT,
        "Words of description, resource name, user and configuration, all of which must occur",
    ),
    queries.ORDER: (
        {"type": "string", "enum": ["desc", "asc", "recorded"], "default": "desc"},
        "Newest first, oldest first, or as recorded",
    ),
    queries.AFTER: (
        {"type": "integer", "minimum": -1},
        "With order=recorded: only events recorded after that of this index, counted from 0",
    ),
    queries.LIMIT: (
        {"type": "integer", "minimum": 1, "maximum": limits.PAGE_EVENTS_MAX},
        "At most so many events; the Link header leads to the next ones",
    ),
    queries.CURSOR: (_ANY_TEXT, "Where a page begins: comes in the Link header"),
    queries.RAW: (
        {"type": "boolean", "default": False},
        "Leave cells that look like formulas as they were recorded",
    ),
}
_REPEATED: Final = (
    queries.CONFIGURATION,
    queries.USER,
    queries.ACTION,
    queries.KIND,
    queries.NAME,
    queries.WORDS,
)


def document(extra_kinds: Sequence[str]) -> Json:
    """The document of a server with these further kinds."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Auditplane",
            "version": __version__,
            "description": "Who changed what, and when: record, list, filter and download audit events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}, {"bearer": []}],
        "tags": [
            {"name": "audit-events"},
            {"name": "log"},
            {"name": "api-keys"},
            {"name": "retention"},
            {"name": "server"},
        ],
        "paths": _paths(),
        "components": {"schemas": _schemas(extra_kinds), "securitySchemes": _security()},
    }


def _paths() -> Json:
    listing, download = _list(), _download()
    return {
        "/v1/audit-events": {
            "get": _named("listAuditEvents", listing),
            "head": _named("headAuditEvents", listing),
            "post": _named("recordAuditEvents", _record()),
        },
        "/v1/audit-events/download": {
            "get": _named("downloadAuditEvents", download),
            "head": _named("headAuditEventsDownload", download),
        },
        "/v1/audit-events/count": {"get": _named("countAuditEvents", _count())},
        "/v1/audit-events/evidence": {"get": _named("getEvidence", _evidence())},
        "/v1/audit-events/{id}": {"get": _named(GET_EVENT, _get())},
        "/v1/audit-events/{id}/proof": {"get": _named("proveAuditEvent", _prove())},
        "/v1/log/{account}/key": {
            "get": _named("getLogKey", _log_text("Get the verifier key of the log", _LOG_PROBLEMS))
        },
        "/v1/log/{account}/checkpoint": {
            "get": _named(
                "getCheckpoint",
                _log_text("Get a signed checkpoint (C2SP tlog-checkpoint)", _SIGNING_PROBLEMS),
            )
        },
        "/v1/log/{account}/tile/{path}": {"get": _named("getTile", _tile())},
        "/v1/log/{account}/consistency": {"get": _named("proveConsistency", _consistency())},
        "/v1/log/{account}/events": {
            "get": _named("listLogEvents", _log_events()),
            "head": _named("headLogEvents", _log_events()),
        },
        "/v1/api-keys": {
            "get": _named("listApiKeys", _list_keys()),
            "post": _named("createApiKey", _create_key()),
        },
        "/v1/api-keys/{id}": {"delete": _named(REVOKE_KEY, _revoke_key())},
        "/v1/retention": {
            "get": _named("getRetention", _show_retention()),
            "put": _named("setRetention", _set_retention()),
        },
        "/v1/holds": {
            "get": _named("listHolds", _list_holds()),
            "post": _named("placeHold", _place_hold()),
        },
        "/v1/holds/{id}": {"delete": _named(LIFT_HOLD, _lift_hold())},
        "/v1/erasures": {"post": _named("eraseAuditEvents", _erase())},
        "/v1/version": {"get": _named("getVersion", _version())},
        "/health": {"get": _named("getHealth", _health())},
        "/health/live": {"get": _named("getLive", _live())},
        "/metrics": {"get": _named("getMetrics", _metrics())},
        "/openapi.json": {"get": _named("getOpenapi", _open("Get this document", {}))},
    }


def _named(operation_id: str, operation: Json) -> Json:
    return {"operationId": operation_id, **operation}


def _link(operation_id: str, pointer: str) -> Json:
    """A link to the operation of what an answer names."""
    return {operation_id: {"operationId": operation_id, "parameters": {"id": f"$response.body#{pointer}"}}}


def _version() -> Json:
    return _open("Get the version of the server", {"version": {"type": "string"}})


def _list() -> Json:
    content = {
        JSON: {"schema": {"anyOf": [_array(), _envelope()]}},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
    }
    headers = {
        "Link": {"description": 'The next page, rel="next"', "schema": {"type": "string"}},
        "Auditplane-Log-Size": {
            "description": "Size of the log; a feed in recorded order goes on `after` this less one",
            "schema": {"type": "integer"},
        },
        "Auditplane-Next-After": {
            "description": "With order=recorded and limit: the index to give as `after` next",
            "schema": {"type": "integer"},
        },
    }
    return _operation(
        "audit-events",
        "Get audit events",
        _parameters(queries.LIST_PARAMETERS),
        {"200": {"description": "OK", "content": content, "headers": headers}},
        (400, 401, 403, 406, 500, 503),
    )


def _array() -> Json:
    return {"type": "array", "items": _EVENT}


def _envelope() -> Json:
    return {
        "type": "object",
        "description": "What a key with `envelope` gets",
        "properties": {"auditEvents": _array()},
        "required": ["auditEvents"],
    }


def _download() -> Json:
    operation = _operation(
        "audit-events",
        "Download audit events in CSV format",
        _parameters(queries.DOWNLOAD_PARAMETERS),
        {
            "200": {
                "description": "Returns an octet-stream of the requested CSV file",
                "content": {OCTETS: {}},
            }
        },
        (),
    )
    for status in (400, 401, 403, 429, 500, 503, 507):
        operation["responses"][str(status)] = _problem(status, {OCTETS: {}, JSON: {"schema": _ERROR}})
    return operation


def _record() -> Json:
    new = {"$ref": "#/components/schemas/model.NewAuditEvent"}
    array = {"type": "array", "items": new, "minItems": 1, "maxItems": limits.BATCH_EVENTS_MAX}
    ids = {
        "type": "object",
        "properties": {"ids": {"type": "array", "items": {"type": "string"}}},
        "required": ["ids"],
    }
    operation = _operation(
        "audit-events",
        "Record audit events, all or none",
        [],
        {
            "201": {
                "description": "On disk; the ids in the order of the events",
                "content": {JSON: {"schema": ids}},
                "links": _link(GET_EVENT, "/ids/0"),
            }
        },
        (400, 401, 403, 408, 409, 413, 415, 500, 503, 507),
    )
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {"schema": {"anyOf": [new, array]}, "example": _EXAMPLE},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
    return operation


def _count() -> Json:
    properties = {"count": {"type": "integer", "minimum": 0}}
    return _operation(
        "audit-events",
        "Count audit events",
        _parameters(queries.COUNT_PARAMETERS),
        _ok(properties),
        (400, 401, 403, 500, 503),
    )


def _evidence() -> Json:
    headers = {
        "Content-Disposition": {"description": "A file name", "schema": {"type": "string"}},
        "Auditplane-Log-Size": {
            "description": "Size of the log that the proof leads to",
            "schema": {"type": "integer"},
        },
    }
    return _operation(
        "log",
        "Get audit events as a zip that proves them offline",
        _parameters(queries.FILTERS),
        {
            "200": {
                "description": "Events, the same as CSV, proof, signed checkpoint, and a program that checks",
                "content": {"application/zip": {}},
                "headers": headers,
            }
        },
        (400, 401, 403, 409, 500, 503, 507),
    )


def _get() -> Json:
    answer = {"200": {"description": "OK", "content": {JSON: {"schema": _EVENT}}}}
    return _operation(
        "audit-events", "Get an audit event", [_id()], answer, (400, 401, 403, 404, 410, 500, 503)
    )


_BASE64: Final[Json] = {"type": "string", "format": "byte"}
_LOG_PROBLEMS: Final = (400, 401, 403, 404, 500, 503, 507)
_SIGNING_PROBLEMS: Final = (400, 401, 403, 404, 409, 500, 503, 507)


def _prove() -> Json:
    properties = {
        "doc": {"type": "string", "description": "The JSON of the event, as it was hashed"},
        "stamp": {"type": "string", "description": "When and by which key it was recorded, and a salt"},
        "index": {"type": "integer", "minimum": 0},
        "size": {"type": "integer", "minimum": 1},
        "root": _BASE64,
        "path": {"type": "array", "items": _BASE64},
        "checkpoint": {"type": "string", "description": "A signed checkpoint of this size and root"},
    }
    answer = _ok(properties)
    answer["200"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    return _operation(
        "log",
        "Prove that an event is in the log",
        [_id()],
        answer,
        (400, 401, 403, 404, 406, 409, 410, 500, 503, 507),
    )


def _log_account() -> Json:
    return {
        "name": "account",
        "in": "path",
        "required": True,
        "description": "The account of the API key",
        "schema": {"type": "string"},
        "example": "default",
    }


def _log_text(summary: str, problems: Sequence[int]) -> Json:
    answer = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return _operation("log", summary, [_log_account()], answer, problems)


def _tile() -> Json:
    path = {
        "name": "path",
        "in": "path",
        "required": True,
        "description": "As in C2SP tlog-tiles: `0/x001/234`, `1/000.p/17`, or `entries/000`",
        "schema": {"type": "string"},
        "example": "0/000.p/1",
    }
    answer = {"200": {"description": "OK", "content": {OCTETS: {}}}}
    return _operation(
        "log", "Get a tile, or a bundle of entries", [_log_account(), path], answer, _LOG_PROBLEMS
    )


def _sizes(earlier: str, later: str, *, required: bool) -> list[Json]:
    return [
        {
            "name": name,
            "in": "query",
            "required": required,
            "description": description,
            "schema": {"type": "integer", "minimum": 0},
        }
        for name, description in (("from", earlier), ("to", later))
    ]


def _consistency() -> Json:
    properties = {
        "from": {"type": "integer"},
        "to": {"type": "integer"},
        "path": {"type": "array", "items": _BASE64},
    }
    sizes = _sizes("Size of the earlier log", "Size of the later one", required=True)
    return _operation(
        "log",
        "Prove that a log begins with an earlier one",
        [_log_account(), *sizes],
        _ok(properties),
        _LOG_PROBLEMS,
    )


def _log_events() -> Json:
    sizes = _sizes(
        "Index of the first event, counted from 0 as recorded; 0 where it is not given",
        "Index to end before; the size of the log where it is not given",
        required=False,
    )
    answer = {
        "description": "A line for each event that is not gone: index, event and stamp",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        "headers": {
            "Auditplane-Log-Size": {"description": "Size of the log", "schema": {"type": "integer"}},
            "Auditplane-Expired": {
                "description": "Index before which events have expired; holds keep some",
                "schema": {"type": "integer"},
            },
        },
    }
    return _operation(
        "log",
        "Get events with what their commitments are made of",
        [_log_account(), *sizes],
        {"200": answer},
        (400, 401, 403, 404, 500, 503),
    )


def _list_keys() -> Json:
    properties = {"apiKeys": {"type": "array", "items": _KEY}}
    return _operation(
        "api-keys", "List the API keys of the account", [], _ok(properties), (400, 401, 403, 500, 503)
    )


def _create_key() -> Json:
    created = {
        "description": "Created",
        "content": {JSON: {"schema": _KEY}},
        "links": _link(REVOKE_KEY, "/id"),
    }
    operation = _operation(
        "api-keys",
        "Create an API key; its secret is in this answer only",
        [],
        {"201": created},
        (400, 401, 403, 408, 413, 500, 503, 507),
    )
    body = {
        "type": "object",
        "properties": {
            "role": {"type": "string", "enum": [role.value for role in Role]},
            "description": {"type": "string", "maxLength": limits.KEY_DESCRIPTION_CHARS_MAX},
            "expires": {"type": ["string", "null"], "format": "date-time"},
            "envelope": {"type": "boolean", "default": False},
        },
        "required": ["role"],
        "additionalProperties": False,
    }
    example = {"role": "reader", "description": "grafana"}
    return _with_body(operation, body, example)


def _with_body(operation: Json, schema: Json, example: Json) -> Json:
    content = {JSON: {"schema": schema, "example": example}}
    return {**operation, "requestBody": {"required": True, "content": content}}


def _revoke_key() -> Json:
    answer = {"204": {"description": "Revoked"}}
    return _operation(
        "api-keys", "Revoke an API key", [_id()], answer, (400, 401, 403, 404, 409, 500, 503, 507)
    )


_CHANGE_PROBLEMS: Final = (400, 401, 403, 408, 413, 500, 503, 507)
_DAYS: Final[Json] = {"type": "integer", "minimum": 0, "maximum": limits.RETENTION_DAYS_MAX}
_OWN_DAYS: Final[Json] = {
    **_DAYS,
    "type": ["integer", "null"],
    "description": "For how many days events of the account are kept; 0 for ever, null as the server is set",
}
_REASON: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": limits.REASON_CHARS_MAX,
    "description": "Why: one line, which is kept in the log",
}


def _retention() -> Json:
    return _ok({"days": _OWN_DAYS, "inForce": {**_DAYS, "description": "What counts; 0 for ever"}})


def _show_retention() -> Json:
    return _operation(
        "retention", "Tell for how long events are kept", [], _retention(), (400, 401, 403, 500, 503)
    )


def _set_retention() -> Json:
    operation = _operation(
        "retention",
        "Set for how long events are kept; what has expired is hidden at once",
        [],
        _retention(),
        _CHANGE_PROBLEMS,
    )
    return _with_body(operation, _closed({"days": _OWN_DAYS}, "days"), {"days": 365})


def _list_holds() -> Json:
    properties = {"holds": {"type": "array", "items": _HOLD}}
    return _operation(
        "retention", "List the holds of the account", [], _ok(properties), (400, 401, 403, 500, 503)
    )


def _place_hold() -> Json:
    placed = {
        "description": "Placed",
        "content": {JSON: {"schema": _HOLD}},
        "links": _link(LIFT_HOLD, "/id"),
    }
    operation = _operation(
        "retention", "Keep events from expiring and from erasure", [], {"201": placed}, _CHANGE_PROBLEMS
    )
    text: Json = {"type": ["string", "null"]}
    body = {
        "reason": _REASON,
        "user": {**text, "minLength": 1, "maxLength": limits.NAME_CHARS_MAX, "description": "Whose events"},
        "minDate": {**text, "description": f"Not earlier{_DATE_HELP}"},
        "maxDate": {**text, "description": "Not later; in the same forms"},
    }
    return _with_body(operation, _closed(body, "reason"), {"reason": "case 4711", "user": "ann@example.com"})


def _lift_hold() -> Json:
    answer = {"204": {"description": "Lifted"}}
    return _operation("retention", "Lift a hold", [_id()], answer, (400, 401, 403, 404, 500, 503, 507))


def _erase() -> Json:
    operation = _operation(
        "retention",
        "Erase events for good, by their ids or all of a user",
        [],
        _ok({"erased": {"type": "integer", "minimum": 1}}),
        (400, 401, 403, 404, 408, 409, 410, 413, 500, 503, 507),
    )
    ids = {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": limits.BATCH_EVENTS_MAX,
    }
    user = {"type": "string", "minLength": 1}
    body = {
        "type": "object",
        "oneOf": [
            _closed({"ids": ids, "reason": _REASON}, "ids", "reason"),
            _closed({"user": user, "reason": _REASON}, "user", "reason"),
        ],
    }
    return _with_body(operation, body, {"ids": ["01JQ0000000000000000000000"], "reason": "request 4711"})


def _closed(properties: Json, *required: str) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _operation(
    tag: str, summary: str, parameters: list[Json], answers: Json, problems: Sequence[int]
) -> Json:
    """An operation that needs a key, which may ask too often."""
    known = (*problems, 429)
    errors = {str(status): _problem(status, {JSON: {"schema": _ERROR}}) for status in sorted(known)}
    return {"tags": [tag], "summary": summary, "parameters": parameters, "responses": {**answers, **errors}}


def _problem(status: int, content: Json) -> Json:
    headers = {"headers": _ADVICE[status]} if status in _ADVICE else {}
    return {"description": _PROBLEMS[status], "content": content, **headers}


def _health() -> Json:
    operation = _open("Tell whether the server can record", {"status": {"type": "string"}})
    operation["responses"]["503"] = {**operation["responses"]["200"], "description": _PROBLEMS[503]}
    return operation


def _live() -> Json:
    return _open("Tell that the server answers, whether it can record or not", {"status": {"type": "string"}})


def _metrics() -> Json:
    return _open_text("Get metrics in the text format of Prometheus", "text/plain")


def _open(summary: str, properties: Json) -> Json:
    return _without_key(summary, _ok(properties))


def _open_text(summary: str, media: str) -> Json:
    return _without_key(
        summary, {"200": {"description": "OK", "content": {media: {"schema": {"type": "string"}}}}}
    )


def _without_key(summary: str, answers: Json) -> Json:
    errors = {str(status): _problem(status, {JSON: {"schema": _ERROR}}) for status in (500, 503)}
    responses = {**answers, **errors}
    return {"tags": ["server"], "summary": summary, "parameters": [], "responses": responses, "security": []}


def _ok(properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"200": {"description": "OK", "content": {JSON: {"schema": schema}}}}


def _id() -> Json:
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


def _parameters(names: Sequence[str]) -> list[Json]:
    found = []
    for name in names:
        schema, description = _PARAMETERS[name]
        parameter: Json = {"name": name, "in": "query", "description": description, "schema": schema}
        if schema is not _ANY_TEXT:
            parameter["allowEmptyValue"] = True  # it counts as not given
        if name in _REPEATED:
            parameter["description"] += ". May be given several times: any of them matches"
        found.append(parameter)
    return found


def _schemas(extra_kinds: Sequence[str]) -> Json:
    event = {
        "type": "object",
        "properties": {
            "id": _string("ID is a ULID uniquely identifying this event"),
            "timestamp": {**_string("Timestamp is the time this event occurred"), "format": "date-time"},
            "resourceName": _string("ResourceName is the resource name"),
            "description": _string("Description is a readable description of the event"),
            "resourceKind": {
                "description": "ResourceKind is the resource that was modified",
                "allOf": [_KIND],
            },
            "configuration": _string(
                "Configuration is the name of the configuration affected. "
                "This may be nil if there is not associated configuration."
            ),
            "action": _string("Action is the action that was taken on the resource"),
            "user": _string("User is the user that modified the resource"),
            "account": _string(
                "Account is the account that the event occurred on. May be nil in the case of single-account."
            ),
            "details": {"type": "object", "description": "Details is what else the recorder told"},
        },
    }
    return {
        "model.AuditEvent": event,
        "model.NewAuditEvent": _new_event(),
        "model.Kind": {"type": "string", "enum": [*KINDS, *extra_kinds]},
        "model.ErrorResponse": {
            "type": "object",
            "properties": {"errors": {"type": "array", "items": {"type": "string"}}},
            "required": ["errors"],
        },
        "model.APIKey": _api_key(),
        "model.Hold": _hold(),
    }


def _new_event() -> Json:
    text: Json = {"type": "string", "minLength": 1, "maxLength": limits.NAME_CHARS_MAX, "pattern": _TEXT}
    optional: Json = {"type": ["string", "null"]}
    return {
        "type": "object",
        "properties": {
            "id": {**optional, "pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"},
            "timestamp": {**optional, "format": "date-time"},
            "resourceName": text,
            "description": {**optional, "maxLength": limits.DESCRIPTION_CHARS_MAX, "pattern": _TEXT},
            "resourceKind": _KIND,
            "configuration": {**optional, "maxLength": limits.NAME_CHARS_MAX, "pattern": _TEXT},
            "action": {**text, "maxLength": limits.ACTION_CHARS_MAX},
            "user": text,
            "account": optional,
            "details": {"type": ["object", "null"]},
        },
        "required": ["resourceName", "resourceKind", "action", "user"],
        "additionalProperties": False,
    }


def _api_key() -> Json:
    moment: Json = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "account": {"type": "string"},
            "role": {"type": "string", "enum": [role.value for role in Role]},
            "description": {"type": "string"},
            "envelope": {"type": "boolean"},
            "created": moment,
            "expires": moment,
            "revoked": moment,
            "lastUsed": moment,
            "key": _string("The secret, right after it was made"),
        },
        "required": ["id", "account", "role", "description", "envelope", "created"],
    }


def _hold() -> Json:
    moment: Json = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "placed": moment,
            "placedBy": {"type": "string"},
            "reason": {"type": "string"},
            "user": _string("Whose events; without it, those of everybody"),
            "minDate": moment,
            "maxDate": moment,
        },
        "required": ["id", "placed", "placedBy", "reason"],
    }


def _string(description: str) -> Json:
    return {"type": "string", "description": description}


def _security() -> Json:
    return {
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-Bindplane-Api-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
