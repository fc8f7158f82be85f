"""The analyzer's series in one SQLite file, private to the process that has it open."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dtf.core.trend.series_points import SeriesKey
from dtf.ports.series_vault import VaultCheckpoint, VaultError, VaultUnavailable

SCHEMA_VERSION = 1
_TABLES = """
    CREATE TABLE series (suite TEXT, case_name TEXT, metric TEXT, pool TEXT, state BLOB NOT NULL,
        PRIMARY KEY (suite, case_name, metric, pool)) WITHOUT ROWID;
    CREATE TABLE checkpoint (log_sequence INTEGER, log_state TEXT, analysis_sequence INTEGER, rule_version INTEGER);
"""


class SqliteVault:
    """The SeriesVault port on a SQLite file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._using = threading.Lock()

    @classmethod
    async def open(cls, path: Path) -> "SqliteVault":
        """Open the file, made if there is none. One that is damaged or of another version begins anew."""
        return await asyncio.to_thread(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> "SqliteVault":
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return cls(_connect(path), path)
        except sqlite3.OperationalError as error:
            raise VaultError(f"{path} cannot be used: {error}; is another trend analyzer running?") from error
        except sqlite3.DatabaseError:
            _remove(path)
            return cls(_connect(path), path)

    def load(self, key: SeriesKey) -> bytes | None:
        """See the port."""
        question = "SELECT state FROM series WHERE suite = ? AND case_name = ? AND metric = ? AND pool = ?"
        with self._in_use():
            row = self._connection.execute(question, key).fetchone()
        return bytes(row[0]) if row is not None else None

    def keys(self, suite: str) -> Sequence[SeriesKey]:
        """See the port."""
        asked, values = ("WHERE suite = ?", (suite,)) if suite else ("", ())
        question = f"SELECT suite, case_name, metric, pool FROM series {asked} ORDER BY 1, 2, 3, 4"
        with self._in_use():
            return [SeriesKey(*row) for row in self._connection.execute(question, values)]

    async def save(self, series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        """See the port."""
        await asyncio.to_thread(self._save, series, checkpoint)

    async def checkpoint(self) -> VaultCheckpoint:
        """See the port."""
        with self._in_use():
            row = self._connection.execute("SELECT * FROM checkpoint").fetchone()
        return VaultCheckpoint(*row) if row is not None else VaultCheckpoint()

    async def clear(self) -> None:
        """See the port."""
        with self._in_use(), self._connection:
            self._connection.execute("DELETE FROM series")
            self._connection.execute("DELETE FROM checkpoint")

    async def close(self) -> None:
        """See the port."""
        with self._using:
            self._connection.close()

    def _save(self, series: Mapping[SeriesKey, bytes], checkpoint: VaultCheckpoint) -> None:
        rows = [(*key, state) for key, state in series.items()]
        values = (
            checkpoint.log_sequence,
            checkpoint.log_state,
            checkpoint.analysis_sequence,
            checkpoint.rule_version,
        )
        with self._in_use(), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?)", rows)
            self._connection.execute("DELETE FROM checkpoint")
            self._connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?)", values)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The connection, for one at a time. A file that turns out to be damaged is removed: all of it follows from the log."""
        try:
            with self._using:
                yield
        except sqlite3.OperationalError as error:
            raise VaultUnavailable(f"{self._path} cannot be used now: {error}") from error
        except sqlite3.DatabaseError as error:
            _remove(self._path)
            raise VaultError(
                f"{self._path} was damaged ({error}) and is removed; start again, and the log is read anew"
            ) from error


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.commit()
        if version == 0:
            connection.executescript(_TABLES + f"PRAGMA user_version = {SCHEMA_VERSION};")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema version {version}, expected {SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
