"""EC2 of the moto project over HTTP, in a process of its own, and what a test does behind its back.

moto makes no instance run anything, makes one anew for each client token, and knows no notice of an
interruption: these are added here. `python -m tests.ec2_server` says the address on its first line.
"""

import base64
import io
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

Json = dict[str, Any]
Start = Callable[..., Any]

REGION = "eu-west-1"
_XML = [("Content-Type", "text/xml")]
_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Ec2Server:
    """The process, as tests see it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def reset(self) -> None:
        """No test has asked for anything. What was launched stays: to begin anew takes moto seconds."""
        self._post("/dtf-test/reset", {})

    def refuse(self, action: str, code: str, *, times: int = 1, subnet: str = "", status: int = 400) -> None:
        """Answer the next calls of an action so; `subnet`: those that name it."""
        self._post(
            "/dtf-test/refuse",
            {"action": action, "code": code, "times": times, "subnet": subnet, "status": status},
        )

    def lose_answers(self, action: str, times: int) -> None:
        """Do what is asked, and have the caller not hear of it."""
        self._post("/dtf-test/lose", {"action": action, "times": times})

    def end(self, instance: str, code: str, message: str = "", *, console: str = "") -> None:
        """An instance is terminated, for this reason."""
        self._post(
            "/dtf-test/end", {"instance": instance, "code": code, "message": message, "console": console}
        )

    def write_console(self, instance: str, text: str) -> None:
        """What the instance has written, from now on."""
        self._post("/dtf-test/console", {"instance": instance, "text": text})

    def announce(self, instance: str, message: str) -> None:
        """EC2 says that it takes an instance away."""
        self._post("/dtf-test/announce", {"instance": instance, "message": message})

    def requests(self, action: str) -> list[dict[str, str]]:
        """The parameters of each call of an action."""
        with urllib.request.urlopen(f"{self.endpoint}/dtf-test/requests", timeout=90) as answer:
            return [each for each in json.load(answer) if each["Action"] == action]

    def _post(self, path: str, body: Json) -> None:
        request = urllib.request.Request(f"{self.endpoint}{path}", json.dumps(body).encode(), method="POST")
        urllib.request.urlopen(request, timeout=90).close()


@contextmanager
def ec2_server(directory: Path) -> Iterator[Ec2Server]:
    """A server of one's own."""
    environment = {**os.environ, "HOME": str(directory), "PYTHONWARNINGS": "ignore"}
    with (directory / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.ec2_server"],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (directory / "moto.log").read_text()
            yield Ec2Server(line.strip())
        finally:
            process.kill()


class Behind:
    """The application of moto, with what it lacks."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._clear()

    def _clear(self) -> None:
        self.calls: list[dict[str, str]] = []
        self.refusals: list[Json] = []
        self.lost: Counter[str] = Counter()
        self.consoles: dict[str, str] = {}
        self.notices: dict[str, str] = {}
        self.launched: dict[str, tuple[dict[str, str], bytes]] = {}

    def __call__(self, environ: Json, start: Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if path.startswith("/dtf-test/"):
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._obey(path.rpartition("/")[2], json.loads(body or b"null"))).encode()]
        return self._answer(environ, start, {key: value[0] for key, value in parse_qs(body.decode()).items()})

    def _obey(self, order: str, given: Any) -> Any:
        match order:
            case "reset":
                self._clear()
            case "refuse":
                self.refusals.append(given)
            case "lose":
                self.lost[given["action"]] += given["times"]
            case "console":
                self.consoles[given["instance"]] = given["text"]
            case "announce":
                self.notices[given["instance"]] = given["message"]
            case "end":
                self._end(given)
            case "requests":
                return self.calls
        return None

    def _end(self, given: Json) -> None:
        from moto.ec2.models import ec2_backends

        instance = ec2_backends["123456789012"][REGION].get_instance(given["instance"])
        instance._state.name, instance._state.code = "terminated", 48
        instance.state_reason.code, instance.state_reason.message = given["code"], given["message"]
        if given["console"]:
            self.consoles[given["instance"]] = given["console"]

    def _answer(self, environ: Json, start: Start, call: dict[str, str]) -> Iterable[bytes]:
        action = call.get("Action", "")
        self.calls.append(call)
        for refusal in self.refusals:
            if refusal["action"] == action and refusal["subnet"] in ("", call.get("SubnetId")):
                refusal["times"] -= 1
                if not refusal["times"]:
                    self.refusals.remove(refusal)
                return _refuse(start, refusal["code"], refusal["status"])
        match action:
            case "RunInstances":
                return self._run_instances(environ, start, call)
            case "GetConsoleOutput":
                output = base64.b64encode(self.consoles.get(call["InstanceId"], "").encode()).decode()
                return _say(
                    start, action, f"<instanceId>{call['InstanceId']}</instanceId><output>{output}</output>"
                )
            case "DescribeSpotInstanceRequests":
                return _say(start, action, _spot_requests(self.notices))
            case _:
                return self._through(environ, start)

    def _run_instances(self, environ: Json, start: Start, call: dict[str, str]) -> Iterable[bytes]:
        token = call["ClientToken"]
        if token in self.launched:
            first, answer = self.launched[token]
            if first != call:
                return _refuse(start, "IdempotentParameterMismatch", 400)
            start("200 OK", _XML)
            return [answer]
        statuses: list[str] = []

        def note(status: str, headers: Any, *rest: Any) -> None:
            statuses.append(status)
            start(status, headers, *rest)

        if self.lost["RunInstances"]:
            self.lost["RunInstances"] -= 1
            self.launched[token] = (call, b"".join(self._through(environ, lambda *_: None)))
            return _refuse(start, "InternalError", 400)
        answer = b"".join(self._through(environ, note))
        if statuses[0].startswith("200"):
            self.launched[token] = (call, answer)
        return [answer]

    def _through(self, environ: Json, start: Start) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._application(environ, start)
        return answer


def _say(start: Start, action: str, content: str) -> list[bytes]:
    start("200 OK", _XML)
    return [
        f'<{action}Response xmlns="{_NAMESPACE}"><requestId>r</requestId>{content}</{action}Response>'.encode()
    ]


def _refuse(start: Start, code: str, status: int) -> list[bytes]:
    start(f"{status} Refused", _XML)
    error = f"<Error><Code>{code}</Code><Message>said by a test</Message></Error>"
    return [f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>".encode()]


def _spot_requests(notices: dict[str, str]) -> str:
    items = "".join(
        f"<item><instanceId>{instance}</instanceId><state>active</state><status>"
        f"<code>marked-for-termination</code><message>{escape(message)}</message></status></item>"
        for instance, message in notices.items()
    )
    return f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>"


def main() -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Behind(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"http://127.0.0.1:{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
