"""The controller's calls while the coordinator changes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from dtf.api.v1 import worker_service_pb2, worker_service_pb2_grpc
from dtf.pytest_plugin.link import Link
from dtf.rpc.channel import Peer


class Interrupted(worker_service_pb2_grpc.WorkerServiceServicer):
    """Stops in the middle of a blob once."""

    def __init__(self) -> None:
        self.asked = 0

    def FetchBlob(self, request: Any, context: Any) -> Iterator[Any]:
        self.asked += 1
        yield worker_service_pb2.FetchBlobResponse(data=b"first ")
        if self.asked == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "this coordinator is stopping")
        yield worker_service_pb2.FetchBlobResponse(data=b"second")


def test_a_blob_is_fetched_though_the_coordinator_goes_while_it_is_read() -> None:
    """Else a takeover while a long report is replayed would end the user's session."""
    servicer = Interrupted()  # type: ignore[abstract]  # the controller calls nothing else
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        link = Link(Peer((f"127.0.0.1:{port}",), "token"))
        try:
            assert link.fetch_blob("digest") == b"first second"
            assert servicer.asked == 2
        finally:
            link.close()
            server.stop(None).wait()
