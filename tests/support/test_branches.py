from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.branches import main, room


def measured(covered: int, missing: list[list[int]]) -> dict[str, Any]:
    return {
        "summary": {"num_branches": covered + len(missing), "covered_branches": covered},
        "missing_branches": missing,
    }


FILES = {
    "relay/store/sqlite/group.py": measured(97, [[7, 9], [3, -1], [20, 21]]),
    "relay/store/ulid.py": measured(0, []),
    "relay/intake/connection.py": measured(18, [[1, 2], [1, 3]]),
}


def test_a_rooms_branches_are_those_of_its_files_and_the_missing_ones_are_named_in_order() -> None:
    store = room("store", FILES)
    assert (store.branches, store.covered, store.per_cent) == (100, 97, 97.0)
    assert store.missing == {"relay/store/sqlite/group.py": "3->exit 7->9 20->21"}


def test_a_room_that_was_not_measured_is_no_room_without_gaps() -> None:
    with pytest.raises(LookupError, match="relay/upstream"):
        room("upstream", FILES)


@pytest.mark.parametrize(("rooms", "code"), [(["store"], 0), (["intake"], 1), (["store", "intake"], 1)])
def test_one_room_below_the_least_is_enough_to_fail(tmp_path: Path, rooms: list[str], code: int) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": FILES}))
    assert main([str(report), "95", *rooms]) == code
