"""Fixtures of the whole-system tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of its own; after the test no process of it is left."""
    project = Project(tmp_path)
    yield project
    left = project.close()
    assert left == [], project.logs()
