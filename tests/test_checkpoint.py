from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rfc6962
from auditplane.checkpoint import (
    Checkpoint,
    Proof,
    SignerKey,
    VerifierKey,
    format_proof,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    parse_proof,
    parse_signer_key,
    parse_verifier_key,
    sign_checkpoint,
    sign_note,
    verify_proof,
)
from auditplane.errors import ProofError
from auditplane.limits import NOTE_SIGNATURES_MAX
from auditplane.merkle import EMPTY_ROOT

# The example of golang.org/x/mod/sumdb/note.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
NOTE = f"{TEXT}\n{LINE}".encode()
GO_SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

ORIGIN = "log.example/default"
OLD_KEY, KEY, STRANGER = (
    SignerKey(name, bytes([n]) * 32) for n, name in enumerate([ORIGIN, ORIGIN, "w.example"])
)
TREE = rfc6962.Tree([b"%d" % index for index in range(20)])
CHECKPOINT = Checkpoint(ORIGIN, 20, TREE.root(20))

names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1)
seeds = st.binary(min_size=32, max_size=32)
keys = st.builds(SignerKey, names, seeds)
lines = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32))]), min_size=1
)
sizes = st.integers(1, (1 << 63) - 1)
checkpoints = st.builds(
    Checkpoint, lines, sizes, st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3).map(tuple)
)


def refused(read: Callable[..., object], *given: object) -> bool:
    try:
        read(*given)
    except ProofError:
        return True
    return False


def line_of(key: SignerKey, text: str) -> str:
    return sign_note(text, [key]).decode().removeprefix(f"{text}\n")


# Keys.


@pytest.mark.parametrize("text", [NEUMANN, GO_SUMDB])
def test_a_verifier_key_of_go_is_read_and_written(text: str) -> None:
    key = parse_verifier_key(text)
    assert str(key) == text
    assert text.startswith(f"{key.name}+{key.id.hex()}+")


def test_a_signer_key_of_go_is_read_and_written() -> None:
    key = parse_signer_key(NEUMANN_SECRET)
    assert key.secret == NEUMANN_SECRET
    assert str(key.verifier) == NEUMANN


@given(keys)
def test_keys_are_read_as_they_were_written(key: SignerKey) -> None:
    assert parse_signer_key(key.secret) == key
    assert parse_verifier_key(str(key.verifier)) == key.verifier


@given(keys)
def test_a_signer_key_shows_its_seed_in_its_secret_only(key: SignerKey) -> None:
    for text in (repr(key), str(key)):
        assert b64encode(key.seed).decode()[:-1] not in text
        assert repr(key.seed) not in text


WRONG_KEYS = [
    "",
    "PeterNeumann",
    "PeterNeumann+c74f20a3",
    NEUMANN.replace("Peter", "peter"),  # another name
    NEUMANN.replace("PeterNeumann", ""),
    NEUMANN.replace("PeterNeumann", "Peter Neumann"),
    NEUMANN.replace("PeterNeumann", "Peter\u2003Neumann"),
    NEUMANN.replace("PeterNeumann", "Peter\ud800Neumann"),
    NEUMANN.replace("PeterNeumann", "Peter\x00Neumann"),
    NEUMANN.replace("c74f20a3", "c74f20a4"),
    NEUMANN.replace("c74f20a3", "C74F20A3"),
    NEUMANN.replace("c74f20a3", "c74f20a"),
    NEUMANN.replace("ARpc", "Ahpc"),  # another algorithm
    NEUMANN.replace("ARpc", "ARpd"),
    NEUMANN.replace("ARpc", "AR\u00b2c"),
    NEUMANN[:-1],
    NEUMANN[:-4],
    NEUMANN + "AAAA",
    NEUMANN + "\n",
    " " + NEUMANN,
]


@pytest.mark.parametrize("text", [*WRONG_KEYS, NEUMANN_SECRET])
def test_a_wrong_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_verifier_key(text)


@pytest.mark.parametrize(
    "text",
    [
        NEUMANN,
        *(f"PRIVATE+KEY+{text}" for text in WRONG_KEYS),
        NEUMANN_SECRET.replace("c74f20a3", "c74f20a4"),
        NEUMANN_SECRET.replace("AYEK", "AYEL"),
        NEUMANN_SECRET[:-4],
        NEUMANN_SECRET.lower(),
    ],
)
def test_a_wrong_signer_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ProofError) as caught:
        parse_signer_key(text)
    assert "EKFALVFGyNhPJEMzD1QIDr" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    for kind in (SignerKey, VerifierKey):
        with pytest.raises(ProofError, match=r"32 bytes"):
            kind(ORIGIN, bytes(size))


# Notes.


def test_a_note_of_go_is_verified_and_made() -> None:
    assert open_note(NOTE, [parse_verifier_key(NEUMANN)]) == TEXT
    assert sign_note(TEXT, [parse_signer_key(NEUMANN_SECRET)]) == NOTE


@given(st.lists(keys, min_size=1, max_size=4), st.lists(lines | st.just("")))
def test_a_note_is_verified_by_each_of_its_keys(signers: list[SignerKey], text_lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in [*text_lines, ""])
    note = sign_note(text, signers)
    for key in signers:
        assert open_note(note, [STRANGER.verifier, key.verifier]) == text
    assert refused(open_note, note, [STRANGER.verifier])
    assert refused(open_note, note, [])


def test_every_changed_byte_of_a_note_is_noticed() -> None:
    key = parse_verifier_key(NEUMANN)
    for at in range(len(NOTE)):
        for bit in range(8):
            wrong = NOTE[:at] + bytes([NOTE[at] ^ (1 << bit)]) + NOTE[at + 1 :]
            assert refused(open_note, wrong, [key]), wrong
        assert refused(open_note, NOTE[:at], [key])
        assert refused(open_note, NOTE[:at] + NOTE[at + 1 :], [key])


def test_signatures_of_others_are_passed_over() -> None:
    """Also those of another algorithm, of any length, and with the name or the id of a known key."""
    own = line_of(KEY, TEXT)
    encoded = own.split(" ")[2].strip()
    same_id = f"— other.example {encoded}\n"
    others = [line_of(STRANGER, TEXT), f"— w.example {b64encode(bytes(3000)).decode()}\n", "— x AAAAAAA=\n"]
    others += [line_of(OLD_KEY, "another\n"), same_id]
    for before in range(len(others) + 1):
        note = "".join([TEXT, "\n", *others[:before], own, *others[before:]]).encode()
        assert open_note(note, [KEY.verifier]) == TEXT


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    wrong = line_of(OLD_KEY, "another\n")
    note = f"{TEXT}\n{line_of(KEY, TEXT)}{wrong}".encode()
    assert open_note(note, [KEY.verifier]) == TEXT
    with pytest.raises(ProofError, match=rf"The signature by {ORIGIN} is not of this text"):
        open_note(note, [KEY.verifier, OLD_KEY.verifier])


def test_there_is_a_bound_on_signatures() -> None:
    """It is beyond the 16 that have to be accepted."""
    others = line_of(STRANGER, TEXT) * (NOTE_SIGNATURES_MAX - 1)
    note = f"{TEXT}\n{others}{line_of(KEY, TEXT)}".encode()
    assert NOTE_SIGNATURES_MAX > 16
    assert open_note(note, [KEY.verifier]) == TEXT
    with pytest.raises(ProofError, match=r"has 101 signatures; 100 are read"):
        open_note(note + line_of(STRANGER, TEXT).encode(), [KEY.verifier])
    sign_note(TEXT, [KEY] * NOTE_SIGNATURES_MAX)
    for count in (0, NOTE_SIGNATURES_MAX + 1):
        with pytest.raises(ProofError, match=r"between one and 100"):
            sign_note(TEXT, [KEY] * count)


ENCODED = LINE.split(" ")[2].strip()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        LINE.removesuffix("\n"),
        LINE.removeprefix("— "),
        LINE.replace("—", "-"),
        LINE.replace("—", "–"),
        LINE.replace("— ", "—"),
        LINE.replace("— ", "—  "),
        LINE.replace("— ", "— — "),
        LINE.replace("— ", "—\u00a0"),
        LINE.replace("Neumann ", "Neumann\t"),
        LINE.replace("Neumann ", "Neumann  "),
        LINE.replace("PeterNeumann ", ""),
        LINE.replace("\n", "\r\n"),
        LINE.replace("\n", " \n"),
        LINE.replace("\n", "\n\n"),
        LINE.replace("=\n", "\n"),
        LINE.replace("=\n", "==\n"),
        LINE.replace("M=\n", "N=\n"),  # bits that are not there
        LINE + "x\n",
        LINE + "— x AAAA\n",
        LINE + "— x AAAAAA==\n",  # an id without a signature
        LINE + "— x+y AAAAAAA=\n",
        LINE + "— x\u2003y AAAAAAA=\n",
        LINE + "— x AAAAAA\u00b2=\n",
        LINE + "— x AAAA_-A=\n",
        LINE + "\x00\n",
        f"\n{LINE}x",
    ],
)
def test_malformed_signatures_are_refused(line: str) -> None:
    """Even when another one is right: what is read has one meaning for all who read it."""
    assert refused(open_note, f"{TEXT}\n{line}".encode(), [parse_verifier_key(NEUMANN)])


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n",
        b"\n\n",
        TEXT.encode(),
        LINE.encode(),
        f"{TEXT}{LINE}".encode(),
        b"\xff" + NOTE,
        NOTE + b"\xff",
    ],
)
def test_what_is_no_note_is_refused(note: bytes) -> None:
    assert refused(open_note, note, [parse_verifier_key(NEUMANN)])


@pytest.mark.parametrize("text", ["", "a", "a\tb\n", "a\r\n", "a\x00\n", "\x1b[2J\n", "\ud800\n"])
def test_only_texts_are_signed(text: str) -> None:
    with pytest.raises(ProofError, match=r"The text of a note"):
        sign_note(text, [KEY])


@pytest.mark.parametrize("text", ["a\tb\n", "a\r\n", "a\x00\n", "\x1b[2J\n"])
def test_a_signed_text_with_control_characters_is_refused(text: str) -> None:
    encoded = b64encode(KEY.verifier.id + KEY.sign(text.encode())).decode()
    with pytest.raises(ProofError, match=r"without other control characters"):
        open_note(f"{text}\n— {ORIGIN} {encoded}\n".encode(), [KEY.verifier])


def test_a_text_may_have_empty_lines_and_look_signed() -> None:
    for text in ("\n", "\n\n", "a\n\nb\n", f"{TEXT}\n{LINE}"):
        assert open_note(sign_note(text, [KEY]), [KEY.verifier]) == text
        assert refused(open_note, sign_note(text, [KEY]), [parse_verifier_key(NEUMANN)])


# Checkpoints.


def test_a_checkpoint_has_the_form_of_the_standard() -> None:
    note = sign_checkpoint(replace(CHECKPOINT, extensions=("one", "two")), [KEY])
    root = b64encode(TREE.root(20)).decode()
    assert note.decode().startswith(f"{ORIGIN}\n20\n{root}\none\ntwo\n\n— {ORIGIN} ")


@given(checkpoints)
@example(Checkpoint(ORIGIN, 0, EMPTY_ROOT))
@example(Checkpoint(ORIGIN, (1 << 63) - 1, bytes(32)))
def test_a_checkpoint_is_read_as_it_was_signed(checkpoint: Checkpoint) -> None:
    note = sign_checkpoint(checkpoint, [OLD_KEY, KEY, STRANGER])
    for key in (OLD_KEY, KEY):
        assert open_checkpoint(note, checkpoint.origin, [key.verifier]) == checkpoint
    assert refused(open_checkpoint, note, checkpoint.origin + "x", [KEY.verifier])


def test_a_checkpoint_outlives_the_rotation_of_keys() -> None:
    """Who knows both keys reads what either has signed, or both."""
    both = [OLD_KEY.verifier, KEY.verifier]
    for signers in ([OLD_KEY], [KEY], [OLD_KEY, KEY]):
        assert open_checkpoint(sign_checkpoint(CHECKPOINT, signers), ORIGIN, both) == CHECKPOINT
    with pytest.raises(ProofError, match=r"No known key"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, [OLD_KEY]), ORIGIN, [KEY.verifier])


ROOT = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n",
        "a\n1\n",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n\n{ROOT}\n",
        "a\n1\n\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\n\nb\n",
        f"a\n01\n{ROOT}\n",
        f"a\n+1\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n 1\n{ROOT}\n",
        f"a\n1 \n{ROOT}\n",
        f"a\n1_0\n{ROOT}\n",
        f"a\n1.0\n{ROOT}\n",
        f"a\n١\n{ROOT}\n",
        f"a\n{1 << 63}\n{ROOT}\n",
        f"a\n{'9' * 5000}\n{ROOT}\n",
        f"a\n0\n{ROOT}\n",  # not the root of the empty log
        f"a\n1\n{ROOT[:-1]}\n",
        f"a\n1\n{ROOT[:-2]}B=\n",
        f"a\n1\n{ROOT} \n",
        f"a\n1\n{ROOT}AAAA\n",
        "a\n1\nAAAA\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": ""},
        {"origin": "a\nb"},
        {"origin": "a\tb"},
        {"size": -1},
        {"size": 0},
        {"size": 1 << 63},
        {"root": bytes(31)},
        {"extensions": ("",)},
        {"extensions": ("a\nb",)},
        {"extensions": ("a\n",)},
        {"extensions": ("\x00",)},
    ],
)
def test_a_checkpoint_that_could_not_be_read_is_not_signed(wrong: dict[str, object]) -> None:
    with pytest.raises(ProofError):
        sign_checkpoint(replace(CHECKPOINT, **wrong), [KEY])  # type: ignore[arg-type]  # on purpose


# Proofs.


def proof_of(index: int, extra: bytes = b"") -> Proof:
    return Proof(index, tuple(TREE.path(index, 20)), sign_checkpoint(CHECKPOINT, [KEY]), extra)


def test_a_proof_has_the_form_of_the_standard() -> None:
    proof = Proof(7, (bytes(32), b"\1" * 32), NOTE, b"more")
    text = format_proof(proof)
    one = b64encode(b"\1" * 32).decode()
    assert (
        text.decode() == f"c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 7\n{ROOT}\n{one}\n\n{NOTE.decode()}"
    )
    assert parse_proof(text) == proof
    assert format_proof(Proof(0, (), NOTE)) == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + NOTE


@given(st.integers(0, 19), st.binary(max_size=50))
def test_a_proof_is_verified_as_it_was_written(index: int, extra: bytes) -> None:
    proof = parse_proof(format_proof(proof_of(index, extra)))
    assert proof == proof_of(index, extra)
    assert verify_proof(proof, TREE.mth(index, index + 1), ORIGIN, [KEY.verifier]) == CHECKPOINT


def test_a_proof_is_of_one_entry_of_one_log_by_a_known_key() -> None:
    leaf, proof, known = TREE.mth(7, 8), proof_of(7), [KEY.verifier]
    other_log = sign_checkpoint(replace(CHECKPOINT, root=TREE.root(19)), [KEY])
    assert not refused(verify_proof, proof, leaf, ORIGIN, known)
    assert refused(verify_proof, proof, TREE.mth(8, 9), ORIGIN, known)
    assert refused(verify_proof, proof, leaf, "other", known)
    assert refused(verify_proof, proof, leaf, ORIGIN, [OLD_KEY.verifier])
    assert refused(verify_proof, replace(proof, index=8), leaf, ORIGIN, known)
    assert refused(verify_proof, replace(proof, index=20), leaf, ORIGIN, known)
    assert refused(verify_proof, replace(proof, path=proof.path[1:]), leaf, ORIGIN, known)
    assert refused(verify_proof, replace(proof, checkpoint=other_log), leaf, ORIGIN, known)


def test_every_changed_byte_of_a_proof_is_noticed() -> None:
    """But for the extra data, which nobody has signed."""
    text = format_proof(proof_of(7))

    def verify(data: bytes) -> None:
        verify_proof(parse_proof(data), TREE.mth(7, 8), ORIGIN, [KEY.verifier])

    verify(text)
    for at in range(len(text)):
        for bit in range(8):
            assert refused(verify, text[:at] + bytes([text[at] ^ (1 << bit)]) + text[at + 1 :])
        assert refused(verify, text[:at])
        assert refused(verify, text[:at] + text[at + 1 :])


HEADER = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "\n\n",
        HEADER,
        f"{HEADER}\n",
        "c2sp.org/tlog-proof@v2\nindex 7\n\n",
        f" {HEADER}index 7\n\n",
        f"{HEADER}index 7\n",
        f"{HEADER}\nindex 7\n\n",
        f"{HEADER}index 07\n\n",
        f"{HEADER}index -7\n\n",
        f"{HEADER}index\n\n",
        f"{HEADER}index  7\n\n",
        f"{HEADER}index 7 \n\n",
        f"{HEADER}index {1 << 63}\n\n",
        f"{HEADER}Index 7\n\n",
        f"{HEADER}extra AAAA\n\n",
        f"{HEADER}extra \nindex 7\n\n",
        f"{HEADER}extra AAA\nindex 7\n\n",
        f"{HEADER}extra AAB=\nindex 7\n\n",
        f"{HEADER}extra AAAA\nextra AAAA\nindex 7\n\n",
        f"{HEADER}index 7\nextra AAAA\n\n",
        f"{HEADER}index 7\r\n\n",
        f"{HEADER}index 7\n{ROOT[:-1]}\n\n",
        f"{HEADER}index 7\nAAAA\n\n",
        f"{HEADER}index 7\n{ROOT}é\n\n",
    ],
)
def test_a_malformed_proof_is_refused(head: str) -> None:
    with pytest.raises(ProofError):
        parse_proof(head.encode() + NOTE)


@pytest.mark.parametrize(
    "wrong", [{"index": -1}, {"index": 1 << 63}, {"path": (bytes(31),)}, {"path": (b"",)}]
)
def test_a_proof_that_could_not_be_read_is_not_written(wrong: dict[str, object]) -> None:
    with pytest.raises(ProofError):
        format_proof(replace(proof_of(7), **wrong))  # type: ignore[arg-type]  # on purpose


# Anything.


pieces = st.sampled_from(
    [
        "\n",
        "\n\n",
        "— ",
        " ",
        "+",
        ORIGIN,
        "1",
        "0",
        ROOT,
        ENCODED,
        LINE,
        TEXT,
        HEADER,
        "index 7\n",
        "extra ",
        "=",
        NEUMANN,
    ]
)
odd_texts = st.lists(pieces | st.text(max_size=3)).map("".join)


@given(odd_texts.map(str.encode) | st.binary())
def test_no_other_error_comes_of_any_bytes(data: bytes) -> None:
    known = [parse_verifier_key(NEUMANN), KEY.verifier]
    for read in (open_note, lambda data, keys: open_checkpoint(data, ORIGIN, keys)):
        refused(read, data, known)
    try:
        proof = parse_proof(data)
    except ProofError:
        return
    assert format_proof(proof) == data


@given(odd_texts | st.text(st.characters()))
def test_no_other_error_comes_of_any_text(text: str) -> None:
    refused(parse_verifier_key, text)
    refused(parse_signer_key, text)
    refused(parse_signer_key, f"PRIVATE+KEY+{text}")
    refused(sign_note, text, [KEY])
    refused(SignerKey, text, bytes(32))
    refused(parse_checkpoint, text)


@given(seeds, st.binary(max_size=70))
def test_no_public_key_and_no_signature_is_too_odd(public: bytes, signature: bytes) -> None:
    """A key may be no point of the curve."""
    key = VerifierKey(ORIGIN, public)
    line = f"— {ORIGIN} {b64encode(key.id + signature).decode()}\n"
    refused(open_note, f"{TEXT}\n{line}".encode(), [key])
