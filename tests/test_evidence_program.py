"""The program that checks evidence, beside the code of Auditplane that it must agree with.

It imports nothing of Auditplane, so that each thing it does itself is compared here with what is done there.
"""

import ast
import json
import subprocess
import sys
import unicodedata
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rfc6962
from auditplane import merkle, unicode14
from auditplane.checkpoint import (
    Checkpoint,
    SignerKey,
    open_checkpoint,
    parse_verifier_key,
    sign_checkpoint,
    sign_note,
)
from auditplane.errors import InvalidQuery, ProofError
from auditplane.event import KINDS, decode_docs, encode_docs
from auditplane.evidence import verify
from auditplane.query import FILTERS, fold, parse_query, words_of
from auditplane.render import CSV_HEADER, csv_lines
from auditplane.times import format_us
from pythons import other_pythons, run_python
from strategies import AWKWARD, Json, docs, events, recorded, texts

SOURCE = Path(verify.__file__)
RANGES = Path(__file__).parents[1] / "scripts/unicode-ranges"
SIGNER = SignerKey("auditplane/test/default", bytes(range(32)))
VERIFIER = str(SIGNER.verifier)
TREE = rfc6962.Tree([sha256(b"%d" % index).digest() for index in range(200)])


# What it is written in.


def test_it_imports_nothing_but_the_standard_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_it_is_written_in_the_oldest_python_it_is_for() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    assert "Python 3.9" in (verify.__doc__ or "")


# Tables.


def awkward_docs() -> list[bytes]:
    """Every awkward character at the beginning, inside and at the end of every text."""
    shown = [form.replace("?", char) for char in AWKWARD for form in ("?", "?a", "a?b", "a?")]
    plain: Json = {"resourceName": "otlp", "resourceKind": "Source", "action": "Modified", "user": "anna"}
    names = ("resourceName", "description", "configuration", "action", "user")
    given: list[Json] = [plain | {name: text} for name in names for text in [*shown, '"","details":{', "\\"]]
    given += [plain | {"details": {'","details":{"x': '"a"\r\n,'}}, plain | {"details": {}}]
    return encode_docs(recorded([one for one in given if all(char >= " " for char in str(one))]))


@given(docs)
@example(awkward_docs())
def test_a_table_is_what_the_server_makes(docs: list[bytes]) -> None:
    for doc, event in zip(docs, decode_docs(docs), strict=True):
        assert verify.csv_line(verify.cells(doc)) == csv_lines([event], guard=True)[0]
    assert CSV_HEADER == verify.CSV_HEADER


@pytest.mark.parametrize("member", ["resourceKind", "description", "user"])
@pytest.mark.parametrize("text", ["=a", "\r", "\n\n", "'", "\t,", '@"'])
def test_a_member_that_could_not_be_recorded_is_guarded_too(member: str, text: str) -> None:
    (doc,) = encode_docs(
        recorded([{"resourceName": "x", "resourceKind": "Source", "action": "y", "user": "z"}])
    )
    odd = json.dumps(json.loads(doc) | {member: text}).encode()
    assert verify.csv_line(verify.cells(odd)) == csv_lines(decode_docs([odd]), guard=True)[0]


# Trees.


@given(st.integers(0, 1 << 63), st.integers(0, 1 << 63))
def test_a_gap_has_the_nodes_of_the_server(one: int, other: int) -> None:
    first, end = sorted((one, other))
    assert list(verify.cover_levels(first, end)) == [level for level, _ in merkle.cover(first, end)]


@given(st.data())
def test_events_and_gaps_lead_to_the_root(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(TREE.leaves)))
    cuts = sorted({0, size, *data.draw(st.sets(st.integers(0, size), max_size=10))})
    made = verify.Tree()
    for number, (first, end) in enumerate(pairwise(cuts)):
        levels = verify.cover_levels(first, end) if number % 2 else iter([0] * (end - first))
        for level in levels:
            made.add(level, TREE.node(level, made.at >> level))
    assert made.at == size
    assert made.root() == TREE.root(size)


# Signatures.

# RFC 8032, section 7.1: public key, message, signature.
RFC_VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
            "454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
            "3dca179c138ac17ad9bef1177331a704"
        ),
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), RFC_VECTORS)
def test_the_signatures_of_the_standard_hold(public: str, message: str, signature: str) -> None:
    given = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert verify.is_signed(*given)
    assert not verify.is_signed(given[0], given[1] + b"\0", given[2])
    for at in range(0, 64, 5):
        wrong = bytearray(given[2])
        wrong[at] ^= 1
        assert not verify.is_signed(given[0], given[1], bytes(wrong))


@settings(max_examples=40)
@given(
    st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(0, 8 * 96 - 1), st.booleans()
)
def test_a_signature_holds_where_it_does_for_the_library(
    seed: bytes, message: bytes, bit: int, is_flipped: bool
) -> None:
    """Also when a bit of the key or the signature is another one."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    both = bytearray(private.public_key().public_bytes_raw() + private.sign(message))
    if is_flipped:
        both[bit // 8] ^= 1 << bit % 8
    public, signature = bytes(both[:32]), bytes(both[32:])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        holds = False
    else:
        holds = True
    assert verify.is_signed(public, message, signature) is holds is not is_flipped


def test_what_is_out_of_range_is_no_signature() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = private.public_key().public_bytes_raw(), private.sign(b"text")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert verify.is_signed(public, b"text", signature)
    assert not verify.is_signed(public, b"text", signature[:32] + scalar.to_bytes(32, "little"))
    assert not verify.is_signed(public[:31], b"text", signature)
    assert not verify.is_signed(public, b"text", signature[:63])
    neutral = (1).to_bytes(32, "little")  # a key of which this would sign everything
    assert not verify.is_signed(neutral, b"text", neutral + bytes(32))
    for number in (2**255 - 19, 2**255 - 1, 2**256 - 1):  # no y, or one that is written otherwise
        assert not verify.is_signed(number.to_bytes(32, "little"), b"text", signature)


# Keys and checkpoints.


def both_open(note: bytes) -> tuple[Any, Any]:
    """The checkpoint as the server's code and as the program read it; None when they refuse it."""
    try:
        theirs = open_checkpoint(note, SIGNER.name, [SIGNER.verifier])
    except ProofError:
        theirs = None
    try:
        ours = verify.open_checkpoint(note, verify.parse_key(VERIFIER))
    except verify.Wrong:
        ours = None
    return theirs and (theirs.origin, theirs.size, theirs.root), ours and tuple(ours)


CHECKPOINT = Checkpoint(SIGNER.name, 1234, bytes(range(32)))
OTHERS = [SignerKey("other", bytes(32)), SignerKey(SIGNER.name, bytes(32))]


@pytest.mark.parametrize(
    ("checkpoint", "keys"),
    [
        (CHECKPOINT, [SIGNER]),
        (CHECKPOINT, [*OTHERS, SIGNER]),
        (CHECKPOINT, OTHERS),
        (Checkpoint(SIGNER.name, 0, merkle.EMPTY_ROOT), [SIGNER]),
        (Checkpoint(SIGNER.name, (1 << 63) - 1, bytes(32), ("more", "é")), [SIGNER]),
        (Checkpoint("another", 3, bytes(32)), [SIGNER]),
    ],
)
def test_a_checkpoint_holds_where_it_does_for_the_server(
    checkpoint: Checkpoint, keys: list[SignerKey]
) -> None:
    theirs, ours = both_open(sign_checkpoint(checkpoint, keys))
    assert theirs == ours
    assert (ours is not None) == (SIGNER in keys and checkpoint.origin == SIGNER.name)


@settings(max_examples=60)
@given(st.data())
def test_so_does_one_that_was_changed(data: st.DataObject) -> None:
    note = bytearray(sign_checkpoint(CHECKPOINT, [SIGNER, *OTHERS]))
    at = data.draw(st.integers(0, len(note) - 1))
    note[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b"\n", b" ", b"0", b"=", b"\0", b"\xff", b"+", b"a"])
    )
    theirs, ours = both_open(bytes(note))
    assert theirs == ours


@pytest.mark.parametrize(
    "text", ["", "\n", "a\n1\n", "NAME\n01\nROOT\n", "NAME\n-1\nROOT\n", "NAME\n0\nROOT\n", "NAME\n1\nROO\n"]
)
def test_so_does_a_signed_text_that_is_no_checkpoint(text: str) -> None:
    root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    signed = sign_note(text.replace("NAME", SIGNER.name).replace("ROOT", root) or "\n", [SIGNER])
    assert both_open(signed) == (None, None)


@given(st.data())
def test_a_key_is_read_as_the_server_reads_it(data: st.DataObject) -> None:
    text = VERIFIER
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from(["", "+", "A", "=", " ", "0", "é"])) + text[at + 1 :]
    try:
        theirs = parse_verifier_key(text)
    except ProofError:
        with pytest.raises(verify.Wrong):
            verify.parse_key(text)
    else:
        ours = verify.parse_key(text)
        assert (ours.name, ours.public, ours.text) == (theirs.name, theirs.public, str(theirs))


# Filters.


def manifest(filters: dict[str, list[str]], start: str | None, end: str | None) -> verify.Manifest:
    return verify.Manifest("", "", filters, start, end, "", "", "", 0, None, None, False, 0, {})


@given(texts(0, 30))
def test_texts_are_compared_as_the_server_does(text: str) -> None:
    assert verify.fold(text) == fold(text)
    assert verify.words_of(text) == words_of(text)


# Each character where it may be composed or reordered, or joins words. Planes 4 to 13 are empty.
_EVERY_CHARACTER = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("verify", sys.argv[1])
verify = sys.modules["verify"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)
every = list(map(chr, (*range(0x40000), *range(0xE0000, 0xE1000))))
chars = list(filter(verify._is_known, every))
seen = verify.sha256()
for at in range(0, len(chars), 256):
    text = " ".join(f"Ae{char}\\u0323\\u0301B" for char in chars[at : at + 256])
    seen.update(ascii((verify.fold(text), verify.words_of(text))).encode())
print(json.dumps([seen.hexdigest(), sorted(map(ord, set(every) - set(chars)))]))
"""


def digest_without(unknown: set[int]) -> str:
    """What a Python should tell that does not know some characters."""
    chars = [chr(code) for code in (*range(0x40000), *range(0xE0000, 0xE1000)) if code not in unknown]
    seen = sha256()
    for at in range(0, len(chars), 256):
        text = " ".join(f"Ae{char}\u0323\u0301B" for char in chars[at : at + 256])
        seen.update(ascii((fold(text), words_of(text))).encode())
    return seen.hexdigest()


def test_every_python_folds_and_splits_every_character_as_the_server_does() -> None:
    """Older ones as far as they know the characters."""
    for path in [sys.executable, *other_pythons()]:
        done = run_python(path, "-c", _EVERY_CHARACTER, str(SOURCE))
        assert done.returncode == 0, done.stderr
        digest, unknown = json.loads(done.stdout)
        assert digest == digest_without(set(unknown)), path
        assert len(unknown) in (0, 838)  # Of Unicode 14.0, and of 13.0, which lacks so many of it.


def test_the_characters_of_unicode_14_are_those_that_python_has() -> None:
    assert verify.ASSIGNED == unicode14.ASSIGNED
    ranges = [[int(code, 16) for code in each.split("-")] for each in unicode14.ASSIGNED.split()]
    told = {code for each in ranges for code in range(each[0], each[-1] + 1)}
    assert len(told) == 284_278
    here = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) != "Cn"}
    assert told <= here
    done = subprocess.run([sys.executable, RANGES], capture_output=True, text=True, timeout=60, check=False)
    if told == here:
        assert done.stdout.strip() == unicode14.ASSIGNED.strip()
    else:
        assert "take Python 3.11" in done.stderr


def test_characters_newer_than_unicode_14_are_signs() -> None:
    assert words_of("refund\U0001e4d0ED") == ["refund", "ed"]
    assert fold("Refund\U0001e4d0É") == "refund\U0001e4d0é"


@given(st.lists(events, min_size=1, max_size=4), st.data())
def test_what_passes_a_filter_is_what_passes_on_the_server(sent: list[Json], data: st.DataObject) -> None:
    """With values that stand in the events, so that some do."""
    stored = recorded(sent)
    one = data.draw(st.sampled_from(stored))
    values = {
        "configuration-name": one.configuration or "x",
        "user": one.user.swapcase(),
        "action": one.action,
        "resource-kind": data.draw(st.sampled_from(KINDS)),
        "resource-name": one.resourceName,
        "q": one.description or one.user,
        "min-date": one.timestamp or "",
        "max-date": one.timestamp or "",
    }
    given = {name: [values[name]] for name in data.draw(st.sets(st.sampled_from(FILTERS)))}
    if "user" in given and data.draw(st.booleans()):
        given["user"].append("nobody")
    items = [(name, value) for name, all_ in given.items() for value in all_]
    try:
        query = parse_query(items, account="default", allowed=FILTERS, kinds=KINDS)
    except InvalidQuery:  # a text without a word
        return
    start = None if query.min_us is None else format_us(query.min_us)
    end = None if query.max_us is None else format_us(query.max_us)
    matches = verify.matcher(manifest(given, start, end))
    for event, doc in zip(stored, encode_docs(stored), strict=True):
        assert (matches is None or matches(verify.cells(doc))) == query.matches(event)
