"""The order of test files over several processes: those that take longest begin first, so that none is left at the end.

`--dist loadfile` gives a process one file after the other. pytest-xdist would begin with the files that have the most
tests, but a file that takes long often has few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

LONGEST = (
    "tests/e2e/test_life.py",
    "tests/browser/test_console.py",
    "tests/upstream/test_pipeline.py",
    "tests/intake/test_security.py",
    "tests/e2e/test_death.py",
    "tests/e2e/test_split.py",
    "tests/e2e/test_sealed.py",
    "tests/delivery/test_random.py",
    "tests/demo/test_parts.py",
    "tests/e2e/test_reload_trouble.py",
    "tests/observe/test_tracing.py",
    "tests/delivery/test_matrix.py",
    "tests/e2e/test_isolation.py",
    "tests/workers/test_poison.py",
    "tests/e2e/test_send.py",
    "tests/web/test_local_user.py",
    "tests/workers/test_forward_trouble.py",
    "tests/upstream/test_pool.py",
    "tests/e2e/test_kill.py",
    "tests/e2e/test_feedback.py",
    "tests/fuzz/test_costs.py",
    "tests/e2e/test_bad_input.py",
    "tests/e2e/test_disk.py",
    "tests/e2e/test_feedback_life.py",
    "tests/e2e/test_apps.py",
    "tests/cli/test_imports.py",
    "tests/upstream/test_matrix.py",
    "tests/delivery/test_exits.py",
    "tests/workers/test_workers.py",
    "tests/web/test_paced_json.py",
    "tests/workers/test_hanging.py",
    "tests/store/test_sqlite_stateful.py",
    "tests/providers/test_webhook_junk.py",
    "tests/demo/test_terminal.py",
    "tests/delivery/test_adaptive.py",
    "tests/packaging/test_monitoring.py",
    "tests/e2e/test_outcomes.py",
    "tests/store/test_batches.py",
    "tests/e2e/test_bytes.py",
    "tests/e2e/test_log_reader.py",
    "tests/workers/test_signer_workers.py",
    "tests/packaging/test_installed.py",
    "tests/docs/test_start.py",
    "tests/cli/test_commands.py",
    "tests/delivery/test_faults.py",
    "tests/policy/test_suppression.py",
    "tests/mail/test_rebuilding_any.py",
    "tests/e2e/test_feedback_flood.py",
    "tests/upstream/test_reading_ahead.py",
    "tests/delivery/test_delivery.py",
    "tests/docs/test_app_snippets.py",
    "tests/cli/test_init.py",
    "tests/upstream/test_faults.py",
    "tests/e2e/test_backup.py",
    "tests/intake/test_connection.py",
    "tests/e2e/test_reload_midway.py",
    "tests/e2e/test_secrets.py",
    "tests/e2e/test_postfix.py",
    "tests/workers/test_shares.py",
    "tests/upstream/test_pipeline_stateful.py",
    "tests/e2e/test_service_manager.py",
    "tests/cli/test_send_test.py",
)
"""files that take 8 s and more, measured; a missing one costs some seconds of waiting at the end"""


class Item(Protocol):
    """A test."""

    @property
    def path(self) -> Path: ...


T = TypeVar("T", bound=Item)


def ordered(items: Sequence[T], root: Path) -> list[T]:
    """The same tests, file by file: LONGEST first, then those with the most tests."""
    files = [str(item.path.relative_to(root)) for item in items]
    tests, place = Counter(files), {file: at for at, file in enumerate(LONGEST)}

    def key(at: int) -> tuple[int, int, str]:
        file = files[at]
        return place.get(file, len(LONGEST)), -tests[file], file

    return [items[at] for at in sorted(range(len(items)), key=key)]
