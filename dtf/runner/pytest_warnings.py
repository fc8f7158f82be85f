"""Warnings on their way from a worker's pytest to the controller's."""

import importlib
import warnings
from typing import Any

from dtf.runner.pytest_reports import TYPE_KEY, WARNING_TYPE


def warning_element(
    warning: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
) -> dict[str, Any]:
    """The element of one recorded warning."""
    return {
        TYPE_KEY: WARNING_TYPE,
        "when": when,
        "nodeid": nodeid,
        "location": location,
        "text": str(warning.message),
        "category": f"{warning.category.__module__}:{warning.category.__qualname__}",
        "filename": str(warning.filename),
        "lineno": warning.lineno,
        "line": warning.line,
    }


def warning_arguments(element: dict[str, Any]) -> dict[str, Any]:
    """Arguments of pytest_warning_recorded."""
    category = find_category(element["category"])
    message = warnings.WarningMessage(
        message=as_warning(category, element["text"]),
        category=category,
        filename=element["filename"],
        lineno=element["lineno"],
        line=element["line"],
    )
    location = element["location"]
    return {
        "warning_message": message,
        "when": element["when"],
        "nodeid": element["nodeid"],
        "location": tuple(location) if location is not None else None,
    }


def find_category(name: str) -> type[Warning]:
    """The class of a warning; Warning itself if it cannot be imported here."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception:
        return Warning
    return found if isinstance(found, type) and issubclass(found, Warning) else Warning


def as_warning(category: type[Warning], text: str) -> Warning:
    """A warning that says `text`, of `category` if that takes one text and says it."""
    try:
        warning = category(text)
    except Exception:
        return UserWarning(text)
    return warning if str(warning) == text else UserWarning(text)
