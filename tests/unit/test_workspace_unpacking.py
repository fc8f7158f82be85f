"""Archives that are not what they should be, and the cache that unpacked ones share."""

import hashlib
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from dtf.client.workspace_pack import pack, survey
from dtf.core.workspace import Entry, manifest_digest
from dtf.settings.workspaces import WorkspaceSettings
from dtf.worker.workspace_archive import BadArchive, unpack
from dtf.worker.workspace_cache import (
    Cache,
    CacheUnusable,
    Cell,
    Failed,
    Ready,
    cache_root,
    changed_files,
)

MOST = 10_000_000


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for header, content in members:
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return io.BytesIO(zstandard.compress(plain.getvalue()))


def file(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header, b""


def test_a_packed_tree_is_unpacked_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/b").mkdir(parents=True)
    target.mkdir()
    (source / "a/b/c.py").write_text("content")
    (source / "run.sh").write_text("#!/bin/sh")
    (source / "run.sh").chmod(0o700)
    (source / "link").symlink_to("a/b")
    (source / b"\xff.bin".decode(errors="surrogateescape")).write_bytes(b"\0" * 5000)
    (source / ("n" * 200)).write_text("long")
    found = survey(source, WorkspaceSettings())
    archive = pack(found)
    with archive.file as packed:
        unpacked = unpack(packed, target, found.digest, MOST)
    assert manifest_digest(unpacked.entries) == found.digest == survey(target, WorkspaceSettings()).digest
    assert (target / "link").readlink() == Path("a/b")
    assert os.access(target / "run.sh", os.X_OK)
    assert not list(changed_files(target, {"a/b/c.py": 7}))


@pytest.mark.parametrize(
    "members",
    [
        [file("../escaped")],
        [file("/tmp/escaped-absolutely")],
        [file("a/../../escaped")],
        [file("a"), file("a")],
        [special("link", tarfile.SYMTYPE, "/etc")],
        [special("link", tarfile.SYMTYPE, "../..")],
        [special("link", tarfile.SYMTYPE, ".."), file("link/escaped")],
        [special("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [special("pipe", tarfile.FIFOTYPE)],
        [special("device", tarfile.CHRTYPE)],
        [special("directory", tarfile.DIRTYPE)],
        [file("large", b"0" * (MOST + 1))],
        [file("unexpected")],
    ],
    ids=lambda members: members[-1][0].name[:20],
)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    target = tmp_path / "cell" / "tree"
    target.mkdir(parents=True)
    with pytest.raises(BadArchive):
        unpack(archive_of(*members), target, "0" * 64, MOST)
    assert [path for path in tmp_path.rglob("*") if "cell" not in path.parts] == []
    assert not Path("/tmp/escaped-absolutely").exists()
    assert [path.name for path in (tmp_path / "cell").iterdir()] == ["tree"]


def test_a_file_cannot_be_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    """The link is inside the tree by its name; it is made after every file, so it can lead nothing astray."""
    target = tmp_path / "tree"
    target.mkdir()
    members = [special("a", tarfile.SYMTYPE, "b"), file("a/x"), file("b/y")]
    with pytest.raises((BadArchive, OSError)):
        unpack(archive_of(*members), target, "0" * 64, MOST)
    assert not (target / "b/x").exists()


def digest_of(*members: tuple[tarfile.TarInfo, bytes]) -> str:
    """What a run names whose submitter made the archive."""
    return manifest_digest(
        Entry(header.name, hashlib.sha256(header.linkname.encode() or content).hexdigest(), is_link=is_link)
        if (is_link := header.issym())
        else Entry(header.name, hashlib.sha256(content).hexdigest(), bool(header.mode & 0o100))
        for header, content in members
    )


@pytest.mark.parametrize(
    "members",
    [
        [special("d/l", tarfile.SYMTYPE, ".."), special("evil", tarfile.SYMTYPE, "d/l/../outside")],
        [special("evil", tarfile.SYMTYPE, "d/l/../outside"), special("d/l", tarfile.SYMTYPE, "..")],
        [
            special("a/b/up", tarfile.SYMTYPE, "../.."),
            special("c/d/upper", tarfile.SYMTYPE, "../../a/b/up"),
            special("c/evil", tarfile.SYMTYPE, "d/upper/../outside"),
        ],
        [file("deep/er/x"), special("deep/er/l", tarfile.SYMTYPE, "l")],
    ],
    ids=["a link by way of another", "before that other", "by way of two", "in a circle"],
)
def test_links_that_lead_out_of_the_tree_by_way_of_others_are_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    with pytest.raises(BadArchive, match=r"leads (out of the tree|through too many others)"):
        unpack(archive_of(*members), tmp_path, digest_of(*members), MOST)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_a_link_below_a_link_is_refused(tmp_path: Path) -> None:
    members = [file("a/b/x"), special("l", tarfile.SYMTYPE, "a/b"), special("l/m", tarfile.SYMTYPE, "../l")]
    with pytest.raises(BadArchive, match="'l/m' leads through the link 'l'"):
        unpack(archive_of(*members), tmp_path, digest_of(*members), MOST)
    assert not (tmp_path / "a/b/m").is_symlink()


def test_links_that_lead_by_way_of_others_inside_the_tree_are_made(tmp_path: Path) -> None:
    members = [
        file("lib/v1/x", b"found"),
        special("lib/now", tarfile.SYMTYPE, "v1"),
        special("bin/lib", tarfile.SYMTYPE, "../lib/now/../now/"),
        special("absent", tarfile.SYMTYPE, "bin/lib/gone"),
    ]
    unpack(archive_of(*members), tmp_path, digest_of(*members), MOST)
    assert (tmp_path / "bin/lib/x").read_text() == "found"
    assert (tmp_path / "absent").is_symlink()


def test_an_extended_header_is_refused(tmp_path: Path) -> None:
    header, content = file("a")
    header.pax_headers = {"comment": "x"}
    with pytest.raises(BadArchive, match="extended headers"):
        unpack(archive_of((header, content)), tmp_path, digest_of((header, content)), MOST)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_large_header_is_refused_before_it_takes_memory(tmp_path: Path, kind: bytes) -> None:
    """It is a few kilobytes as it is packed."""
    header = tarfile.TarInfo("header")
    header.type = kind
    archive = archive_of((header, b"0" * 2**25), file("a"))
    assert len(archive.getvalue()) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(BadArchive, match="headers of more than 65,536 bytes"):
            unpack(archive, tmp_path, "0" * 64, 2**30)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**24


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"no archive at all",
        lambda data: b"",
        lambda data: data[:40] + bytes(byte ^ 255 for byte in data[40:60]) + data[60:],
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = os.urandom(5000)
    whole = archive_of(file("a", content)).getvalue()
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(damage(whole)), tmp_path, "0" * 64, MOST)


def cache(tmp_path: Path, *, max_bytes: int = 10**9, max_days: float = 14.0) -> Cache:
    root = tmp_path / "cache"
    root.mkdir(exist_ok=True)
    return Cache(root, max_bytes, max_days)


def fill(cell: Cell, size_bytes: int, used_at: float) -> None:
    lock = cell.try_lock(alone=True)
    assert lock is not None
    cell.tree.mkdir(parents=True)
    (cell.tree / "file").write_text("x")
    cell.note_ready(Ready("d", size_bytes, 0.0, [], {}))
    os.close(lock)
    os.utime(cell.directory.with_name(f"{cell.name}.lock"), (used_at, used_at))


def test_those_unused_for_longest_go_first_and_those_in_use_stay(tmp_path: Path) -> None:
    everything = cache(tmp_path, max_bytes=250)
    now = 1_000_000_000.0
    for number, name in enumerate(("oldest", "used", "old", "new")):
        fill(everything.cell(name), 100, now + number)
    held = everything.cell("oldest").try_lock(alone=False)
    assert held is not None
    assert everything.evict(now + 10) == ["used", "old"]
    assert everything.cell("oldest").is_ready and everything.cell("new").is_ready
    os.close(held)
    assert sorted(path.name for path in everything.root.iterdir()) == [
        "incoming",
        "new",
        "new.lock",
        "oldest",
        "oldest.lock",
    ]


def test_what_was_not_used_for_long_and_remains_of_crashes_go(tmp_path: Path) -> None:
    everything = cache(tmp_path, max_days=1.0)
    now = 1_000_000_000.0
    fill(everything.cell("stale"), 1, now - 100_000)
    fill(everything.cell("fresh"), 1, now)
    crashed = everything.cell("crashed")
    lock = crashed.try_lock(alone=True)
    assert lock is not None
    crashed.incoming.mkdir()
    assert "crashed" not in everything.evict(now), "it is being made"
    os.close(lock)
    assert everything.evict(now) == ["crashed"]
    assert not crashed.incoming.exists()
    assert everything.cell("fresh").is_ready and not everything.cell("stale").is_ready


def test_a_lock_taken_alone_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    cell = cache(tmp_path).cell("a")
    alone = cell.try_lock(alone=True)
    assert alone is not None
    assert cell.try_lock(alone=True) is None and cell.try_lock(alone=False) is None
    os.close(alone)
    shared = [cell.try_lock(alone=False), cell.try_lock(alone=False)]
    assert None not in shared and cell.try_lock(alone=True) is None
    for lock in shared:
        assert lock is not None
        os.close(lock)


def test_a_lock_on_what_was_removed_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cache(tmp_path).cell("a")
    path = cell.directory.with_name("a.lock")
    opened = os.open

    def removed_after_opening(name: object, *arguments: int) -> int:
        descriptor = opened(name, *arguments)  # type: ignore[arg-type]
        path.unlink()
        os.close(opened(path, os.O_CREAT | os.O_WRONLY))
        return descriptor

    monkeypatch.setattr(os, "open", removed_after_opening)
    assert cell.try_lock(alone=True) is None


def test_a_failed_set_up_is_known_to_its_run_alone(tmp_path: Path) -> None:
    cell = cache(tmp_path).cell("a")
    cell.note_failed(Failed("r1", "no compiler", "cc: not found"))
    found = cell.failed("r1")
    assert found is not None and found.output == "cc: not found"
    assert cell.failed("r2") is None


def test_an_altered_file_is_seen_unless_the_set_up_altered_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("version.py", "main.py"):
        (source / name).write_text("1")
    found = survey(source, WorkspaceSettings())
    cell = cache(tmp_path).cell("a")
    cell.tree.mkdir(parents=True)
    with pack(found).file as archive:
        unpack(archive, cell.tree, found.digest, MOST)
    files = {"version.py": 1, "main.py": 1}
    (cell.tree / "version.py").write_text("2")
    ready = Ready(found.digest, 1, 0.0, list(changed_files(cell.tree, files)), files)
    assert ready.altered == ["version.py"] and not cell.is_altered(ready)
    (cell.tree / "main.py").write_text("3")
    assert cell.is_altered(ready)


def test_directories_that_user_code_locked_are_removed_all_the_same(tmp_path: Path) -> None:
    cell = cache(tmp_path).cell("a")
    (cell.tree / "locked").mkdir(parents=True)
    (cell.tree / "locked/file").write_text("x")
    (cell.tree / "locked").chmod(0)
    cell.clear()
    assert not cell.directory.exists()


def test_the_cache_is_where_it_is_set_and_its_owners_alone(tmp_path: Path) -> None:
    root = cache_root(str(tmp_path / "deep/cache"))
    assert root == tmp_path / "deep/cache"
    assert root.stat().st_mode & 0o777 == 0o700


def test_without_a_home_that_can_be_written_the_cache_is_a_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = cache_root("")
    assert root == tmp_path / f"dtf-{os.getuid()}" / "workspaces" == cache_root("")
    assert root.parent.stat().st_mode & 0o777 == root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("configured", ["", "dtf-{uid}/mine"])
@pytest.mark.parametrize("trap", ["link", "writable", "file"])
def test_a_temporary_directory_that_others_may_have_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str, configured: str
) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs, ours = tmp_path / "theirs", tmp_path / f"dtf-{os.getuid()}"
    theirs.mkdir()
    match trap:
        case "link":
            ours.symlink_to(theirs)
        case "writable":
            ours.mkdir()
            ours.chmod(0o777)
        case _:
            ours.write_text("")
    with pytest.raises(CacheUnusable, match=r"set \[worker\] cache_dir"):
        cache_root(configured and str(tmp_path / configured.format(uid=os.getuid())))
    assert not any(theirs.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_temporary_directory_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = tmp_path / "dtf-0"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(CacheUnusable):
        cache_root(str(theirs / "workspaces"))


def test_entries_compare_as_bytes_like_the_archive_is_sorted() -> None:
    assert manifest_digest([Entry("b", "1"), Entry("é", "2")]) == manifest_digest(
        [Entry("é", "2"), Entry("b", "1")]
    )
