"""Every configuration in the documents loads, whole or as a fragment; every other YAML belongs to a known program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import Block, all_blocks
from tests.docs.configs import Files, fragments, whole

BLOCKS = [one for one in all_blocks("yaml") if one.not_run is None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("documents"))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda one: one.place)
def test_a_configuration_in_a_document_loads(block: Block, files: Files) -> None:
    for fragment in fragments(block.text):
        files.load(whole(fragment))


def test_a_fragment_with_a_wrong_key_is_noticed(files: Files) -> None:
    with pytest.raises(Exception, match=r"superseed: unknown key; did you mean supersede\?"):
        files.load(whole({"lanes": {"otp": {"superseed": True}}}))


def test_the_files_that_a_configuration_names_are_read(files: Files) -> None:
    fragment: dict[str, Any] = {
        "dkim": [{"domain": "example.com", "keys": [{"selector": "s1", "key_file": "/etc/otp-relay/s1.pem"}]}]
    }
    (key,) = files.load(whole(fragment)).config.dkim[0].keys
    assert Path(key.key_file).is_relative_to(files.folder)
