"""Read a file that the configuration names, up to a size, with errors fit for an operator."""

from __future__ import annotations

from pathlib import Path

MAX_SECRET_BYTES = 1 << 16


def read_named_file(path: Path, max_bytes: int = MAX_SECRET_BYTES) -> bytes:
    """The file's content. Raises ValueError with one line that names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise ValueError(f"expected a file, but this is a folder: {path}") from None
    except PermissionError:
        hint = "run it as root or as the relay's user"
        raise ValueError(f"can't read {path}: permission denied: {hint}") from None
    except OSError as error:
        raise ValueError(f"can't read {path}: {(error.strerror or 'input/output error').lower()}") from None
    if len(data) > max_bytes:
        raise ValueError(f"{path} is larger than {max_bytes // 1024} KiB")
    return data
