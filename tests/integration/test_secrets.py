# SPDX-License-Identifier: Apache-2.0
"""No secret on a command line, in a log, in a diff, or readable by anybody but root and the one it is for."""

from __future__ import annotations

import re
import threading

import pytest

from tests.integration.world import PLANTED, World

pytestmark = pytest.mark.lab

NEEDLES = "|".join(PLANTED.values())


@pytest.fixture(scope="module")
def loud_run(converged: World) -> tuple[str, str]:
    """A run with everything shown (-vvv --diff) that writes both secrets, and what was seen in the process list meanwhile.

    The secrets are changed and changed back, so that every path that carries them is walked.
    """
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(converged.root("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False))
            stop.wait(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        other = {"notes": {key: f"{value}-rotated" for key, value in PLANTED.items()}}
        converged.write_inventory(vault_apps=other)
        first = converged.playbook("site", "-vvv", "--diff")
        converged.write_inventory()
        second = converged.playbook("site", "-vvv", "--diff")
    finally:
        stop.set()
        watcher.join()
        converged.write_inventory()
    assert first.returncode == 0, first.stdout[-4000:]
    assert second.returncode == 0, second.stdout[-4000:]
    return first.stdout + first.stderr + second.stdout + second.stderr, "\n".join(seen)


def lines_with_secrets(text: str) -> list[str]:
    """Lines that hold a planted secret, cut around the find."""
    return [
        line[max(0, match.start() - 60) : match.end() + 20]
        for line in text.splitlines()
        if (match := re.search(NEEDLES, line))
    ]


def test_the_loudest_run_shows_none(loud_run: tuple[str, str]) -> None:
    assert lines_with_secrets(loud_run[0]) == []


def test_no_command_line_on_the_host_carries_one(loud_run: tuple[str, str]) -> None:
    assert "python" in loud_run[1], "the watcher saw nothing, so it proves nothing"
    assert lines_with_secrets(loud_run[1]) == []


def test_the_rotated_password_is_the_one_in_force(converged: World, loud_run: tuple[str, str]) -> None:
    converged.wait_until_serving(30)


def test_the_hosts_logs_hold_none(converged: World, loud_run: tuple[str, str]) -> None:
    journal = converged.root("journalctl --no-pager -o cat")
    assert len(journal) > 1000
    assert lines_with_secrets(journal) == []
    logs = converged.root(f"grep -rlE '{NEEDLES}' /var/log --exclude-dir=journal || true")
    assert logs.split() == []


def test_files_that_hold_one_are_for_root_alone(converged: World, loud_run: tuple[str, str]) -> None:
    found = converged.root(
        "grep -rlIE --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev "
        f"'{NEEDLES}' /etc /home /opt /root /run /srv /tmp /usr/local /usr/lib/slipway /var/backups /var/cache /var/lib/slipway /var/spool /var/tmp || true",
        timeout=300,
    ).split()
    assert "/etc/slipway/apps/notes/app.env" in found, (
        "the needle was not found where it must be: the search proves nothing"
    )
    # Docker's own copies bear mode 0644 below folders that only root may enter: what counts is whether anybody else can read.
    open_to_others = [
        path
        for path in found
        if converged.root(f"runuser -u nobody -- cat {path} 2>/dev/null | wc -c", check=False).strip() != "0"
    ]
    assert open_to_others == []
    owners = set(converged.root(["stat", "-c", "%U", *found], check=False).split())
    assert owners == {"root"}


def test_an_unprivileged_user_can_read_none_of_them(converged: World, loud_run: tuple[str, str]) -> None:
    seen = converged.root(
        f"runuser -u nobody -- grep -rsIE '{NEEDLES}' /etc /run /tmp /var/lib/slipway /var/tmp /home /usr/lib/slipway || true",
        timeout=300,
    )
    assert seen == ""


def test_the_postgres_log_and_catalogue_hold_only_verifiers(converged: World, loud_run: tuple[str, str]) -> None:
    stored = converged.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'notes'", database="postgres")
    assert stored.startswith("SCRAM-SHA-256$")
    text = converged.sql("SELECT string_agg(query, E'\\n') FROM pg_stat_statements", database="postgres")
    assert lines_with_secrets(text) == []
