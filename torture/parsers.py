"""The parsers of the project, each with examples of what it takes, for `inputs`.

What takes one sort of input is tried as a whole: a date as the parameter that it comes in, a note with all
that reads notes. Where a hash or a signature would hold everything off, input is signed first, as a server
that is not to be trusted would.
"""

import gzip
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import zstandard
from cyclopts import CycloptsError
from starlette.requests import Request

from auditplane import backup, config, log, merkle, query, rotation, signing, tiles, times, ulid
from auditplane.access import Access, attempts
from auditplane.access.key import Role, is_well_formed
from auditplane.checkpoint import (
    Checkpoint,
    Proof,
    SignerKey,
    VerifierKey,
    format_proof,
    note_text,
    open_checkpoint,
    open_endorsement,
    open_note,
    parse_checkpoint,
    parse_proof,
    parse_signer_key,
    parse_verifier_key,
    sign_checkpoint,
    sign_endorsement,
    sign_note,
    verify_proof,
)
from auditplane.cli import filters, import_file, verifier_keys
from auditplane.cli.commands import app
from auditplane.cli.profiles import Profiles
from auditplane.errors import AuditplaneError, InvalidInput, ProofError
from auditplane.event import KINDS, SECRET_WORDS, Rules, clean_details, decode_docs, encode_docs, parse
from auditplane.evidence import verify
from auditplane.http import bodies, negotiation
from auditplane.http.events import parameters
from auditplane.http.page import details, paths
from auditplane.http.page.view import read_view
from auditplane.query import Cursor, Order, Query, decode_cursor, encode_cursor, parse_date, parse_query
from auditplane.rotation import _begun as begun_change
from auditplane.store.sqlite import verified
from auditplane.store.sqlite.folder import DataFolder
from auditplane.verifying import Reading, decode_reading, parse_entry_line
from torture import served, zipped
from torture.inputs import Parser

OURS: Final = (AuditplaneError,)
RULES: Final = Rules()
KINDS_KNOWN: Final = frozenset(KINDS)
AT: Final = "2026-03-18T18:21:09.000001Z"
SIGNER: Final = SignerKey("auditplane/test/default", bytes(range(32)))
NEXT: Final = SignerKey("auditplane/test/default", bytes(range(1, 33)))


def text_of(data: bytes) -> str:
    """A text as an argument or a variable comes in: bytes that are no UTF-8 are lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def must(holds: bool, what: str) -> None:
    """Raises AssertionError, with what was to hold, when it does not."""
    if not holds:
        raise AssertionError(what)


def one_of(*reads: Callable[[], object]) -> None:
    """Has all of them read; raises what the last said when none of them takes it."""
    refused: list[AuditplaneError] = []
    for read in reads:
        try:
            read()
        except AuditplaneError as error:
            refused.append(error)
    if len(refused) == len(reads):
        raise refused[-1]


@contextmanager
def parsers() -> Iterator[dict[str, Parser]]:
    """All parsers by their names, with a data folder for those that need one."""
    with ExitStack() as stack:
        memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
        made = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        folder = Path(stack.enter_context(made))
        found = [*_core(), *_events(), *_proofs(), *_files(folder), *_keys(stack, folder)]
        found += [*zipped.parsers(folder), *served.parsers(stack, folder / "served")]
        yield {each.name: each for each in found}


# Times, parameters, headers, paths.


def _core() -> list[Parser]:
    moments = [
        b"2026-03-18T18:21:09.000001Z",
        b"1969-12-31t23:59:59.123456789-23:59",
        b"0001-01-01T00:00:00+00:01",
    ]
    dates = [
        b"20260318182109",
        b"20260318",
        b"2026-03-18 18:21:09.000001 00",
        b"2026-03-18T18:21:09+0200",
        *moments,
    ]
    queries = [
        b"user=ann%40example.com&min-date=20260301&max-date=2026-03-18T18:21:09Z&limit=10",
        b"configuration-name=prod-gateway:7&action=Modified&resource-kind=Source&q=two+words&order=asc",
        b"order=recorded&after=-1&raw=true&resource-name=otlp&user=",
        f"cursor={encode_cursor(Cursor(5, 9), Query(), 'default')}".encode(),
    ]
    names = [name.encode() for name in query.LIST_PARAMETERS]
    cursors = [
        encode_cursor(Cursor(at, at + 4), asked, "default").encode()
        for at in (0, 1 << 62)
        for asked in _QUERIES
    ]
    return [
        Parser("moments", _moment, (ValueError,), moments, bytes_max=80),
        Parser("dates", _date, OURS, dates, bytes_max=80),
        Parser("dates of the command line", _date_of_command, (), [b"7d", b"12h", b"999999w", b"1m", *dates]),
        Parser("parameters", _parameters, OURS, queries, names),
        Parser("cursors", _cursor, OURS, cursors, bytes_max=80),
        Parser("views", _view, OURS, [*queries, b"chart=kind&user=a&user=b&order=desc"], names),
        Parser(
            "Accept",
            _accept,
            OURS,
            [
                b"text/csv, application/x-ndjson;q=0.5, */*; q=0.1",
                b"application/json",
                b"text/html;level=1;q=0",
            ],
        ),
        Parser(
            "Accept-Encoding",
            _accept_encoding,
            OURS,
            [b"gzip, zstd;q=0.9, identity;q=0", b"*", b"br\ngzip;Q=1.000", b"gzip, " * 400],
        ),
        Parser("bodies", _body, OURS, _packed(b'{"user": "ann"}'), bytes_max=400),
        Parser(
            "ULIDs", _ulid, (), [b"01JQ0000000000000000000000", b"7ZZZZZZZZZZZZZZZZZZZZZZZZZ"], bytes_max=60
        ),
        Parser(
            "places of the page",
            _place,
            (),
            [b"/events/01JQ?user=a%20b", b"//evil.example/", b"/\\evil", b"/"],
        ),
    ]


_QUERIES: Final = (Query(), Query(users=("ann",), order=Order.ASC))


def _moment(data: bytes) -> None:
    us = times.parse_rfc3339(text_of(data))
    must(times.parse_rfc3339(times.format_us(us)) == us, "what is written is not what was read")


def _date(data: bytes) -> None:
    first, last = parse_date(text_of(data), "min-date")
    must(first <= last, "it ends before it begins")
    times.format_us(first), times.format_us(last)


def _date_of_command(data: bytes) -> None:
    filters.date(text_of(data))


def _request(text: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Request:
    return Request(
        {"type": "http", "query_string": text, "headers": list(headers), "path": "/", "method": "GET"}
    )


def _parameters(data: bytes) -> None:
    given = parameters(_request(data))
    asked = parse_query(given, account="default", allowed=query.LIST_PARAMETERS, kinds=KINDS_KNOWN)
    again = decode_cursor(encode_cursor(Cursor(1, 2), asked, "default"), asked, "default")
    must(again == Cursor(1, 2), "its own cursor is another one")


def _cursor(data: bytes) -> None:
    text = text_of(data)
    for asked in _QUERIES:
        try:
            found = decode_cursor(text, asked, "default")
        except AuditplaneError:
            continue
        must(decode_cursor(encode_cursor(found, asked, "default"), asked, "default") == found, "it changed")
        return
    raise InvalidInput("no query has this cursor")


def _view(data: bytes) -> None:
    view = read_view(parameters(_request(data)), account="default", kinds=KINDS_KNOWN)
    turned = urlsplit(view.url("/")).query.encode()
    again = read_view(parameters(_request(turned)), account="default", kinds=KINDS_KNOWN)
    must(again.given == view.given, "the URL of the view shows another one")
    _ = view.chips, view.quick_ranges(0), view.turned, view.clear_url, view.charted("kind"), view.is_newest
    view.toggling(query.USER, "ann"), view.between(0, 1)


def _accept(data: bytes) -> None:
    headers = data.decode("latin-1").split("\n")
    negotiation.form(headers)
    must(
        negotiation.media_type(headers, ["text/html", "application/json", "*/x"]) != "", "nothing was chosen"
    )


def _accept_encoding(data: bytes) -> None:
    found = negotiation.encoding(data.decode("latin-1").split("\n"))
    must(found in (None, "gzip", "zstd"), "it is none that was offered")


def _packed(text: bytes) -> list[bytes]:
    """Bodies after a line that names their encoding."""
    zipped, packed = gzip.compress(text, mtime=0), zstandard.compress(text)
    stream = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(text * 9)
    bomb = gzip.compress(bytes(100_000), mtime=0)
    return [
        b"gzip\n" + zipped, b"x-gzip\n" + zipped * 3, b"zstd\n" + packed, b"ZSTD \n" + stream + packed,
        b"\n" + text, b"identity\n" + text, b"gzip\n" + bomb, b"br, gzip\n" + zipped,
        b"zstd\n\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + packed,
    ]  # fmt: skip


def _body(data: bytes) -> None:
    encoding, _, body = data.partition(b"\n")
    bodies.decode(body, encoding.decode("latin-1"))


def _ulid(data: bytes) -> None:
    text = text_of(data)
    if ulid.is_ulid(text):
        key = ulid.key_of(text)
        must(key is None or 0 <= key < 1 << 63, "it holds no key")


def _place(data: bytes) -> None:
    found = paths.local(data.decode("latin-1"))
    parts = urlsplit(found)
    must(found.startswith("/") and not (parts.netloc or parts.scheme), "it is of another server")
    paths.sign_in(found)
    shown = paths.shown(_request(b"", [(b"hx-current-url", data)]))
    must(not urlsplit(shown).netloc, "it is of another server")
    path, _, asked = data.partition(b"?")
    request = Request({**_request(asked).scope, "path": path.decode("utf-8", "replace")})
    must(not urlsplit(paths.asked(request)).netloc, "it is of another server")


# Events.

EVENT: Final[Mapping[str, Any]] = {
    "id": "01JQ0000000000000000000000",
    "timestamp": AT,
    "resourceName": "otlp",
    "description": "Modified Source otlp",
    "resourceKind": "Source",
    "configuration": "prod-gateway:7",
    "action": "Modified",
    "user": "ann@example.com",
    "account": "default",
    "details": {"password": "x", "before": {"a": [1, 2.50, None, "é\n"]}, "after": {"a": [1, 3e9, True]}},
}
LEAST: Final[Mapping[str, Any]] = {
    name: EVENT[name] for name in ("resourceName", "resourceKind", "action", "user")
}


def to_json(value: object) -> bytes:
    """JSON as most programs write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def _events() -> list[Parser]:
    single = [to_json(EVENT), to_json(LEAST), json.dumps({**EVENT, "user": "\u2028é😀"}).encode()]
    array = [b"[" + b", ".join(single) + b"]", b"\xef\xbb\xbf [" + single[1] + b"]", b"[]"]
    lines = [b"\n".join(single) + b"\n", b"\r\n\r\n".join(single[:2])]
    objects = [
        to_json(EVENT["details"]),
        b'{"a":{"b":{"c":[[[{"token":"x"}]]]}},"before":"x\\ny","after":[]}',
        b'{"a":[1.7976931348623157e308,-2E-99,9007199254740993.0,18446744073709551616]}',
    ]
    alike = (b'{"after":[1' + b",2,1" * 450 + b'],"before":[1', b",1", b"]}")
    members = [name.encode() for name in EVENT]
    secrets = [word.encode() for word in SECRET_WORDS]
    table = _table()
    return [
        Parser("events, JSON", _json_events, OURS, [*single, *array], members, bytes_max=900),
        Parser("events, NDJSON", _ndjson_events, OURS, lines, members, bytes_max=900),
        Parser("details", _details, OURS, objects, secrets, large_bytes=400, patterns=[alike]),
        Parser("files, CSV", _csv_file, OURS, [table, *_packed_files(table)], members, bytes_max=900),
        Parser("files, raw CSV", _raw_csv_file, OURS, [table], members, bytes_max=900),
        Parser(
            "files, NDJSON", _ndjson_file, OURS, [*lines, *_packed_files(lines[0])], members, bytes_max=900
        ),
        Parser("entries", _entry_line, OURS, _entry_lines(), members, bytes_max=900),
    ]


def _table() -> bytes:
    cells = [str(EVENT[name]) if name != "details" else '"{""a"":1}"' for name in EVENT]
    least = [str(LEAST.get(name, "")) for name in EVENT]
    quoted = [f'"{cell}\n"",x"' if name == "user" else cell for name, cell in zip(EVENT, least, strict=True)]
    rows = [list(EVENT), cells, least, quoted, ["" for _ in EVENT]]
    return "".join(",".join(row) + "\r\n" for row in rows).encode()


def _packed_files(text: bytes) -> list[bytes]:
    return [gzip.compress(text, mtime=0), gzip.compress(text, mtime=0) * 2, zstandard.compress(text)]


def _json_events(data: bytes) -> None:
    _check_batch(parse(data, RULES).events)


def _ndjson_events(data: bytes) -> None:
    _check_batch(parse(data, RULES, lines=True).events)


def _check_batch(events: Sequence[Any]) -> None:
    """What was taken is taken again as it is stored."""
    docs = encode_docs(events)
    must(len(docs) == len(events), "a doc has a line feed")
    again = encode_docs(parse(b"[" + b",".join(docs) + b"]", RULES).events)
    must(again == docs == encode_docs(decode_docs(docs)), "what is stored is not what was read")


def _details(data: bytes) -> None:
    raw = bytes(clean_details(data, SECRET_WORDS))
    if raw:
        must(bytes(clean_details(raw, SECRET_WORDS)) == raw, "what is stored is not what was read")
        msgspec.json.decode(raw)
        details.tree(raw)
        details.comparison(raw)


def _csv_file(data: bytes) -> None:
    _read_file(data, "csv", guarded=True)


def _raw_csv_file(data: bytes) -> None:
    _read_file(data, "csv", guarded=False)


def _ndjson_file(data: bytes) -> None:
    _read_file(data, "ndjson", guarded=False)


def _read_file(data: bytes, form: import_file.Form, *, guarded: bool) -> None:
    file = import_file.unpacked(io.BufferedReader(io.BytesIO(data)))
    for line in import_file.read(file, form, "trail", guarded=guarded):
        msgspec.json.decode(line.event, type=dict[str, msgspec.Raw])


def _entry_lines() -> list[bytes]:
    stamp = f'{{"at":"{AT}","by":"01JQ","salt":"AAAAAAAAAAAAAAAAAAAAAA=="}}'
    purge = {
        **LEAST,
        "resourceKind": "AuditTrail",
        "action": "Deleted",
        "details": {"purgedBefore": 7, "erased": [1, 2]},
    }
    docs = [encode_docs(parse(to_json(each), RULES).events)[0].decode() for each in (EVENT, LEAST, purge)]
    stamps = [stamp, stamp, stamp.replace("01JQ", "auditplane")]
    lines = [
        f'{{"index":{at},"event":{doc},"stamp":{stamp}}}'
        for at, (doc, stamp) in enumerate(zip(docs, stamps, strict=True))
    ]
    return [lines[0].encode(), lines[2].replace('"index":2', '"index":0').encode(), "\n".join(lines).encode()]


def _entry_line(data: bytes) -> None:
    """Lines as a server shows them, with the entries that fit."""
    shown = [parse_entry_line(line) for line in data.split(b"\n")]
    reading = Reading()
    reading.take(b"".join(merkle.entry(each.doc, each.stamp) for each in shown), shown)
    reading.unexplained()
    decode_reading(reading.encode())


# Notes, keys, proofs, tiles.


def _proofs() -> list[Parser]:
    entries = [merkle.entry(b"doc", bytes([at])) for at in range(5)]
    packed = merkle.leaf_hashes(b"".join(entries))
    frontier = tiles.Frontier()
    frontier.append(packed)
    nodes = tiles.tile_nodes(lambda _tile: packed, 5)
    note = sign_checkpoint(Checkpoint(SIGNER.name, 5, frontier.root()), [SIGNER])
    proof = Proof(3, tuple(merkle.inclusion_path(3, 5, nodes)), note)
    path = merkle.consistency_path(3, 5, nodes)
    reading = Reading()
    reading.take(b"".join(entries), None)
    reading_text = b"%s" % msgspec.json.decode(reading.encode(), type=dict[str, msgspec.Raw])["reading"]
    checkpoints = [
        note_text(note).encode(),
        f"{SIGNER.name}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nx y\n".encode(),
    ]
    endorsement = sign_endorsement(SIGNER, NEXT.verifier)
    keys = [str(SIGNER.verifier).encode(), str(NEXT.verifier).encode()]
    secrets = [SIGNER.secret.encode(), b"PRIVATE+KEY+" + keys[0]]
    proofs = [format_proof(proof), format_proof(Proof(0, (), note, b"extra"))]
    bundle = tiles.entry_bundle(b"".join(entries))
    return [
        Parser("notes", _note, OURS, [note, endorsement, sign_note("text\n", [SIGNER, NEXT])]),
        Parser("checkpoints", _checkpoint, OURS, [*checkpoints, note_text(endorsement).encode()]),
        Parser("verifier keys", _verifier_key, OURS, keys, bytes_max=200),
        Parser("signer keys", _signer_key, OURS, secrets, bytes_max=200),
        Parser("checkpoints, twice", _checkpoint_twice, OURS, checkpoints, share=0.02),
        Parser("proofs", _proof, OURS, proofs, bytes_max=900),
        Parser("merkle proofs", _merkle, OURS, _merkle_examples(packed, path, frontier.root())),
        Parser(
            "tile paths", _tile_path, (), [b"tile/0/x001/x234/067.p/112", b"tile/entries/000", b"tile/63/255"]
        ),
        Parser("bundles", _bundle, OURS, [b"5\n" + bundle, b"0\n"]),
        Parser(
            "remembered readings",
            _reading,
            OURS,
            [reading_text, msgspec.json.encode({"version": 1})],
            bytes_max=900,
        ),
    ]


def _merkle_examples(packed: bytes, path: Sequence[bytes], root: bytes) -> list[bytes]:
    roots = merkle.root(3, tiles.tile_nodes(lambda _tile: packed[:96], 3)) + root
    leaf = packed[:32]
    nodes = tiles.tile_nodes(lambda _tile: packed, 5)
    inclusion = b"".join(merkle.inclusion_path(0, 5, nodes))
    return [
        b"3 5\n" + b"".join(path) + roots,
        b"0 5\n" + inclusion + leaf + root,
        b"0 0\n" + merkle.EMPTY_ROOT * 2,
        b"5 5\n" + root * 2,
    ]


def _note(data: bytes) -> None:
    note_text(data)
    open_note(data, [SIGNER.verifier])


def _checkpoint(data: bytes) -> None:
    """A text that the log has signed, whatever it says."""
    note = sign_note(text_of(data), [SIGNER])
    one_of(
        lambda: open_checkpoint(note, SIGNER.name, [SIGNER.verifier]),
        lambda: open_endorsement(note, SIGNER.verifier),
        lambda: parse_checkpoint(text_of(data)),
    )


def _checkpoint_twice(data: bytes) -> None:
    """The same, with the program of the evidence, which reads by itself."""
    note = sign_note(text_of(data), [SIGNER])
    try:
        verify.open_checkpoint(note, verify.parse_key(str(SIGNER.verifier)))
    except verify.Wrong:
        theirs = False
    else:
        theirs = True
    try:
        open_checkpoint(note, SIGNER.name, [SIGNER.verifier])
    except ProofError:
        must(not theirs, "only the program of the evidence takes it")
        raise
    must(theirs, "the program of the evidence does not take it")


def _verifier_key(data: bytes) -> None:
    text = text_of(data)
    try:
        theirs = verify.parse_key(text).text
    except verify.Wrong:
        theirs = None
    try:
        key = parse_verifier_key(text)
    except ProofError:
        must(theirs is None, "only the program of the evidence takes it")
        raise
    must(str(key) == text == theirs, "it is written in two ways")


def _signer_key(data: bytes) -> None:
    text = text_of(data)
    key = parse_signer_key(text)
    must(key.secret == text, "it is written in two ways")
    sign_note("text\n", [key])


def _proof(data: bytes) -> None:
    proof = parse_proof(data)
    must(format_proof(proof) == data, "it is written in two ways")
    verify_proof(proof, merkle.leaf_hash(merkle.entry(b"doc", b"\3")), SIGNER.name, [SIGNER.verifier])


def _merkle(data: bytes) -> None:
    """Two sizes, and hashes, the last two of which are the roots; as the client gives them on."""
    head, _, hashes = data.partition(b"\n")
    numbers = [int(number) for number in re.findall(rb"-?[0-9]{1,18}", head)]
    old, new = (*numbers, 0, 0)[:2]
    path = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    roots = (*path[-2:], b"", b"")[:2]
    one_of(
        lambda: merkle.verify_consistency(old, new, path[:-2], *roots),
        lambda: merkle.verify_inclusion(old, new, roots[0], path[:-2], roots[1]),
        lambda: merkle.verify_range(old, b"".join(path[:2]), new, path[2:-1], roots[1]),
    )


def _tile_path(data: bytes) -> None:
    tile = tiles.parse_tile_path(text_of(data))
    if tile is not None:
        must(tiles.tile_path(*tile) == text_of(data), "it is written in two ways")
        must(0 < tile.width <= 256 and -1 <= tile.level <= 63, "there is no such tile")


def _bundle(data: bytes) -> None:
    width, _, bundle = data.partition(b"\n")
    if width.isdigit() and len(width) < 9:
        tiles.parse_entry_bundle(bundle, int(width))


def _reading(data: bytes) -> None:
    """What is remembered of a log, with the right digest and without."""
    for text in (b'{"sha256":"%s","reading":%s}' % (sha256(data).hexdigest().encode(), data), data):
        try:
            reading = decode_reading(text)
        except ProofError:
            continue
        reading.take(bytes(64), None)
        return
    raise ProofError("It is none.")


# Files: settings, profiles, keys, backups, evidence.


def _files(folder: Path) -> list[Parser]:
    toml = [
        b'port = 3001\nworkers = 2\nhost = "::1"\ndata = "~/data"\n[kinds]\nextra = ["Playbook"]\n',
        b"[audit_trail]\nretention_days = 365\nrecord_reads = false\n[limits]\nstall_seconds = 9",
        b'[details]\nsecret_words = "pin, cvv"\n[log]\nname = "prod"\npublic = true\nkey = "/k"\n',
        b'[tls]\ncert = "c.pem"\nkey = "k.pem"\n',
    ]
    variables = [config.variable(name).encode() for name in config.SETTINGS]
    environment = [
        b"\n".join(name + b"=" + value for name in variables[at::4])
        for at in range(4)
        for value in (b"1", b"a,b")
    ]
    names = [name.encode() for name in config.SETTINGS]
    profile = {"url": "http://127.0.0.1:3001", "apiKey": "ap_x", "caCert": "/c.pem"}
    profiles = [
        to_json({"current": "work", "profiles": {"work": profile, "here": {**profile, "caCert": ""}}})
    ]
    change = {
        "id": "01JQ", "at": 1, "user": "ann", "reason": "old", "why": "replaced",
        "old": str(SIGNER.verifier), "new": NEXT.secret,
    }  # fmt: skip
    retired = f"# Keys\n{SIGNER.verifier} - {AT} replaced\n{NEXT.verifier} {AT} {AT} leaked\n".encode()
    accounts = folder / "accounts"
    accounts.mkdir()
    checked = msgspec.json.encode(verified.Verified(1, 2, True, 0))
    return [
        Parser("settings, TOML", _in_file(folder / "settings.toml", _settings), OURS, toml, names),
        Parser("settings, environment", _environment, OURS, environment, variables),
        Parser("settings, flags", _flags, OURS, [b"\n".join([b"1"] * len(names)), b"\n".join(names)]),
        Parser("profiles", _in_file(folder / "profiles.json", _profiles), OURS, profiles),
        Parser(
            "log keys",
            _in_file(folder / "log.key", _log_key),
            OURS,
            [NEXT.secret.encode(), retired, to_json(change)],
        ),
        Parser(
            "verifier key files",
            _in_file(folder / "key", _key_file),
            OURS,
            [str(SIGNER.verifier).encode(), retired],
        ),
        Parser("backups", _in_file(folder / backup.MANIFEST, _backup), OURS, [_manifest()]),
        Parser("checks that were kept", _in_file(accounts / "default.verified", _check), (), [checked]),
        Parser(
            "command lines", _command_line, (CycloptsError,), _command_lines(), share=0.01, large_bytes=200
        ),
        Parser(
            "evidence manifests", _evidence_manifest, (verify.Wrong,), _evidence_manifests(), bytes_max=2_000
        ),
    ]


def _in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Has a file hold the input, and something read it."""

    def feed(data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        read(path)

    return feed


def _settings(path: Path) -> None:
    config.load({}, {}, str(path))


def _environment(data: bytes) -> None:
    pairs = (line.partition("=") for line in text_of(data).replace("\0", "").split("\n"))
    config.load({}, {name: value for name, _, value in pairs})


def _flags(data: bytes) -> None:
    """Each setting with a line of its own as a flag."""
    given = list(zip(config.SETTINGS.items(), text_of(data).replace("\0", "").split("\n"), strict=False))
    for (_, setting), value in given:
        with suppress(AuditplaneError):
            setting.read(value)
    config.load({name: value or None for (name, _), value in given}, {})


def _profiles(path: Path) -> None:
    found = Profiles.read({"AUDITPLANE_PROFILES": str(path)})
    found.find(None)
    found.find("work")


def _log_key(path: Path) -> None:
    """The key that signs, those that sign no more, and one that is to sign."""
    for name in (signing.RETIRED_FILE, rotation.NEXT_FILE):
        (path.parent / name).write_bytes(path.read_bytes())
    one_of(
        lambda: signing.log_key(path.parent, None, None),
        lambda: signing.retired_keys(path.parent),
        lambda: begun_change(path.parent),
    )


def _key_file(path: Path) -> None:
    verifier_keys.verifier_keys(str(path))


def _manifest() -> bytes:
    server = VerifierKey("auditplane/test", SIGNER.verifier.public)
    key = str(signing.verifier_for(server, "default"))
    account = backup.Account("default", 0, merkle.EMPTY_ROOT, SIGNER.name, key)
    files = {name: backup.File(1, "0" * 64) for name in ("control.db", "accounts/default.db")}
    return msgspec.json.encode(backup.Manifest(1, "1.0", AT, str(server), False, [account], files))


def _check(path: Path) -> None:
    """What is no check counts as none."""
    verified.last_verified(path.parents[1], "default")


def _command_lines() -> list[bytes]:
    """Commands, an argument a line."""
    lines = [
        "get audit-events --user ann --min-date 7d -o json", "count --kind Source -q x", "tail -f -n 20",
        "download --raw -o f.csv --order asc", "record --user a --action b --kind Source --name c",
        "import --format csv f", "keys create --role reader --expires 90d --envelope", "keys revoke X",
        "serve --data d --port 3001 --workers 2 --host ::1", "retention set --days 400",
        "hold place --reason x", "erase --user ann --reason x --yes", "log rotate --leaked",
        "verify --url http://x --key k --follow",
        "profile set work --url http://x", "backup d --data e", "completion bash", "version", "--help",
    ]  # fmt: skip
    return [line.replace(" ", "\n").encode() for line in lines]


def _command_line(data: bytes) -> None:
    """A command line as far as it is understood; nothing is run."""
    app.parse_args(text_of(data).split("\n"), exit_on_error=False, print_error=False)


def _backup(path: Path) -> None:
    backup.read_manifest(path.parent)


def _evidence_manifest(data: bytes) -> None:
    verify.matcher(verify.read_manifest(data))


def _evidence_manifests() -> list[bytes]:
    manifest = {
        "format": verify.FORMAT, "origin": SIGNER.name, "account": "default",
        "filters": {"user": ["ann"], "min-date": ["20260101"], "q": ["two words"]},
        "dates": {"from": AT, "to": None}, "made": AT, "by": {"key": "01JQ", "description": "ann's"},
        "events": {"count": 1, "first": 0, "last": 0, "complete": True}, "size": 5,
        "files": dict.fromkeys(verify.FILES, "0" * 64),
    }  # fmt: skip
    return [(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()]


# Keys, accounts, addresses.


def _keys(stack: ExitStack, folder: Path) -> list[Parser]:
    data = DataFolder(folder / "data")
    stack.callback(data.close)
    access = Access(data, log.clock)
    stack.callback(access.close)
    key, secret = access.create(account="default", role=Role.ADMIN, by="test")
    token, _ = access.open_session(secret)

    def authenticate(given: bytes) -> None:
        text = given.decode("latin-1")
        attempts.sources(text, text)
        found = access.authenticate(text)
        must(is_well_formed(text) and text == secret and found.id == key.id, "it is not the key")

    def session(given: bytes) -> None:
        text = given.decode("utf-8", "surrogatepass") if given.isascii() else given.decode("latin-1")
        must(access.session(text).is_own(text) is False and text == token, "it is not the token")

    def account(given: bytes) -> None:
        text = text_of(given)
        if data.has_log(text):
            must(text == "default", "there is no such account")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
            with data.account(text):
                must(False, "it is no name")

    addresses = [b"127.0.0.1", b"::1", b"fe80::1%eth0", b"::ffff:10.0.0.1"]
    return [
        Parser(
            "API keys",
            authenticate,
            OURS,
            [secret.encode(), f"ap_{'0' * 49}".encode(), *addresses],
            bytes_max=120,
        ),
        Parser("sessions", session, OURS, [token.encode()], bytes_max=120),
        Parser(
            "account names", account, OURS, [b"default", b"acme-2", b"../default", b"a" * 63], bytes_max=120
        ),
    ]
