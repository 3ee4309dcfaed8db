"""Checkpoints: what a log signs of its size and root, and proofs that bring one along. Pure.

- Notes and keys: C2SP signed-note, Ed25519 (RFC 8032) only; keys are written as Go's sumdb/note writes them.
- Checkpoints: C2SP tlog-checkpoint.
- Proofs of single entries: C2SP tlog-proof, version 1.
- Endorsements: a note by which a key says which key comes after it.

What is read has exactly the form that is written: there is one way to write a number, and one to write bytes.
Anything else, and whatever no known key has signed, raises ProofError. Signatures by others are passed over.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auditplane.errors import ProofError
from auditplane.limits import NOTE_SIGNATURES_MAX
from auditplane.merkle import EMPTY_ROOT, HASH_BYTES, verify_inclusion

KEY_BYTES: Final = 32
PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
ENDORSEMENT_HEADER: Final = "auditplane new log key v1"

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_SIGNER = "PRIVATE+KEY+"
_DASH = "\N{EM DASH} "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


# Keys (C2SP signed-note).


@dataclass(frozen=True)
class VerifierKey:
    """Verifies what the key of this name has signed; `str` is the text that can be published."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        _check_key(self.name, self.public)

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        return _key_text(self.name, self.id, self.public)


@dataclass(frozen=True)
class SignerKey:
    """Signs with the key made from `seed`, 32 bytes that nobody can guess; `secret` is its text."""

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_key(self.name, self.seed)

    @property
    def secret(self) -> str:
        return _SIGNER + _key_text(self.name, self.verifier.id, self.seed)

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self._private.public_key().public_bytes_raw())

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def parse_signer_key(text: str) -> SignerKey:
    """The key of a `secret`."""
    # No message shows any of the text: it may be almost a secret.
    if not text.startswith(_SIGNER):
        raise ProofError(f"A signing key begins with {_SIGNER}.")
    name, key_id, seed = _parse_key(text.removeprefix(_SIGNER))
    key = SignerKey(name, seed)
    if key.verifier.id.hex() != key_id:
        raise ProofError("The id in the signing key is not that of its name and secret.")
    return key


def parse_verifier_key(text: str) -> VerifierKey:
    """The key of a text such as `log.example+1a2b3c4d+AQ...`."""
    name, key_id, public = _parse_key(text)
    key = VerifierKey(name, public)
    if key.id.hex() != key_id:
        raise ProofError(f"The id in the verifier key of {name} is not that of its name and key.")
    return key


def _key_text(name: str, key_id: bytes, key: bytes) -> str:
    return f"{name}+{key_id.hex()}+{_base64(_ED25519 + key)}"


def _parse_key(text: str) -> tuple[str, str, bytes]:
    """Name, id and bytes of a key."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise ProofError("A key is a name, an id and base64, with + between them.")
    name, key_id, encoded = parts
    key = _unbase64(encoded)
    if key is None or key[:1] != _ED25519:
        raise ProofError("A key ends with base64 of a byte 1, for Ed25519, and 32 bytes.")
    return name, key_id, key[1:]


def _check_key(name: str, key: bytes) -> None:
    _check_name(name)
    if len(key) != KEY_BYTES:
        raise ProofError(f"An Ed25519 key has {KEY_BYTES} bytes, not {len(key)}.")


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() for char in name) or not _is_text(name):
        raise ProofError(
            "The name of a key has at least one character, no spaces, no + and no control characters."
        )


# Notes (C2SP signed-note).


def sign_note(text: str, keys: Iterable[SignerKey]) -> bytes:
    """The text, which ends in a newline, signed by all the keys."""
    if not text.endswith("\n") or not _is_text(text):
        raise ProofError("The text of a note ends in a newline and has no other control characters.")
    signed = text.encode()
    lines = [f"{_DASH}{key.name} {_base64(key.verifier.id + key.sign(signed))}\n" for key in keys]
    if not 0 < len(lines) <= NOTE_SIGNATURES_MAX:
        raise ProofError(f"A note has between one and {NOTE_SIGNATURES_MAX} signatures.")
    return f"{text}\n{''.join(lines)}".encode()


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> str:
    """The text of a note that at least one of the keys has signed, and none of them wrongly."""
    text, signatures = _parse_note(note)
    known = {(key.name, key.id): key for key in keys}
    verified = 0
    for name, signature in signatures:
        if key := known.get((name, signature[:_KEY_ID_BYTES])):
            _verify(key, signature[_KEY_ID_BYTES:], text.encode())
            verified += 1
    if not verified:
        raise ProofError("No known key has signed the note.")
    return text


def note_text(note: bytes) -> str:
    """The text of a note, whoever has signed it: nothing in it can be trusted."""
    return _parse_note(note)[0]


def _verify(key: VerifierKey, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as error:
        raise ProofError(f"The signature by {key.name} is not of this text.") from error


def _parse_note(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """The text, and the names and signatures (with the id of the key) below it."""
    try:
        content = note.decode()
    except UnicodeDecodeError as error:
        raise ProofError("The note is no UTF-8.") from error
    text, blank, below = content.rpartition("\n\n")
    if not blank or not below.endswith("\n") or not _is_text(content):
        raise ProofError("A note is a text, an empty line and signatures, without other control characters.")
    lines = below.removesuffix("\n").split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise ProofError(f"The note has {len(lines)} signatures; {NOTE_SIGNATURES_MAX} are read at the most.")
    return f"{text}\n", [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _unbase64(encoded)
    if not line.startswith(_DASH) or signature is None or len(signature) <= _KEY_ID_BYTES:
        raise ProofError("A signature is a line of em dash, space, name of the key, space, and base64.")
    _check_name(name)
    return name, signature


# Checkpoints (C2SP tlog-checkpoint).


@dataclass(frozen=True)
class Checkpoint:
    """Size and root of the log that is called `origin`; `extensions` are further lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def sign_checkpoint(checkpoint: Checkpoint, keys: Iterable[SignerKey]) -> bytes:
    """The note of a checkpoint."""
    size, root = str(checkpoint.size), _base64(checkpoint.root)
    text = "".join(f"{line}\n" for line in (checkpoint.origin, size, root, *checkpoint.extensions))
    if parse_checkpoint(text) != checkpoint:
        raise ProofError("The origin and the extensions of a checkpoint are single lines.")
    return sign_note(text, keys)


def open_checkpoint(note: bytes, origin: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint of the log that is called `origin`, signed by at least one of its keys."""
    checkpoint = parse_checkpoint(open_note(note, keys))
    if checkpoint.origin != origin:
        raise ProofError(f"The checkpoint is of the log {checkpoint.origin}, not of {origin}.")
    return checkpoint


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in the text of a note that was verified."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines) or not text.endswith("\n"):
        raise ProofError("A checkpoint is at least three lines, none of them empty.")
    origin, size, root, *extensions = lines
    checkpoint = Checkpoint(origin, _number(size), _hash(root), tuple(extensions))
    if not checkpoint.size and checkpoint.root != EMPTY_ROOT:
        raise ProofError("The checkpoint of an empty log has a root that is not the empty one.")
    return checkpoint


# Endorsements, of a key by the one before it.


def sign_endorsement(old: SignerKey, new: VerifierKey) -> bytes:
    """A note by which a key says that another signs in its place from now on, under the same name."""
    if old.name != new.name:
        raise ProofError(f"The key of {new.name} can't sign in place of that of {old.name}.")
    return sign_note(f"{ENDORSEMENT_HEADER}\n{new.name}\n{new}\n", [old])


def open_endorsement(note: bytes, old: VerifierKey) -> VerifierKey:
    """The key that signs in place of an older one, as that one has signed."""
    header, *lines = open_note(note, [old]).removesuffix("\n").split("\n")
    # The first line is the name of no log: nobody takes an endorsement for a checkpoint, or the reverse.
    if header != ENDORSEMENT_HEADER or len(lines) != 2:
        raise ProofError(
            f"An endorsement is a line {ENDORSEMENT_HEADER}, the name of the log, and its new key."
        )
    origin, text = lines
    new = parse_verifier_key(text)
    if not origin == new.name == old.name:
        raise ProofError(f"The endorsement is of a key of {new.name}, not of {old.name}.")
    return new


# Proofs (C2SP tlog-proof).


@dataclass(frozen=True)
class Proof:
    """That an entry is at `index` of the log of a signed checkpoint. `extra` is not proved."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def format_proof(proof: Proof) -> bytes:
    """The text of a proof, as it is kept in a file `.tlog-proof`."""
    extra = [f"extra {_base64(proof.extra)}"] if proof.extra else []
    lines = [PROOF_HEADER, *extra, f"index {proof.index}", *map(_base64, proof.path)]
    text = "".join(f"{line}\n" for line in lines).encode() + b"\n" + proof.checkpoint
    if parse_proof(text) != proof:
        raise ProofError("The path of a proof is of hashes.")
    return text


def parse_proof(data: bytes) -> Proof:
    """The proof in such a text; nothing in it is verified yet."""
    head, blank, checkpoint = data.partition(b"\n\n")
    try:
        header, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise ProofError("The lines of a proof above the checkpoint are ASCII.") from error
    if header != PROOF_HEADER or not blank:
        raise ProofError(f"A proof is a line {PROOF_HEADER}, what it says, an empty line, and a checkpoint.")
    extra = _extra(lines.pop(0)) if lines and lines[0].startswith("extra ") else b""
    if not lines or not lines[0].startswith("index "):
        raise ProofError("The proof has no index where it should be.")
    index, *path = lines
    return Proof(_number(index.removeprefix("index ")), tuple(map(_hash, path)), checkpoint, extra)


def _extra(line: str) -> bytes:
    extra = _unbase64(line.removeprefix("extra "))
    if not extra:
        raise ProofError("The extra data of a proof is not the base64 of at least one byte.")
    return extra


def verify_proof(proof: Proof, leaf: bytes, origin: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The signed checkpoint of the log in which the leaf of this hash is at the index of the proof."""
    checkpoint = open_checkpoint(proof.checkpoint, origin, keys)
    verify_inclusion(proof.index, checkpoint.size, leaf, proof.path, checkpoint.root)
    return checkpoint


# What all of them are made of.


def _is_text(text: str) -> bool:
    """Whether it has an UTF-8 form, and no control characters but newline."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _CONTROL.search(text) is None


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _unbase64(text: str) -> bytes | None:
    """The bytes (RFC 4648, section 4); None when these are not written so."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        return None
    return data if _base64(data) == text else None


def _hash(line: str) -> bytes:
    data = _unbase64(line)
    if data is None or len(data) != HASH_BYTES:
        raise ProofError(f"A hash is the base64 of {HASH_BYTES} bytes.")
    return data


def _number(text: str) -> int:
    """A number below 2**63."""
    if not _DECIMAL.fullmatch(text) or (number := int(text)) >> 63:
        raise ProofError("A size or an index is a decimal number below 2^63, without leading zeros.")
    return number
