"""Read a section's secrets from the files that it names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relay.config.document import Document
from relay.config.errors import Loc
from relay.config.files import read_password
from relay.config.masking import Expanded

_UNREADABLE = Expanded("unread", {"unread": "unread"})


def with_secrets(document: Document, folder: Path, loc: Loc, given: Any, keys: Iterable[str]) -> Any:
    """The section with each of these keys read from its `KEY_file` where there is one; of a list of files, one each. A
    mistake becomes a diagnostic of the document."""
    if not isinstance(given, dict):
        return given
    read = dict(given)
    for key in keys:
        files, where = given.get(f"{key}_file"), (*loc, f"{key}_file")
        if files is None:
            continue
        if given.get(key) is not None:
            document.refuse(where, f"{key} is given too; keep one of the two")
        elif isinstance(files, tuple):
            read[key] = tuple(_read(document, folder, (*where, n), file) for n, file in enumerate(files))
        else:
            read[key] = _read(document, folder, where, files)
    return read


def _read(document: Document, folder: Path, loc: Loc, file: Any) -> Any:
    """The one line of a file."""
    if not isinstance(file, str) or not file:
        return _UNREADABLE  # its type is refused later
    try:
        return read_password(folder / file)
    except ValueError as error:
        document.refuse(loc, str(error))
        return _UNREADABLE
