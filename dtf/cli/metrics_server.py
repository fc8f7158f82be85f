"""`/metrics` for Prometheus: an HTTP server of its own thread.

It has no TLS. Beyond loopback it wants a bearer token, one for nothing else: what it shows is figures and
names of pools, and what is heard on the way opens no other door.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.client.connect import read_token
from dtf.rpc.addresses import is_loopback

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class MetricsPlace:
    """Where figures are to be served, as [coordinator] or [resource_manager] say it."""

    section: str
    listen: str
    """host:port; no host: loopback; port 0: any free one."""
    token_file: str = ""

    def address(self) -> tuple[str, int]:
        """Host and port. Raises CommandError."""
        host, _, port = self.listen.rpartition(":")
        if not port.isdigit():
            raise self._fault(
                f"{self.section}.metrics_listen {self.listen!r} names no port", "give host:port"
            )
        return host.strip("[]") or "127.0.0.1", int(port)

    def token(self) -> str:
        """What has to be shown; "" : nothing. Raises CommandError if nothing guards what others can reach."""
        host, _ = self.address()
        if self.token_file:
            try:
                token = read_token(self.token_file)
            except OSError as error:
                raise self._fault(f"{self.section}.metrics_token_file cannot be read: {error}") from error
            if token:
                return token
            raise self._fault(f"{self.section}.metrics_token_file {self.token_file} is empty")
        if not is_loopback(f"{host}:0"):
            raise self._fault(
                f"{self.section}.metrics_listen {self.listen!r} can be reached from other machines",
                f"set {self.section}.metrics_token_file to a file with a token of its own, or listen at 127.0.0.1",
            )
        return ""

    def _fault(self, message: str, *advice: str) -> CommandError:
        return CommandError(message, *advice, exit_code=ExitCode.USAGE)

    def unusable(self, error: Exception) -> CommandError:
        """What is said when it cannot be listened at."""
        return self._fault(
            f"{self.section}.metrics_listen {self.listen!r} cannot be listened at: {error}", "give host:port"
        )

    def lacks_client(self) -> CommandError:
        """What is said without the Prometheus client."""
        return self._fault(
            f"{self.section}.metrics_listen needs the Prometheus client", "pip install 'dtf[metrics]'"
        )


@contextmanager
def metrics_server(place: MetricsPlace, collector: "Collector") -> Iterator[str]:
    """Serve what `collector` says; gives the address. Raises CommandError."""
    try:
        from prometheus_client import CollectorRegistry, make_wsgi_app
    except ImportError as error:
        raise place.lacks_client() from error
    registry = CollectorRegistry()
    registry.register(collector)
    host, port = place.address()
    application: Application = _guarded(make_wsgi_app(registry), place.token())
    with _serving(place, host, port, application) as address:
        yield address


@contextmanager
def _serving(place: MetricsPlace, host: str, port: int, application: Application) -> Iterator[str]:
    import socket
    import threading
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    class Handler(WSGIRequestHandler):
        timeout = 30

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: who scrapes does so every few seconds."""

    try:
        server = make_server(host, port, application, Server, Handler)
    except (OSError, OverflowError) as error:
        raise place.unusable(error) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _guarded(application: Application, token: str) -> Application:
    """The application for who shows the token, if there is one."""
    if not token:
        return application
    expected = f"Bearer {token}".encode()

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        shown = str(environ.get("HTTP_AUTHORIZATION", "")).encode()
        if hmac.compare_digest(shown, expected):
            return application(environ, start_response)
        headers = [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")]
        start_response("401 Unauthorized", headers)
        return [b"show the token of metrics_token_file: Authorization: Bearer ...\n"]

    return guarded
