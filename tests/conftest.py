"""Fixtures that more than one folder uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import forks
from tests.support.order import ordered
from tests.support.tls import Certificates, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A long text is no name for a test, least of all one that holds a key made anew each time: tests that run side
    by side have to be called the same in every process."""
    return argname if isinstance(val, str) and len(val) > 50 else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = ordered(items, config.rootpath)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    with forks.use():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Around a test with the fixtures that it is the first to ask for."""
    forks.SERVER.is_used = item.get_closest_marker("fresh") is None
    return (yield)
