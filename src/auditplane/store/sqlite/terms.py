"""The tokens by which events are found in the full-text tables.

A token is a letter for the member and some letters of a keyed hash of the value: FTS5's tokeniser would
split or fold the text itself, and a hash keeps nothing of it. Exact values have twelve: at 60 bits a clash is
out of reach by chance, and the key is secret, so that none can be made. Words only say which blocks are to
be looked at, where a clash costs a little time; they have seven.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from auditplane.event import Event
from auditplane.query import Query, configuration_name, fold, words_of

_ALPHABET = b"abcdefghijklmnopqrstuvwxyz012345"
_LETTERS = bytes(_ALPHABET[i & 31] for i in range(256))
TOKEN_LETTERS: Final = 12
WORD_LETTERS: Final = 7
CACHED_VALUES_MAX: Final = 4_096
"""Of each kind, in each open log; one takes a fifth of a KB. Where there are more, few come again soon."""


class Terms:
    """Makes tokens with the secret of one log."""

    def __init__(self, secret: bytes) -> None:
        letters = dict.fromkeys("ukanc", TOKEN_LETTERS) | {"w": WORD_LETTERS}
        self._hashes = {
            letter: blake2b(digest_size=size, key=secret, person=letter.encode())
            for letter, size in letters.items()
        }
        cached = lru_cache(CACHED_VALUES_MAX)
        self._user = cached(lambda text: self._token("u", fold(text)))
        self._kind = cached(lambda text: self._token("k", text))
        self._action = cached(lambda text: self._token("a", text))
        self._name = cached(lambda text: self._token("n", text))
        self._configuration = cached(self._configuration_tokens)
        self._word = cached(lambda text: self._token("w", text))

    def _token(self, letter: str, text: str) -> str:
        hashed = self._hashes[letter].copy()
        hashed.update(text.encode("utf-8", "surrogatepass"))
        return letter + hashed.digest().translate(_LETTERS).decode("ascii")

    def _configuration_tokens(self, text: str) -> str:
        name = configuration_name(text)
        whole = self._token("c", text)
        return whole if name == text else f"{whole} {self._token('c', name)}"

    def of_event(self, event: Event) -> str:
        """The tokens of an event, separated by blanks."""
        tokens = (
            f"{self._user(event.user)} {self._kind(event.resourceKind)} {self._action(event.action)} "
            f"{self._name(event.resourceName)}"
        )
        return f"{tokens} {self._configuration(event.configuration)}" if event.configuration else tokens

    def of_words(self, text: str) -> str:
        """The tokens of all words of a text."""
        return " ".join([self._word(word) for word in sorted(set(words_of(text)))])

    def match(self, query: Query) -> str | None:
        """The FTS5 expression for the exact filters of a query; None when it has none."""
        choices = (
            [self._token("u", user) for user in query.users],
            [self._kind(kind) for kind in query.kinds],
            [self._action(action) for action in query.actions],
            [self._name(name) for name in query.names],
            [self._token("c", configuration) for configuration in query.configurations],
        )
        return " AND ".join(f"({' OR '.join(tokens)})" for tokens in choices if tokens) or None

    def match_words(self, query: Query) -> str | None:
        """The FTS5 expression for the blocks that may hold what `q` looks for; None without `q`."""
        alternatives = (" AND ".join(self._word(word) for word in words) for words in query.words)
        return " OR ".join(f"({words})" for words in alternatives) or None
