"""The code version changes with what decides, and with nothing else."""

import ast
from importlib.metadata import version
from pathlib import Path

import dtf
from dtf.settings import code_version as module
from dtf.settings.code_version import code_version

ROOT = Path(dtf.__file__).parent
DECIDING = ("core/run/decide.py", "core/run/evolve.py", "core/run/rederive.py", "coordinator/inputs.py")


def imported_by(path: Path) -> set[Path]:
    """The modules of the core that a module imports."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dtf.core"):
            base = ROOT.parent / (node.module or "").replace(".", "/")
            candidates = [base.with_suffix(".py"), *(base / f"{name.name}.py" for name in node.names)]
            found.update(path for path in candidates if path.is_file())
    return found


def closure() -> set[Path]:
    todo, seen = [ROOT / name for name in DECIDING], set[Path]()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(imported_by(path))
    return seen


def test_it_covers_every_module_that_a_decision_imports() -> None:
    covered = {name for name, _ in module._sources()}
    found = {path.relative_to(ROOT.parent) for path in closure()}
    assert len(found) > 15
    names = {".".join(path.with_suffix("").parts) + ".py" for path in found}
    missing = names - covered - {"dtf.core.events.py"}
    assert missing == set(), "a decision rests on a module that the digest leaves out"


def test_it_says_the_package_and_a_digest() -> None:
    package, _, digest = code_version().partition("+")
    assert package == version("dtf")
    assert len(digest) == 8
    int(digest, 16)
