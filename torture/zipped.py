"""Files of evidence: bytes of one changed, or what it holds, zipped as if nothing had happened."""

import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from auditplane import log
from auditplane.checkpoint import SignerKey
from auditplane.event import Rules, parse
from auditplane.evidence import Asked, Evidence, verify
from auditplane.query import Query
from auditplane.store.sqlite.account import AccountStore
from torture.inputs import Parser

SIGNER: Final = SignerKey("auditplane/test/default", bytes(range(32)))
SPLIT: Final = b"\n--- "
EVENTS: Final = [
    {
        "user": "ann",
        "action": "Modified",
        "resourceKind": "Source",
        "resourceName": "otlp",
        "details": {"a": 1},
    },
    {
        "user": "=bob",
        "action": "Deleted",
        "resourceKind": "Fleet",
        "resourceName": 'a "b", c',
        "configuration": "x:1",
    },
]


def parsers(folder: Path) -> list[Parser]:
    """What checks evidence."""
    file = folder / "evidence.zip"
    whole = _evidence(folder / "evidence.db")

    def check(data: bytes) -> None:
        file.write_bytes(data)
        report = verify.check(str(file), str(SIGNER.verifier))
        report.lines()
        if report.wrong:
            raise verify.Wrong(report.wrong[0])

    def check_members(data: bytes) -> None:
        check(_zipped(data))

    names = [name.encode() for name in verify.MEMBERS]
    return [
        Parser("evidence, zips", check, (verify.Wrong,), [whole], bytes_max=40_000, share=0.01),
        Parser(
            "evidence, members", check_members, (verify.Wrong,), [_members(whole)], names, 40_000, share=0.01
        ),
    ]


def _evidence(path: Path) -> bytes:
    """The evidence of a small log."""
    store = AccountStore(path)
    try:
        batch = parse(json.dumps(EVENTS).encode(), Rules())
        (result,) = log.record(store, [log.Request(batch, "key")], log.clock)
        if isinstance(result, Exception):
            raise result
        asked = Asked(
            "default", "key", "ann's", Query(users=("ann", "=bob")), [("user", "ann"), ("user", "=bob")]
        )
        return b"".join(part for step in Evidence(store, asked, SIGNER, log.clock) for part in step)
    finally:
        store.close()


def _members(whole: bytes) -> bytes:
    """The members of a zip, each after a line with its name; without the program, which is long."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        names = [name for name in archive.namelist() if name != verify.PROGRAM]
        return b"".join(SPLIT + name.encode() + b"\n" + archive.read(name) for name in names)


def _zipped(data: bytes) -> bytes:
    """A zip of such members, the manifest of which has their digests."""
    members = {}
    for part in data.split(SPLIT)[1:]:
        name, _, text = part.partition(b"\n")
        members[name.decode("latin-1")[:100]] = text
    members[verify.PROGRAM] = b""
    digests = {name: sha256(text).hexdigest() for name, text in members.items() if name in verify.FILES}
    manifest = members.get(verify.MANIFEST, b"")
    try:
        found = json.loads(manifest)
        if isinstance(found.get("files"), dict):
            found["files"].update(digests)
            members[verify.MANIFEST] = (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, AttributeError, RecursionError):
        pass  # it stays as it is
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return made.getvalue()
