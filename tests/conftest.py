"""Fixtures that more than one folder uses."""

from __future__ import annotations

import pytest

from tests.support.tls import Certificates, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A long text is no name for a test, least of all one that holds a key made anew each time: tests that run side
    by side have to be called the same in every process."""
    return argname if isinstance(val, str) and len(val) > 50 else None
