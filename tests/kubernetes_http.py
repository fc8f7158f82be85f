"""Plain HTTP to a Kubernetes API server, for tests and their node agent: nothing of the client under test."""

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TIMEOUT_SECONDS = 90.0


class ApiFailure(Exception):
    """The API server refused a request of a test."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {body.get('message', body)}")
        self.status = status
        self.body = body


class KubernetesHttp:
    """An API server as seen by the owner of a token."""

    def __init__(self, url: str, authority_file: Path, token: str) -> None:
        self.url = url
        self.authority_file = authority_file
        self.token = token
        self._context: ssl.SSLContext | None = None

    @classmethod
    def of_kubeconfig(cls, path: Path) -> "KubernetesHttp":
        """The one that a kubeconfig in JSON with one cluster and one user names."""
        config = json.loads(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        return cls(
            cluster["server"], Path(cluster["certificate-authority"]), config["users"][0]["user"]["token"]
        )

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        impersonate: str = "",
    ) -> Json:
        """The answer. Raises ApiFailure when it is a refusal, OSError when there is none."""
        asked = self._asked(method, path, body, content_type)
        if impersonate:
            asked.add_header("Impersonate-User", impersonate)
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS, context=self._tls()) as answer:
                return _as_object(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            raise ApiFailure(error.code, _as_object(text)) from None

    def watch(self, path: str, version: str, seconds: int = 300, **query: str) -> Iterator[Json]:
        """Each change after `version`, for so long; ends early when the server does."""
        options = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds), **query}
        asked = self._asked("GET", f"{path}?{urllib.parse.urlencode(options)}", None, "application/json")
        try:
            with urllib.request.urlopen(asked, timeout=seconds + 10, context=self._tls()) as answer:
                for line in answer:
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError):
            return

    def is_ready(self) -> bool:
        """Whether it says so."""
        asked = self._asked("GET", "/readyz", None, "application/json")
        try:
            with urllib.request.urlopen(asked, timeout=5, context=self._tls()) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str
    ) -> urllib.request.Request:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.url + path, data=data, method=method, headers=headers)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context(cafile=str(self.authority_file))
        return self._context


def _as_object(text: bytes) -> Json:
    try:
        decoded = json.loads(text)
    except ValueError:
        return {"message": text.decode(errors="replace")}
    return decoded if isinstance(decoded, dict) else {"message": str(decoded)}
