"""What servers of the tests have in common that stand for somebody's API over HTTP."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Message
    """Names are looked up whatever their case."""
    body: str = ""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter."""
        return {key: value[0] for key, value in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Answering(Protocol):
    """Whoever answers."""

    def __call__(self, asked: Asked) -> Answer:
        """One call at a time."""
        ...


class HttpApi:
    """A server of one's own on this machine, until it is stopped."""

    def __init__(self, answering: Answering) -> None:
        self.lock = threading.Lock()
        """Held while an answer is made."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                with api.lock:
                    answer = answering(Asked(self.command, self.path, self.headers, body))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.text.encode())))
                self.end_headers()
                self.wfile.write(answer.text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = _answer

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
