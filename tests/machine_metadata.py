"""What the clouds tell a machine of itself, over HTTP."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
NEEDED = {ACTION: ("X-aws-ec2-metadata-token", "session-1"), PREEMPTED: ("Metadata-Flavor", "Google")}


class Metadata:
    """The metadata of one machine. Like the clouds' they refuse whoever lacks the right header."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked = 0
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                has_ttl = bool(self.headers["X-aws-ec2-metadata-token-ttl-seconds"])
                self._say(200 if has_ttl and self.path == "/latest/api/token" else 400, "session-1")

            def do_GET(self) -> None:
                metadata.asked += 1
                header, value = NEEDED.get(self.path, ("Metadata", "true"))
                if self.headers[header] != value:
                    self._say(401, "")
                elif self.path in metadata.answers:
                    self._say(200, metadata.answers[self.path])
                else:
                    self._say(404, "")

            def _say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

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
