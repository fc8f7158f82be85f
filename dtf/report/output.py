"""What a case printed and why it failed, as plain text made of hostile bytes.

pytest's serialized reports are read without pytest: a report needs their text, not their objects.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dtf.api.v1 import common_pb2, events_pb2

PART_CHARACTERS_LIMIT = 64 * 1024
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""What a terminal or a browser obeys rather than prints; overrides of the direction of writing show what is not there."""


@dataclass(frozen=True, slots=True)
class OutputPart:
    """One piece of text with its heading."""

    title: str
    text: str


def output_parts(detail: events_pb2.CaseDetail, reports_json: bytes) -> list[OutputPart]:
    """The parts of one try, why it failed before what it printed."""
    parts = list(_report_parts(reports_json))
    parts += [
        OutputPart(f"{found.name} in the result file", found.message)
        for found in detail.found
        if found.verdict in (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR)
    ]
    if detail.output_tail:
        parts.append(OutputPart("End of what it printed", detail.output_tail))
    return [OutputPart(part.title, plain(part.text)) for part in parts if part.text.strip()]


def plain(text: str) -> str:
    """`text` without terminal escapes, with other control characters visible, and not longer than a part may be."""
    text = _ESCAPES.sub("", text.encode("utf-8", "backslashreplace").decode("utf-8"))
    text = _CONTROLS.sub(_visible, text.replace("\r\n", "\n"))
    if len(text) <= PART_CHARACTERS_LIMIT:
        return text
    half = PART_CHARACTERS_LIMIT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def plain_line(text: str) -> str:
    """`text` as one line that a terminal only prints: names and messages are other people's."""
    return plain(text).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _report_parts(reports_json: bytes) -> Iterator[OutputPart]:
    try:
        elements = json.loads(reports_json) if reports_json else []
    except ValueError:
        return
    sections: dict[tuple[str, str], None] = {}
    for element in elements if isinstance(elements, list) else []:
        if not isinstance(element, dict):
            continue
        if element.get("outcome") == "failed":
            yield OutputPart(_title(element), longrepr_text(element.get("longrepr")))
        for section in _items(element.get("sections")):
            if isinstance(section, list) and len(section) == 2:
                sections[str(section[0]), str(section[1])] = None
    for title, text in sections:
        yield OutputPart(title, text)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _title(element: Mapping[str, Any]) -> str:
    when = element.get("when")
    return "Why it failed" if when in ("call", None) else f"Why its {when} failed"


def longrepr_text(longrepr: object) -> str:
    """The text of a serialized longrepr, whatever shape it has."""
    if isinstance(longrepr, str):
        return longrepr
    if isinstance(longrepr, list):
        return str(longrepr[-1]) if longrepr else ""
    if not isinstance(longrepr, dict):
        return ""
    chain = longrepr.get("chain")
    if isinstance(chain, list) and chain:
        return "\n\n".join(text for link in chain if (text := _link_text(link)))
    return _traceback_text(longrepr.get("reprtraceback"))


def _link_text(link: object) -> str:
    if not isinstance(link, list) or not link:
        return ""
    text = _traceback_text(link[0])
    said = link[2] if len(link) > 2 else None
    return f"{text}\n\n{said}" if said else text


def _traceback_text(traceback: object) -> str:
    if not isinstance(traceback, dict):
        return ""
    blocks = [_entry_text(entry) for entry in _items(traceback.get("reprentries"))]
    if extra := traceback.get("extraline"):
        blocks.append(str(extra))
    return "\n\n".join(block for block in blocks if block)


def _entry_text(entry: object) -> str:
    data = entry.get("data") if isinstance(entry, dict) else None
    if not isinstance(data, dict):
        return ""
    lines = [str(line) for line in _items(data.get("lines"))]
    where = data.get("reprfileloc")
    if isinstance(where, dict):
        lines.append(f"{where.get('path')}:{where.get('lineno')}: {where.get('message')}")
    return "\n".join(lines)
