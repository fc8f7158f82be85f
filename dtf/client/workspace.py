"""What a run tells workers of its code: a packed tree, a place where they have it, or nothing.

tree      workers use the submitter's own tree, under its paths: the embedded stack's processes
pack      the tree is packed and uploaded, once a content, and workers unpack it
shared    workers see the tree through a file system, under its path or another
image     the workers' image holds the code
auto      pack where workers may be elsewhere, else tree
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import zstandard

from dtf.api.v1 import common_pb2
from dtf.client.blob_courier import PIECE_BYTES, BlobCourier
from dtf.client.workspace_files import WorkspaceError
from dtf.client.workspace_pack import LEVEL, Stop, Survey, pack, pieces_of, survey
from dtf.rpc.errors import describe
from dtf.settings.model import Settings
from dtf.settings.project import make_private_dir, state_dir

MEMORY_FILE = "workspace.json"
"""In the state directory: the archive that the tree last packed became, so that it need not be packed again."""
FORMAT = f"tar+zstd {LEVEL} {zstandard.__version__}"
LOCAL_PROVIDER = "process"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TreeRoot:
    """The project and the directory that travels."""

    project_dir: Path
    root: Path


def chosen_mode(settings: Settings) -> str:
    """The mode that run.workspace means here: pack, shared, image or tree."""
    if settings.run.workspace != "auto":
        return settings.run.workspace
    providers = {settings.of_pool(name).pool.provider for name in settings.pool_names}
    return "pack" if settings.server or providers != {LOCAL_PROVIDER} else "tree"


def tree_root(project_dir: Path, settings: Settings, *used: str) -> TreeRoot:
    """The directory that travels. Raises WorkspaceError if it holds not all of the directories `used`."""
    root = (project_dir / settings.workspace.root).resolve()
    if not root.is_dir():
        raise WorkspaceError(
            f"{root}, which is to travel to workers, is no directory", "correct [workspace] root"
        )
    for directory in used:
        if not Path(directory).resolve().is_relative_to(root):
            raise WorkspaceError(
                f"{directory} is not inside {root}, which travels to workers",
                'set [workspace] root to a directory that holds both, from the project\'s: ".."',
            )
    return TreeRoot(project_dir, root)


def placed_workspace(tree: TreeRoot, settings: Settings) -> common_pb2.Workspace | None:
    """The workspace of a mode that uploads nothing; None: mode tree. Raises WorkspaceError."""
    path = settings.workspace.path.rstrip("/")
    match chosen_mode(settings):
        case "tree":
            return None
        case "image" if not path:
            raise WorkspaceError(
                'run.workspace = "image" needs the place of the code in the image',
                'set it in dtf.toml: [workspace] path = "/srv/app"',
            )
        case mode:
            if mode == "pack" or (path and not path.startswith("/")):
                raise WorkspaceError(f"[workspace] path is {path!r}; expected an absolute path")
            return common_pb2.Workspace(root=str(tree.root), path=path or str(tree.root))


def packed_workspace(
    tree: TreeRoot, settings: Settings, courier: BlobCourier, say: Say, stop: Stop = lambda: False
) -> common_pb2.Workspace:
    """The working tree, packed and uploaded if it was not. Raises WorkspaceError, PackingStopped."""
    found = survey(tree.root, settings.workspace, stop)
    if not found.entries:
        raise WorkspaceError(
            f"no file of {tree.root} travels to workers", "correct [workspace] root and exclude"
        )
    digest = found.digest
    try:
        blob, is_there = _stored(tree.project_dir, found, digest, courier, stop)
    except grpc.RpcError as error:
        raise WorkspaceError(
            f"the working tree cannot be uploaded: {describe(error)}",
            "--workspace shared and image need no upload, where workers have the code",
        ) from error
    say(_told(found, digest, blob, is_there=is_there))
    return common_pb2.Workspace(
        root=str(tree.root),
        archive=blob,
        digest=digest,
        setup=settings.run.setup,
        setup_timeout_seconds=settings.workspace.setup_timeout_seconds,
    )


def _stored(
    project_dir: Path, found: Survey, digest: str, courier: BlobCourier, stop: Stop
) -> tuple[common_pb2.Blob, bool]:
    """The archive in the blob store, packed only if need be, and whether it was there."""
    known = _remembered(project_dir, digest)
    if known is not None and courier.has(known):
        return known, True
    blob, is_there = _delivered(found, courier, stop)
    _remember(project_dir, digest, blob)
    return blob, is_there


def _delivered(found: Survey, courier: BlobCourier, stop: Stop) -> tuple[common_pb2.Blob, bool]:
    """The archive in the blob store, and whether it was there."""
    archive = pack(found, stop)
    with archive.file as file:
        blob = common_pb2.Blob(digest=archive.digest, size_bytes=archive.size_bytes)
        is_there = courier.has(blob)
        if not is_there:
            courier.put(blob, lambda: pieces_of(file, PIECE_BYTES, stop))
    return blob, is_there


def _told(found: Survey, digest: str, blob: common_pb2.Blob, *, is_there: bool) -> str:
    listed = "" if found.is_of_git else ", listed without git"
    became = "known already" if is_there else f"{blob.size_bytes:,} bytes uploaded"
    return (
        f"workspace {digest[:12]}: {len(found.entries):,} files{listed}, {found.size_bytes:,} bytes, {became}"
    )


def _remembered(project_dir: Path, digest: str) -> common_pb2.Blob | None:
    try:
        document = json.loads((state_dir(project_dir) / MEMORY_FILE).read_text())
        if document["digest"] == digest and document["format"] == FORMAT:
            return common_pb2.Blob(digest=document["archive"], size_bytes=document["size_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _remember(project_dir: Path, digest: str, blob: common_pb2.Blob) -> None:
    document = {"digest": digest, "format": FORMAT, "archive": blob.digest, "size_bytes": blob.size_bytes}
    path = make_private_dir(state_dir(project_dir)) / MEMORY_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document))
    partial.replace(path)
