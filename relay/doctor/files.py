"""Permissions of the files that matter (keys, passwords, the store) and of their folders."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from relay.config.access import OAuth2
from relay.config.feedback import Webhook
from relay.config.model import Config, Loaded, Upstream
from relay.doctor.finding import About, Finding
from relay.store.base import StoreError, StoreSealed
from relay.store.keys import find_codec, own_key_file
from relay.store.merge import shards
from relay.store.sqlite.maintenance import check_keys
from relay.upstream.oauth_file import token_file


def secrets(config: Config) -> dict[Path, str]:
    """The files that contain a credential, and what each is."""
    http = config.http
    named: list[tuple[Path | None, str]] = [
        *((key.key_file, "a DKIM key") for entry in config.dkim for key in entry.keys),
        *(one for name, upstream in config.upstreams.items() for one in _of_upstream(name, upstream)),
        *((one.key_file, "a listener's TLS key") for one in config.listen if one.tls != "none"),
        *((one.users_file, "a listener's users") for one in config.listen if one.auth == "required"),
        *((one.secret_file, "the secret of a receiver of events") for one in config.events),
        *((path, "a token of http") for path in (http.token_file, http.read_token_file, http.send_token_file)),
        (config.store_key_file, "the store's key"),
    ]
    return {path: what for path, what in named if path is not None}


def _of_upstream(name: str, upstream: Upstream) -> Iterator[tuple[Path | None, str]]:
    api, oauth2, webhook = upstream.api, upstream.oauth2 or OAuth2(), upstream.webhook or Webhook()
    yield upstream.username_file, f"the user name of {name}"
    yield upstream.password_file, f"the password of {name}"
    yield api.key_file, f"the API key of {name}"
    yield api.access_key_id_file, f"an AWS key of {name}"
    yield api.secret_access_key_file, f"an AWS key of {name}"
    yield oauth2.client_id_file, f"the OAuth 2 client of {name}"
    yield oauth2.client_secret_file, f"the OAuth 2 client of {name}"
    yield oauth2.refresh_token_file, f"the refresh token of {name}"
    yield oauth2.service_account_file, f"the service account of {name}"
    for path in webhook.secret_file:
        yield path, f"a webhook's secret of {name}"


def check(loaded: Loaded) -> list[Finding]:
    """Check every secret, the store's files, and their folders."""
    found: list[Finding] = []
    config = loaded.config
    files = secrets(config)
    store = config.store.resolve()
    files |= {store.with_name(store.name + end): "the store" for end in ("", "-wal", "-shm")}
    files[own_key_file(store)] = "the store's own key"
    for name, upstream in config.upstreams.items():
        if upstream.oauth2 is not None and upstream.oauth2.grant == "refresh_token":
            files[token_file(store, name, None).path] = f"the newest refresh token of {name}"
    for path, what in files.items():
        found += _file(path, what)
    for folder in dict.fromkeys(path.resolve().parent for path in files):
        found += _folder(folder)
    if not found:
        text = f"keys, passwords and store are closed to other users ({len(files)} files)"
        found.append(About("files").ok(text))
    return [*found, _at_rest(loaded)]


def _at_rest(loaded: Loaded) -> Finding:
    config = loaded.config
    about, own = About("store", str(config.store)), own_key_file(config.store)
    try:
        codec = find_codec(config.store, loaded.store_keys, config.store_key_file)
        for path in (config.store, *shards(config.store)):
            if path.exists():
                check_keys(path, codec)
    except StoreSealed as error:
        hint = f"put its key back into {own} or the file that store_key_file names; the relay doesn't start without it"
        return about.fail(str(error), hint)
    except PermissionError:
        return about.unknown("this user may not look into it", "run doctor as the relay's user")
    except StoreError as error:
        return about.unknown(str(error), "otp-relay store check tells more")
    if loaded.store_keys:
        count = "" if len(loaded.store_keys) == 1 else f", {len(loaded.store_keys)} keys: the first encrypts"
        return about.ok(f"waiting mail is encrypted ({config.store_key_file}{count})")
    made = "" if own.exists() else "; the next start makes it"
    return about.ok(f"waiting mail is encrypted with the store's own key ({own}{made})")


def _file(path: Path, what: str) -> Iterator[Finding]:
    about = About("files", str(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        return  # a store that doesn't exist yet; the other files were read when the configuration was loaded
    except OSError as error:
        yield about.unknown(f"{what}: {error.strerror}", "run doctor as the relay's user")
        return
    judged = judge_file(found.st_mode, owned_by_root=found.st_uid == 0)
    if judged is not None:
        status, text = judged
        yield about.found(status, f"{what}: {text}", f"chmod 600 {path}")


def judge_file(mode: int, *, owned_by_root: bool) -> tuple[Literal["warn", "fail"], str] | None:
    """What is wrong with the permissions of a file that contains a secret; None for 0600 and less.

    root:relay 0640 passes, too: a service may read what it can't change.
    """
    octal = f"{stat.S_IMODE(mode):04o}"
    if mode & stat.S_IWOTH:
        return "fail", f"every user of this machine can change it ({octal})"
    if mode & stat.S_IROTH:
        return "warn", f"every user of this machine can read it ({octal})"
    if mode & stat.S_IWGRP:
        return "warn", f"its group can change it ({octal})"
    if mode & stat.S_IRGRP and not owned_by_root:
        return "warn", f"its group can read it ({octal})"
    return None


def _folder(folder: Path) -> Iterator[Finding]:
    try:
        mode = folder.stat().st_mode
    except OSError:
        return  # doesn't exist yet: `run` makes it, 0700
    judged = judge_folder(mode)
    if judged is not None:
        status, text = judged
        yield About("files", str(folder)).found(status, text, f"chmod go-w {folder}")


def judge_folder(mode: int) -> tuple[Literal["warn", "fail"], str] | None:
    """What is wrong with a folder. A user with write access can replace a secret in it, unless it is sticky (/tmp)."""
    if not mode & stat.S_IWOTH:
        return None
    if mode & stat.S_ISVTX:
        return "warn", "every user of this machine can put files beside ours here"
    return "fail", "every user of this machine can replace the files in this folder"
