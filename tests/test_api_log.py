"""The log over real HTTP: what an outsider needs fits together, and is shown to no one else."""

import base64
import gzip
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from auditplane import merkle
from auditplane.checkpoint import (
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    parse_proof,
    parse_verifier_key,
    verify_proof,
)
from auditplane.tiles import parse_entry_bundle, tile_path, tiles_of
from auditplane.verifying import parse_entry_line
from server import Server, make_key, run, start

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Answer = tuple[int, Mapping[str, str], bytes]


def ask(server: Server, path: str, key: str | None, body: Any = None, **headers: str) -> Answer:
    """One request; any status is an answer."""
    if key:
        headers["X-Bindplane-Api-Key"] = key
    data = None if body is None else json.dumps(body).encode()
    if data:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(f"{server.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, _lower(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, _lower(error.headers), error.read()


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def got(server: Server, path: str, key: str | None, **headers: str) -> bytes:
    status, _, body = ask(server, path, key, **headers)
    assert status == 200, body
    return body


def recorded(server: Server, key: str, count: int) -> list[str]:
    events = [
        {"user": "ann", "action": "Modified", "resourceKind": "Agent", "resourceName": f"host-{at}"}
        for at in range(count)
    ]
    status, _, body = ask(server, "/v1/audit-events", key, events)
    assert status == 201, body
    ids: list[str] = json.loads(body)["ids"]
    return ids


def verifier(server: Server, account: str, key: str | None) -> VerifierKey:
    return parse_verifier_key(got(server, f"/v1/log/{account}/key", key).decode().strip())


def checkpoint(server: Server, account: str, key: str | None) -> Checkpoint:
    vkey = verifier(server, account, key)
    return open_checkpoint(got(server, f"/v1/log/{account}/checkpoint", key), vkey.name, [vkey])


def test_an_outsider_finds_the_tree_in_the_tiles(server: Server) -> None:
    """Entries and tiles, put together, give the root that is signed; events lead to their entries."""
    _, key = make_key(server.data, "admin", "tiles")
    ids = recorded(server, key, 600)
    proven = json.loads(got(server, f"/v1/audit-events/{ids[-1]}/proof", key))
    signed = checkpoint(server, "tiles", key)
    assert signed.size == proven["size"] >= 600
    packed = b""
    for tile in tiles_of(signed.size):
        path = f"/v1/log/tiles/{tile_path(*tile)}"
        status, headers, hashes = ask(server, path, key)
        assert status == 200
        assert {name.lower(): value for name, value in headers.items()}[
            "cache-control"
        ] == "private, max-age=31536000, immutable"
        if tile.level == 0:
            bundle = got(server, f"/v1/log/tiles/{tile_path(-1, tile.n, tile.width)}", key)
            entries = parse_entry_bundle(bundle, tile.width)
            assert merkle.leaf_hashes(entries) == hashes
            packed += entries
    merkle.verify_range(0, merkle.leaf_hashes(packed), signed.size, [], signed.root)
    entry = sha256(proven["doc"].encode() + b"\n" + proven["stamp"].encode()).digest()
    assert packed[proven["index"] * 32 :][:32] == entry
    assert json.loads(proven["doc"])["id"] == ids[-1]
    assert json.loads(proven["doc"]) == json.loads(got(server, f"/v1/audit-events/{ids[-1]}", key))


def test_a_proof_is_verified_with_the_key_alone(server: Server) -> None:
    _, key = make_key(server.data, "admin", "proofs")
    ids = recorded(server, key, 70)
    vkey = verifier(server, "proofs", key)
    for event_id in (ids[0], ids[41], ids[-1]):
        proven = json.loads(got(server, f"/v1/audit-events/{event_id}/proof", key))
        text = got(server, f"/v1/audit-events/{event_id}/proof", key, Accept="text/plain")
        leaf = merkle.leaf_hash(merkle.entry(proven["doc"].encode(), proven["stamp"].encode()))
        signed = verify_proof(parse_proof(text), leaf, vkey.name, [vkey])
        path = [base64.b64decode(each) for each in proven["path"]]
        merkle.verify_inclusion(proven["index"], signed.size, leaf, path, signed.root)
        assert base64.b64decode(proven["root"]) == signed.root
        assert open_checkpoint(proven["checkpoint"].encode(), vkey.name, [vkey]) == signed


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("text/html", None),
    ],
)
def test_a_proof_comes_as_it_is_accepted(server: Server, accept: str, media: str | None) -> None:
    _, key = make_key(server.data, "admin", "proofs")
    (event_id,) = recorded(server, key, 1)
    status, headers, _ = ask(server, f"/v1/audit-events/{event_id}/proof", key, Accept=accept)
    assert status == (406 if media is None else 200)
    if media is not None:
        assert headers["content-type"].startswith(media)


def test_an_older_checkpoint_is_the_beginning_of_a_newer_one(tmp_path: Path) -> None:
    """Also with a start, and with two workers, between them."""
    data = tmp_path / "data"
    signed = []
    for workers in ("1", "2"):
        with start(data, "--workers", workers) as server:
            for _ in range(3):
                ids = recorded(server, server.admin_key, 50)
                got(server, f"/v1/audit-events/{ids[-1]}/proof", server.admin_key)
                signed.append(checkpoint(server, "default", server.admin_key))
    assert [each.size for each in signed] == sorted({each.size for each in signed})
    with start(data) as server:
        for old in signed:
            path = f"/v1/log/default/consistency?from={old.size}&to={signed[-1].size}"
            hashes = json.loads(got(server, path, server.admin_key))["path"]
            proof = [base64.b64decode(each) for each in hashes]
            merkle.verify_consistency(old.size, signed[-1].size, proof, old.root, signed[-1].root)


@pytest.mark.parametrize("role", ["reader", "writer", "admin"])
def test_any_key_of_the_account_and_no_other_sees_the_log(server: Server, role: str) -> None:
    _, key = make_key(server.data, role, "own")
    paths = ["key", "checkpoint", "tile/entries/000.p/1", "tile/0/000.p/1", "consistency?from=0&to=1"]
    for path in paths:
        assert ask(server, f"/v1/log/own/{path}", key)[0] == 200
        assert ask(server, f"/v1/log/default/{path}", key)[0] == 404
        assert ask(server, f"/v1/log/nobody/{path}", key)[0] == 404
        assert ask(server, f"/v1/log/own/{path}", None)[0] == 401
        assert ask(server, f"/v1/log/own/{path}", "ap_wrong")[0] == 401


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_events_come_with_what_their_commitments_are_made_of(server: Server, encoding: str) -> None:
    """A line for each index, in the order of their recording, whatever their timestamps; cut as asked for."""
    _, key = make_key(server.data, "admin", f"lines-{encoding}")
    old = {"user": "ann", "action": "Modified", "resourceKind": "Agent", "resourceName": "old"}
    recorded(server, key, 300)
    assert ask(server, "/v1/audit-events", key, [{**old, "timestamp": "2001-01-01T00:00:00Z"}])[0] == 201
    path = f"/v1/log/lines-{encoding}"
    size = checkpoint_of(server, f"lines-{encoding}", key, 302).size

    def lines(parameters: str = "") -> list[bytes]:
        status, headers, body = ask(
            server, f"{path}/events{parameters}", key, **{"Accept-Encoding": encoding}
        )
        assert (status, headers["auditplane-log-size"]) == (200, str(size))
        assert headers["content-type"] == "application/x-ndjson"
        assert headers["cache-control"] == "no-store"
        return decoded(body, headers.get("content-encoding")).splitlines()

    shown = list(map(parse_entry_line, lines()))
    entries = b"".join(
        parse_entry_bundle(got(server, f"{path}/{tile_path(-1, tile.n, tile.width)}", key), tile.width)
        for tile in tiles_of(size)
        if tile.level == 0
    )
    assert [event.index for event in shown] == list(range(size))
    assert b"".join(merkle.entry(event.doc, event.stamp) for event in shown) == entries
    assert json.loads(shown[-1].doc)["resourceName"] == "old"
    docs = got(server, "/v1/audit-events?order=recorded", key, Accept="application/x-ndjson").splitlines()
    assert [event.doc for event in shown] == docs
    for first, end in ((0, 1), (255, 257), (301, 302), (5, 5), (302, 302)):
        assert lines(f"?from={first}&to={end}") == lines()[first:end]
    assert lines("?from=299") == lines()[299:]
    assert lines("?to=3") == lines()[:3]


def decoded(body: bytes, encoding: str | None) -> bytes:
    match encoding:
        case "gzip":
            return gzip.decompress(body)
        case "zstd":
            return zstd.decompress(body)
    return body


def checkpoint_of(server: Server, account: str, key: str, size: int) -> Checkpoint:
    """The checkpoint of a log once it has this size."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        signed = checkpoint(server, account, key)
        if signed.size == size:
            return signed
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of {size} entries")


def test_events_of_a_log_are_for_who_may_read_it(server: Server) -> None:
    """No writer, no other account, nobody without a key; HEAD tells no more than the size."""
    _, reader = make_key(server.data, "reader", "own")
    _, writer = make_key(server.data, "writer", "own")
    _, other = make_key(server.data, "admin", "others")
    path = "/v1/log/own/events"
    assert ask(server, path, reader)[0] == 200
    assert ask(server, path, writer)[0] == 403
    assert ask(server, path, other)[0] == 404
    assert ask(server, path, None)[0] == 401
    assert ask(server, path, "ap_wrong")[0] == 401
    assert ask(server, "/v1/log/nobody/events", reader)[0] == 404
    request = urllib.request.Request(
        f"{server.url}{path}", method="HEAD", headers={"X-Bindplane-Api-Key": reader}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert int(answer.headers["Auditplane-Log-Size"]) >= 2
        assert answer.read() == b""


def test_a_writer_proves_nothing_of_events(server: Server) -> None:
    _, key = make_key(server.data, "writer", "writers")
    (event_id,) = recorded(server, key, 1)
    assert ask(server, f"/v1/audit-events/{event_id}/proof", key)[0] == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("checkpoint?x=1", 400),
        ("key?x=1", 400),
        ("consistency", 400),
        ("consistency?from=1", 400),
        ("consistency?from=1&to=1&to=1", 400),
        ("consistency?from=-1&to=1", 400),
        ("consistency?from=1&to=x", 400),
        ("consistency?from=2&to=1", 404),
        ("consistency?from=1&to=999999999", 404),
        ("events?x=1", 400),
        ("events?from=1&from=1", 400),
        ("events?from=1&limit=1", 400),
        ("events?from=-1", 400),
        ("events?from=", 400),
        ("events?from=x", 400),
        ("events?to=1.0", 400),
        ("events?from=1&to=0", 404),
        ("events?to=999999999", 404),
        ("events?from=999999999", 404),
        ("events/", 404),
        ("tile/0/999", 404),
        ("tile/0/0", 404),
        ("tile/0/000.p/0", 404),
        ("tile/0/000.p/257", 404),
        ("tile/64/000", 404),
        ("tile/entries/000.p/256", 404),
        ("tile/../checkpoint", 404),
        ("tile/", 404),
        ("tile", 404),
        ("", 404),
    ],
)
def test_what_is_not_there_or_not_understood(server: Server, path: str, status: int) -> None:
    answer, _, body = ask(server, f"/v1/log/default/{path}", server.admin_key)
    assert answer == status
    assert json.loads(body)["errors"]


def test_a_public_log_is_for_everybody_and_its_events_are_not(tmp_path: Path) -> None:
    with start(tmp_path / "data", env={"AUDITPLANE_LOG_PUBLIC": "true"}) as server:
        (event_id,) = recorded(server, server.admin_key, 1)
        assert checkpoint(server, "default", None).size >= 1
        _, headers, _ = ask(server, "/v1/log/default/tile/entries/000.p/1", None)
        assert {name.lower(): value for name, value in headers.items()}[
            "cache-control"
        ] == "public, max-age=31536000, immutable"
        assert ask(server, "/v1/log/nobody/checkpoint", None)[0] == 404
        assert ask(server, "/v1/log/..%2fdefault/checkpoint", None)[0] == 404
        assert not (server.data / "accounts" / "nobody.db").exists()
        assert ask(server, f"/v1/audit-events/{event_id}/proof", None)[0] == 401
        assert ask(server, "/v1/log/default/events", None)[0] == 401
        _, other = make_key(server.data, "reader", "other")
        assert ask(server, "/v1/log/default/events", other)[0] == 404


def test_the_key_stays_and_so_does_the_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start(data, env={"AUDITPLANE_LOG_NAME": "prod.example"}) as server:
        first = verifier(server, "default", server.admin_key)
        assert first.name == "auditplane/prod.example/default"
    path = data / "log.key"
    assert path.stat().st_mode & 0o777 == 0o600
    printed = run("log", "key", "--data", data)
    assert printed.stdout.strip() == str(first)
    with start(data) as server:
        assert verifier(server, "default", server.admin_key) == first
    kept = path.rename(data / "elsewhere.key")
    missing = run("log", "key", "--data", data)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "log.key" in missing.stderr
    assert not path.exists()
    kept.rename(path)
    other = run("serve", "--data", data, env={"AUDITPLANE_LOG_NAME": "other"})
    assert other.returncode == 2
    assert "prod.example" in other.stderr
    secret = path.read_text().strip()
    path.write_text("nonsense\n")
    broken = run("serve", "--data", data)
    assert broken.returncode == 2
    assert "log.key" in broken.stderr
    assert secret not in broken.stderr
