"""Requests to a server and their answers over HTTP, every failure an error of ours.

A request is sent again only where that can change nothing: when it is repeatable and the server says, by
Retry-After, that it can't take it now. Redirects are not followed, so that the key goes to no other server.
"""

import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec

from auditplane import __version__
from auditplane.errors import ConnectionLost, InvalidConfig, Refused

TRIES: Final = 5
RETRY_SECONDS_MAX: Final = 10.0
CONNECT_SECONDS_MAX: Final = 10.0
ERROR_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024  # of one that is read as a whole
LINE_BYTES_MAX: Final = 1024 * 1024  # no event comes near
_MAY_PASS: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)

Parameters = Sequence[tuple[str, str]]


class Transport:
    """Connections to one server, with one key."""

    def __init__(self, url: str, api_key: str, timeout: float, ca_cert: Path | None) -> None:
        headers = {"Accept-Encoding": "zstd", "User-Agent": f"auditplane/{__version__}"}
        if api_key:
            headers["X-Bindplane-Api-Key"] = _checked_key(api_key)
        self.url = _checked_url(url)
        self._http = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS_MAX)),
            verify=_tls(self.url, ca_cert),
        )

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    @contextmanager
    def opened(
        self,
        method: str,
        path: str,
        media_type: str,
        *,
        parameters: Parameters = (),
        body: bytes | None = None,
        body_type: str = "application/json",
        repeatable: bool = True,
    ) -> Iterator[httpx2.Response]:
        """The answer of this media type, its body not read yet; raises Refused and ConnectionLost."""
        headers = {"Accept": media_type, **({} if body is None else {"Content-Type": body_type})}
        with self._translated():
            request = self._http.build_request(
                method,
                self.url + path,
                params=httpx2.QueryParams(list(parameters)),
                headers=headers,
                content=body,
            )
            answer = self._sent(request, repeatable=repeatable)
            try:
                self._check(answer, media_type)
                yield answer
            finally:
                answer.close()

    def _sent(self, request: httpx2.Request, *, repeatable: bool) -> httpx2.Response:
        tries_left = TRIES if repeatable else 1
        while True:
            answer = self._http.send(request, stream=True)
            if answer.is_success:
                return answer
            tries_left -= 1
            refused = self._refused(answer)
            wait = _retry_after(answer.headers)
            if wait is None or not tries_left:
                raise refused
            time.sleep(wait)

    def _refused(self, answer: httpx2.Response) -> Refused:
        body = b""
        try:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > ERROR_BYTES_MAX:
                    break
        finally:
            answer.close()
        status = f"{answer.status_code} {answer.reason_phrase}"
        messages = _messages(body) or [f"{self.url} answered {status}; is that the address of the server?"]
        return Refused(
            answer.status_code, *map(printable, messages), may_pass=answer.status_code in _MAY_PASS
        )

    def _check(self, answer: httpx2.Response, media_type: str) -> None:
        """Refuses what no server of ours answers, and an answer whose end could not be told."""
        found = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if found != media_type:
            raise Refused(
                answer.status_code,
                f"{self.url} answered {found or 'nothing'}, not {media_type}; check the address.",
            )
        if "content-length" not in answer.headers and "transfer-encoding" not in answer.headers:
            raise ConnectionLost(
                f"{self.url} does not tell where its answer ends; check what stands between."
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Makes errors of the connection ours."""
        try:
            yield
        except httpx2.ConnectError as error:
            if "certificate" in str(error).lower():
                raise ConnectionLost(
                    f"The certificate of {self.url} is not trusted: {_reason(error)}. "
                    "Name the file of its authority, in the command line by --ca-cert."
                ) from None
            raise ConnectionLost(
                f"No server answers at {self.url}: {_reason(error)}. Is it running, and is that its address?"
            ) from None
        except httpx2.TimeoutException:
            raise ConnectionLost(f"{self.url} took too long to answer.") from None
        except httpx2.DecodingError as error:
            raise ConnectionLost(f"The answer of {self.url} is damaged: {_reason(error)}.") from None
        except httpx2.TransportError as error:
            raise ConnectionLost(f"The connection to {self.url} was lost: {_reason(error)}.") from None


def whole(chunks: Iterable[bytes]) -> bytes:
    """All chunks; raises ConnectionLost when they are more than any answer has that is read so."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > ANSWER_BYTES_MAX:
            raise ConnectionLost("The answer is far too long; is that the address of the server?")
    return bytes(found)


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of some chunks, without their line feeds.

    Raises ConnectionLost when the last has none, and for one that is longer than any event.
    """
    rest = b""
    for chunk in chunks:
        *ended, rest = (rest + chunk).split(b"\n")
        yield from ended
        if len(rest) > LINE_BYTES_MAX:
            raise ConnectionLost("The answer has a line that is far too long for an event.")
    if rest:
        raise ConnectionLost("The answer ended in the middle of an event.")


def printable(text: str) -> str:
    """A text of others as part of one line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _messages(body: bytes) -> list[str]:
    """The contract's error body; nothing when it is another's."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any]).get("errors", [])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _reason(error: Exception) -> str:
    return printable(str(error)).rstrip(". ") or type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait, when the server names them."""
    text = headers.get("retry-after", "")
    return min(float(text), RETRY_SECONDS_MAX) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _checked_url(url: str) -> str:
    try:
        known = re.fullmatch(r"https?://[^\s/?#@\\]+(/[^\s?#]*)?", url) and urlsplit(url).port != 0
        known = known and bool(httpx2.URL(url).host)  # which is read anew for each request
    except (ValueError, httpx2.InvalidURL):
        known = False
    if not known:
        raise InvalidConfig("The address of a server must be such as https://audit.example.com:3001.")
    return url.rstrip("/")


def _checked_key(api_key: str) -> str:
    # The HTTP library would show it in its complaint.
    if not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise InvalidConfig("The API key holds blanks or characters that no key has; copy it again.")
    return api_key


def _tls(url: str, ca_cert: Path | None) -> ssl.SSLContext:
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; the default one reads many certificates
    try:
        return ssl.create_default_context(cafile=ca_cert)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else "it holds no certificate, PEM"
        raise InvalidConfig(f"The certificates in {ca_cert} can't be used: {reason}.") from None
