"""What the Kubernetes client does without an API server."""

import asyncio
import sys
from collections.abc import Sequence

import pytest

from dtf.adapters.kubernetes_api import KubernetesApi, LineReader, Refusal, is_quota
from dtf.ports.capacity import ProviderError
from dtf.settings.providers import KubernetesSettings
from tests.fakes import FakeClock


class Content:
    """The body of a response that comes in these pieces; None: it takes longer than anyone waits."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = list(pieces)

    async def readany(self) -> bytes:
        """The next piece."""
        piece = self._pieces.pop(0)
        if piece is None:
            await asyncio.Event().wait()
        return piece or b""


async def test_lines_are_whole_whatever_the_pieces_and_a_wait_given_up_loses_nothing() -> None:
    lines = LineReader(Content([b'{"a":', None, b"1}\n", b'{"b":2}\n{"c"', b":3}\n\n", b""]))
    read = [await lines.next(0.05) for _ in range(6)]
    assert read == [[], [], [b'{"a":1}'], [b'{"b":2}'], [b'{"c":3}'], None]


def test_a_quota_is_told_from_a_role() -> None:
    assert is_quota(
        Refusal(403, "Forbidden", 'pods "a" is forbidden: exceeded quota: few, requested: pods=1')
    )
    assert not is_quota(Refusal(403, "Forbidden", 'User "b" cannot create resource "pods"'))


async def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.aio", None)
    api = KubernetesApi(KubernetesSettings(), FakeClock())
    with pytest.raises(ProviderError, match=r"run: pip install 'dtf\[kubernetes\]'"):
        await api.connect()
