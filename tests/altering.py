"""A proxy before a server that alters what it answers, to test clients with."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Alter = Callable[[str, bytes], bytes]
"""Makes the body of an answer of another, for a path with its parameters; OSError breaks the answer off."""


class AlteringProxy:
    """Hands requests on, and what `alter` makes of the answers back; `asked` are the paths, in order."""

    def __init__(self, server: str) -> None:
        self.alter: Alter = unaltered
        self.asked: list[str] = []
        self._server = server
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    status, media, body = proxy.answer(self.path, self.headers["X-Bindplane-Api-Key"])
                except OSError:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, path: str, key: str | None) -> tuple[int, str, bytes]:
        """Status, media type and body for a path; raises OSError to break it off."""
        self.asked.append(path)
        headers = {"X-Bindplane-Api-Key": key} if key else {}
        accept = "application/x-ndjson" if "/events" in path else "*/*"
        request = urllib.request.Request(self._server + path, headers={**headers, "Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return 200, answer.headers["Content-Type"], self.alter(path, answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read()


def unaltered(_path: str, body: bytes) -> bytes:
    """Alters nothing."""
    return body


@contextmanager
def altering_proxy(server: str) -> Iterator[AlteringProxy]:
    """A proxy before the server of a URL."""
    proxy = AlteringProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
