"""What of a working tree travels, what is refused, and that the same tree is the same archive."""

import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2
from dtf.client.blob_courier import BlobCourier
from dtf.client.workspace import chosen_mode, packed_workspace, placed_workspace, tree_root
from dtf.client.workspace_files import PackingStopped, WorkspaceError, list_files, matches
from dtf.client.workspace_pack import pack, survey
from dtf.client.workspace_secrets import suspicion
from dtf.settings.model import RunSettings, Settings
from dtf.settings.workspaces import WorkspaceSettings

LIMITS = WorkspaceSettings()
PRIVATE_KEY = b"-----BEGIN RSA " + b"PRIVATE KEY-----\nMIIE\n"


def write(root: Path, name: str, content: str | bytes = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=dtf", "-c", "user.email=dtf@example.org", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def repository(root: Path) -> Path:
    root.mkdir(parents=True)
    git(root, "init", "-q")
    return root


def paths(root: Path, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return list(list_files(root, include, exclude).paths)


def test_tracked_and_untracked_files_travel_and_ignored_and_deleted_ones_do_not(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    for name in ("a.py", "gone.py", "out/x.o", "with space/ü.py"):
        write(root, name)
    write(root, ".gitignore", "*.o\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    (root / "gone.py").unlink()
    write(root, "new.py")
    write(root, ".dtf/secrets/token", "secret")
    assert paths(root) == [".gitignore", "a.py", "new.py", "with space/ü.py"]
    assert paths(root, include=("out/*.o",), exclude=("new.py",)) == [
        ".gitignore",
        "a.py",
        "out/x.o",
        "with space/ü.py",
    ]


@pytest.mark.parametrize("is_of_git", [True, False])
def test_no_state_directory_travels_at_any_depth_not_even_when_it_is_included(
    tmp_path: Path, is_of_git: bool
) -> None:
    root = repository(tmp_path / "r") if is_of_git else tmp_path / "r"
    for name in ("services/api/a.py", "services/api/.dtf/secrets/token", ".dtf/secrets/token"):
        write(root, name)
    (root / "state").symlink_to("services/api/.dtf")
    included = ("services/api/.dtf/secrets/token", "services/api/.dtf", "state/*", "**/token")
    assert paths(root) == paths(root, include=included) == ["services/api/a.py", "state"]


def test_a_directory_inside_a_repository_travels_alone(tmp_path: Path) -> None:
    root = repository(tmp_path / "r")
    write(root, "sub/a.py")
    write(root, "b.py")
    assert paths(root / "sub") == ["a.py"]


def test_files_of_submodules_and_of_repositories_inside_travel(tmp_path: Path) -> None:
    inner = repository(tmp_path / "inner")
    write(inner, "lib.py")
    git(inner, "add", "-A")
    git(inner, "commit", "-qm", "x")
    root = repository(tmp_path / "r")
    git(root, "submodule", "add", "-q", str(inner), "vendored")
    nested = repository(root / "nested")
    write(nested, "n.py")
    write(nested, ".gitignore", "*.o")
    write(nested, "n.o")
    assert {"vendored/lib.py", "nested/n.py"} <= set(paths(root))
    assert "nested/n.o" not in paths(root)


def test_without_git_everything_but_the_usual_junk_travels(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "__pycache__/a.pyc",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "node_modules/m.js",
        "data/d",
    ):
        write(tmp_path, name)
    listing = list_files(tmp_path, (), ())
    assert list(listing.paths) == ["a.py", "data/d"]
    assert not listing.is_of_git


def test_what_git_cannot_list_is_told_in_gits_words(tmp_path: Path) -> None:
    write(tmp_path, ".git", "gitdir: /nowhere\n")
    with pytest.raises(WorkspaceError, match="not a git repository"):
        list_files(tmp_path, (), ())


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("data/big.bin", "*.bin", True),
        ("data/big.bin", "data", True),
        ("data/sub/big.bin", "data/*.bin", True),
        ("data/sub/big.bin", "data/sub", True),
        ("other/data.py", "data", False),
        ("a/b/c", "b/c", False),
    ],
)
def test_a_pattern_names_paths_directories_and_parts(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, (pattern,)) is expected


def test_the_same_tree_gives_the_same_bytes_wherever_and_whenever_it_is_packed(tmp_path: Path) -> None:
    archives = []
    for number, name in enumerate(("one", "two")):
        root = tmp_path / name
        order = ["b/c.py", "a.py"] if number else ["a.py", "b/c.py"]
        for path in order:
            write(root, path, path)
        (root / "a.py").chmod(0o640 + number)
        os.utime(root / "a.py", (number, number))
        (root / "link").symlink_to("b/c.py" if number else root / "b/c.py")
        archives.append(pack(survey(root, LIMITS)))
    one, two = archives
    assert one.digest == two.digest
    assert one.file.read() == two.file.read()
    for archive in archives:
        archive.file.close()


def test_a_change_of_content_or_mode_is_another_workspace(tmp_path: Path) -> None:
    file = write(tmp_path, "a.sh", "1")
    digests = [survey(tmp_path, LIMITS).digest]
    file.chmod(0o755)
    digests.append(survey(tmp_path, LIMITS).digest)
    file.write_text("2")
    digests.append(survey(tmp_path, LIMITS).digest)
    assert len(set(digests)) == 3


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "up/../../outside"])
def test_a_link_out_of_the_tree_is_refused_with_its_target(tmp_path: Path, target: str) -> None:
    root = tmp_path / "tree"
    (root / "up").mkdir(parents=True)
    write(tmp_path, "outside")
    (root / "link").symlink_to(target)
    with pytest.raises(WorkspaceError) as caught:
        survey(root, LIMITS)
    assert any("leads out of the tree" in line and "link" in line for line in caught.value.advice)


def test_a_link_that_leads_out_through_another_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "x/y").mkdir(parents=True)
    write(tmp_path, "secret")
    (root / "x/y/up").symlink_to("../..")
    (root / "link").symlink_to("x/y/up/../secret")
    with pytest.raises(WorkspaceError):
        survey(root, LIMITS)


def test_files_that_are_too_large_are_named_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, "small", "1")
    with write(tmp_path, "core.dump").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(WorkspaceError) as caught:
        survey(tmp_path, LIMITS)
    assert "core.dump: 1,099,511,627,776 bytes" in caught.value.advice
    assert any("max_file_bytes" in line for line in caught.value.advice)


def test_a_tree_that_is_too_large_names_its_largest_files(tmp_path: Path) -> None:
    write(tmp_path, "a", "1" * 60)
    write(tmp_path, "b", "1" * 50)
    with pytest.raises(WorkspaceError, match="110 bytes; at most 100") as caught:
        survey(tmp_path, replace(LIMITS, max_bytes=100))
    assert caught.value.advice[0] == "a: 60 bytes"


@pytest.mark.parametrize(
    ("path", "content", "is_suspect"),
    [
        (".env", b"", True),
        ("sub/.env.production", b"", True),
        (".env.example", b"", False),
        ("deploy/id_rsa", b"", True),
        ("id_rsa.pub", b"", False),
        ("key.pem", PRIVATE_KEY, True),
        ("certificate.pem", b"-----BEGIN CERTIFICATE-----", False),
        ("key.txt", PRIVATE_KEY, True),
        ("test_keys.py", b'KEY = """' + PRIVATE_KEY, False),
        ("credentials.json", b"{}", True),
        ("settings.py", b"KEY = '" + b"AKIA" + b"QWERTYUIOPASDFGH'", True),
        ("docs.md", b"AKIAIOSFODNN7EXAMPLE", False),
        ("ci.sh", b"TOKEN=" + b"ghp_" + b"a" * 36, True),
        ("main.py", b"print()", False),
    ],
)
def test_what_looks_like_a_secret(path: str, content: bytes, is_suspect: bool) -> None:
    assert bool(suspicion(path, content)) is is_suspect


def test_secrets_are_refused_with_the_reason_and_what_to_do_and_travel_when_allowed(tmp_path: Path) -> None:
    write(tmp_path, "conf/.env", "PASSWORD=x")
    write(tmp_path, "a.py")
    with pytest.raises(WorkspaceError) as caught:
        survey(tmp_path, LIMITS)
    text = "\n".join(caught.value.advice)
    assert "conf/.env: environment files hold passwords" in text
    assert ".gitignore" in text
    assert '[workspace] allow = "conf/.env"' in text
    assert len(survey(tmp_path, replace(LIMITS, allow="conf/.env")).entries) == 2
    assert len(survey(tmp_path, replace(LIMITS, exclude=".env")).entries) == 1


def test_a_file_that_changes_while_it_is_packed_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, "a", "1")
    found = survey(tmp_path, LIMITS)
    file.write_text("2")
    with pytest.raises(WorkspaceError, match="a changed while"):
        pack(found)


def test_packing_stops_when_it_is_told_to(tmp_path: Path) -> None:
    write(tmp_path, "a")
    with pytest.raises(PackingStopped):
        survey(tmp_path, LIMITS, lambda: True)
    with pytest.raises(PackingStopped):
        pack(survey(tmp_path, LIMITS), lambda: True)


class Store(BlobCourier):
    """A coordinator's blobs, as the courier sees them."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.uploads = 0

    def has(self, blob: common_pb2.Blob) -> bool:
        return blob.digest in self.stored

    def put(self, blob: common_pb2.Blob, pieces: Callable[[], Iterable[bytes]]) -> None:
        self.uploads += 1
        self.stored[blob.digest] = b"".join(pieces())


def test_a_content_is_packed_and_uploaded_once_and_again_where_it_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.py", "1")
    settings = Settings(run=RunSettings(server="h:1", setup="make"))
    tree = tree_root(tmp_path, settings, str(tmp_path))
    store, said = Store(), list[str]()
    first = packed_workspace(tree, settings, store, said.append)
    assert packed_workspace(tree, settings, store, said.append) == first
    assert store.uploads == 1
    assert "uploaded" in said[0] and "known already" in said[1] and "listed without git" in said[0]
    store.stored.clear()
    assert packed_workspace(tree, settings, store, said.append) == first
    assert store.uploads == 2
    write(tmp_path, "a.py", "2")
    assert packed_workspace(tree, settings, store, said.append).digest != first.digest
    assert (first.root, first.setup) == (str(tmp_path), "make")


def test_the_tree_travels_where_workers_may_be_elsewhere() -> None:
    def mode(**run: str) -> str:
        return chosen_mode(Settings(run=RunSettings(**run)))  # type: ignore[arg-type]

    assert mode() == "tree"
    assert mode(server="h:1") == "pack"
    assert mode(server="h:1", workspace="tree") == "tree"
    assert mode(workspace="pack") == "pack"
    assert chosen_mode(Settings(pools={"far": {"provider": "kubernetes"}})) == "pack"


def test_a_shared_tree_is_under_its_own_path_unless_another_is_given(tmp_path: Path) -> None:
    shared = Settings(run=RunSettings(workspace="shared"))
    tree = tree_root(tmp_path, shared)
    assert placed_workspace(tree, shared) == common_pb2.Workspace(root=str(tmp_path), path=str(tmp_path))
    mapped = replace(shared, workspace=WorkspaceSettings(path="/mnt/app/"))
    assert placed_workspace(tree, mapped) == common_pb2.Workspace(root=str(tmp_path), path="/mnt/app")


def test_an_image_needs_a_path(tmp_path: Path) -> None:
    settings = Settings(run=RunSettings(workspace="image"))
    with pytest.raises(WorkspaceError, match="needs the place"):
        placed_workspace(tree_root(tmp_path, settings), settings)
    relative = replace(settings, workspace=WorkspaceSettings(path="app"))
    with pytest.raises(WorkspaceError, match="absolute"):
        placed_workspace(tree_root(tmp_path, relative), relative)


def test_a_directory_beside_the_project_is_refused_unless_the_root_holds_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    with pytest.raises(WorkspaceError) as caught:
        tree_root(project, Settings(), str(tmp_path))
    assert "[workspace] root" in caught.value.advice[0]
    assert (
        tree_root(project, Settings(workspace=WorkspaceSettings(root="..")), str(tmp_path)).root == tmp_path
    )
