"""The code of a run that `dtf run` starts, on its way to workers."""

from collections.abc import Callable
from pathlib import Path

import grpc

from dtf.api.v1 import common_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.client.blob_courier import BlobCourier
from dtf.client.client import CONNECT_TIMEOUT_SECONDS
from dtf.client.connect import peer
from dtf.client.stack import StackAddresses
from dtf.client.workspace import chosen_mode, packed_workspace, placed_workspace, tree_root
from dtf.rpc.channel import open_sync_channel
from dtf.rpc.reachability import why_unreachable
from dtf.settings.loader import LoadedSettings


def attach_workspace(
    template: common_pb2.TaskTemplate,
    loaded: LoadedSettings,
    addresses: StackAddresses,
    say: Callable[[str], None],
) -> None:
    """Say in the template how workers get the code, which is packed and uploaded first where it travels.

    Raises CommandError, StackError.
    """
    mode = chosen_mode(loaded.settings)
    if mode == "tree":
        return
    tree = tree_root(loaded.project_dir, loaded.settings, str(Path.cwd()))
    if mode != "pack":
        workspace = placed_workspace(tree, loaded.settings)
        if workspace is not None:
            template.workspace.CopyFrom(workspace)
        return
    try:
        coordinator = peer(addresses.server, addresses.token_file, addresses.certificate_authority_file)
    except (ValueError, OSError) as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    with open_sync_channel(coordinator) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_SECONDS)
        except grpc.FutureTimeoutError:
            why = why_unreachable(coordinator.addresses, is_secure=coordinator.is_secure)
            raise CommandError(
                f"no coordinator at {', '.join(coordinator.addresses)} ({why})",
                "start it, or correct DTF_SERVER (run.server)",
                exit_code=ExitCode.UNAVAILABLE,
            ) from None
        courier = BlobCourier(channel, coordinator.metadata)
        template.workspace.CopyFrom(packed_workspace(tree, loaded.settings, courier, say))
