"""Load a configuration file: `Loaded`, or every mistake in it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.config import checks, defaults, files
from relay.config.document import MAX_BYTES, Document, read
from relay.config.errors import ConfigError, ConfigErrors, Diagnostic, Places, dotted
from relay.config.masking import masker, shown
from relay.config.model import Config, Loaded
from relay.config.named_file import read_named_file
from relay.config.outline import outline
from relay.config.validate import validate

MAX_ERRORS = 100


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    machine_name: Callable[[], str] = defaults.machine_name,
    may_lack_users: bool = False,
) -> Loaded:
    """Read, check and type a configuration. Raises ConfigErrors with every mistake.

    The files that it names (passwords, keys, certificates) are read and checked too; nothing checks them again.
    `machine_name` is called where the file has no `hostname`. `may_lack_users`: a users file may be missing, as before
    its first user is added.
    """
    try:
        content = read_named_file(path, MAX_BYTES)
    except ValueError as error:
        raise ConfigErrors([ConfigError(str(path), 0, 0, "", str(error).removesuffix(f": {path}"))]) from None
    document = read(content, environ)
    places = Places(path, document.marks, document.key_marks)
    if document.readable and not isinstance(document.data, dict):
        got = "nothing but comments" if document.data is None else shown(document.data)
        document.refuse((), f"expected a mapping that begins with a key such as lanes:, got {got}")
        document.readable = False
    if not document.readable:
        raise ConfigErrors(_placed(places, document.diagnostics))
    folder = path.absolute().parent
    data = defaults.complete(document, folder, machine_name)
    credential = files.store_key_credential(environ)
    if data.get("store_key_file") is None and credential is not None:
        data["store_key_file"] = str(credential.absolute())
    return _loaded(places, document, data, folder, may_lack_users=may_lack_users)


def _loaded(
    places: Places, document: Document, data: Mapping[str, Any], folder: Path, *, may_lack_users: bool
) -> Loaded:
    validated = validate(data, folder)
    read = files.FilesRead({}, {})
    store_keys: list[bytes] = []
    later = [
        *validated.diagnostics,
        *checks.check(data, validated.sections),
        *files.check(validated.sections, read, may_lack_users=may_lack_users),
        *_read_store_keys(validated.config, store_keys),
    ]
    mask = masker(document.data)
    reported = [
        one._replace(message=mask(one.message))
        for one in (*document.diagnostics, *_without_consequences(places, document, later))
    ]
    if errors := _placed(places, [one for one in reported if one.kind == "error"]):
        raise ConfigErrors(errors)
    if validated.config is None:
        raise AssertionError("no configuration, but no error either")
    notes = _placed(places, [one for one in reported if one.kind == "note"])
    return Loaded(
        validated.config,
        places.file,
        tuple(f"{note.file}:{note.line}: {note.key}: {note.message}" for note in notes),
        read.pems,
        tuple(store_keys),
        places,
        read.certificate_ends,
        outline(document.data),
    )


def _read_store_keys(config: Config | None, keys: list[bytes]) -> Iterator[Diagnostic]:
    """Put the keys of the `store_key_file` into `keys`."""
    if config is None or config.store_key_file is None:
        return
    try:
        keys += files.read_store_keys(config.store_key_file)
    except ValueError as error:
        yield Diagnostic(("store_key_file",), str(error))
        return
    yield from files.warn_if_exposed(("store_key_file",), config.store_key_file)


def _without_consequences(
    places: Places, document: Document, diagnostics: Iterable[Diagnostic]
) -> Iterator[Diagnostic]:
    """Leave out what is wrong only because of an error reported before."""
    for diagnostic in diagnostics:
        loc = places.written(diagnostic.loc)
        if not any(loc[:n] in document.broken for n in range(len(loc) + 1)):
            yield diagnostic._replace(loc=loc)


def _placed(places: Places, diagnostics: Iterable[Diagnostic]) -> list[ConfigError]:
    """Diagnostics with their places, in the order of the file, without repetitions."""
    placed = {(places.mark(one), dotted(one.loc), one.message): None for one in diagnostics}
    ordered = sorted(placed, key=lambda item: item[0])
    errors = [ConfigError(str(places.file), mark.line, mark.column, key, message) for mark, key, message in ordered]
    if (more := len(errors) - MAX_ERRORS) > 0:
        last = errors[MAX_ERRORS - 1]
        errors[MAX_ERRORS:] = [last._replace(key="", message=f"and {more} more from here on")]
    return errors
