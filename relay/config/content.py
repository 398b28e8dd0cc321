"""A file that an operator names, read whole."""

from __future__ import annotations

from pathlib import Path

MAX_SECRET_BYTES = 1 << 16


def content(path: Path, most_bytes: int = MAX_SECRET_BYTES) -> bytes:
    """What stands in a file of up to so many bytes. Raises ValueError with one line that names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise ValueError(f"expected a file, but this is a folder: {path}") from None
    except PermissionError:
        hint = "run it as root or as the relay's user"
        raise ValueError(f"can't read {path}: permission denied: {hint}") from None
    except OSError as error:
        raise ValueError(f"can't read {path}: {(error.strerror or 'input/output error').lower()}") from None
    if len(data) > most_bytes:
        raise ValueError(f"{path} is larger than {most_bytes // 1024} KiB")
    return data
