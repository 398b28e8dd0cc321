"""The keys that seal a store's contents: the operator's, or one of the store's own, made at its first start."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from relay.store import maintenance
from relay.store.base import StoreError
from relay.store.codec import Codec, Plain, Sealed
from relay.store.sqlite import files
from relay.store.sqlite.maintenance import check_keys
from relay.store.sqlite.schema import create_private, prepare


def own_key_file(store: Path) -> Path:
    """Where the store's own key is: `relay.db.key` beside `relay.db`."""
    path = files.absolute(store)
    return path.with_name(path.name + ".key")


def find_codec(store: Path, configured: Sequence[bytes], configured_file: Path | None) -> Codec:
    """The codec of all of a store's files, with the keys that are there: the configured ones, then the store's own.
    Without any, it is `Plain`. Raises StoreError."""
    from relay.config.files import read_store_keys  # here, for the commands that only want the file's name

    own = own_key_file(store)
    try:
        keys = (*configured, *(read_store_keys(own) if own.exists() else ()))
    except ValueError as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise files.explain(own, error) from error
    if not keys:
        return Plain(f"{own} is missing")
    return Sealed(keys, str(configured_file or own))


def open_codec(store: Path, configured: Sequence[bytes], configured_file: Path | None) -> Codec:
    """`find_codec` for the relay: where no key is configured and the store has none of its own, one is made. Raises
    StoreSealed where mail waits that a lost key sealed; StoreError, StoreDamaged."""
    codec = find_codec(store, configured, configured_file)
    if codec.key_id is not None:
        return codec
    lock = files.lock(files.absolute(store))
    try:
        for path in maintenance.files(store):
            prepare(path)
            check_keys(path, codec)
        _make(own_key_file(store))
    except OSError as error:
        raise files.explain(own_key_file(store), error) from error
    finally:
        os.close(lock)
    return find_codec(store, configured, configured_file)


def _make(path: Path) -> None:
    """Under another name first: a key file of this name is always whole, and on the disk before anything is sealed."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    create_private(new)
    with new.open("r+b") as file:
        file.write(base64.b64encode(os.urandom(32)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    maintenance.sync_folder(path.parent)
