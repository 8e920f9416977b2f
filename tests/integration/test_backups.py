# SPDX-License-Identifier: Apache-2.0
"""Backups as site.yml sets them up: by timer, in a sandbox, proved, told when they die, and secret."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.integration.backups import PASSWORD, Backups
from tests.integration.world import recap

pytest_plugins = ["tests.integration.backups_fixture"]
pytestmark = pytest.mark.lab

UNITS = ("slipway-backup.service", "slipway-drill.service", "slipway-restore.service", "slipway-alarm@x.service")
EXPOSURE = 1.5
"""The most that systemd-analyze may find, of 10; measured 1.1."""


def identity(backups: Backups) -> str:
    """The drills' secret key."""
    return (backups.world.lab.folder / "drill.age").read_text().strip()


# -- what is set up -----------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_a_check_shows_no_diff(backups: Backups) -> None:
    assert recap(backups.ok())["changed"] == 0
    done = backups.ok("--check", "--diff")
    assert recap(done)["changed"] == 0
    assert "+++ after" not in done.stdout


def test_the_first_backup_is_taken_at_once_and_the_timers_stand(backups: Backups) -> None:
    assert backups.data("backup", "list")["backups"]
    for name in ("slipway-backup.timer", "slipway-drill.timer"):
        found = backups.unit(name, "ActiveState", "UnitFileState", "Persistent")
        assert found == {"ActiveState": "active", "UnitFileState": "enabled", "Persistent": "yes"}


def test_two_backups_are_half_a_day_apart(backups: Backups) -> None:
    text = backups.world.root("systemctl cat slipway-backup.timer")
    calendar = re.search(r"OnCalendar=(.+)", text)
    assert calendar
    said = backups.world.root(["systemd-analyze", "calendar", "--iterations=3", calendar[1]])
    hours = [int(hour) for hour in re.findall(r"(?:Next elapse|Iteration #\d): \S+ \S+ (\d\d):15:00 UTC", said)]
    assert sorted(set(hours)) == [2, 14]
    assert "FixedRandomDelay=true" in text, "a delay that changes would stretch the interval"


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_in_a_sandbox(backups: Backups, unit: str) -> None:
    said = backups.world.root(["systemd-analyze", "security", "--no-pager", unit], check=False)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert score, said[-400:]
    assert float(score[1]) <= EXPOSURE


def test_the_app_comes_first(backups: Backups) -> None:
    found = backups.unit("slipway-backup.service", "Slice", "Nice", "CPUWeight", "IOWeight", "MemoryMax")
    assert found["Slice"] == "slipway.slice"
    assert int(found["Nice"]) >= 10
    assert int(found["CPUWeight"]) < 100
    assert int(found["MemoryMax"]) == 512 * 2**20


def test_the_role_of_backups_is_a_system_users_alone(backups: Backups) -> None:
    found = backups.sql(
        "SELECT rolsuper, rolpassword IS NULL FROM pg_authid WHERE rolname = 'slipway_backup'", "postgres"
    )
    assert found == "t|t"
    asked = "psql -XAtw -U slipway_backup -d postgres -c 'SELECT current_user'"
    assert "slipway_backup" in backups.world.root(f"runuser -u slipway-backup -- {asked}")
    for who in ("slipway-drill", "nobody", "root"):
        refused = backups.world.root(f"runuser -u {who} -- {asked} 2>&1; true")
        assert "failed" in refused, f"{who}: {refused}"
    over_tcp = backups.world.root(f"runuser -u slipway-backup -- {asked} -h 127.0.0.1 2>&1; true")
    assert "pg_hba.conf rejects" in over_tcp


# -- a backup, proved ---------------------------------------------------------------------------------------------


def test_a_backup_is_proved_by_a_drill_and_leaves_evidence(backups: Backups) -> None:
    backups.slipway("backup", "run")
    newest = backups.data("backup", "list")["backups"][0]
    assert newest["problem"] == ""
    backups.slipway("drill", "run")
    (last,) = backups.data("drill", "list", "--lines", "1")["drills"]
    assert last["verdict"] == "proved"
    assert last["tried"][-1]["backup_id"] == newest["id"]
    assert 0 < last["recovery"]["rto_ms"] < last["recovery"]["rto_target_ms"]
    assert last["recovery"]["rpo_worst_ms"] < last["recovery"]["rpo_target_ms"]
    assert backups.data("backup", "list")["backups"][0]["proof"] == "proved"
    assert backups.data("drill", "verify-chain")["whole"] is True
    assert backups.world.root("ls /var/lib/slipway/drill/scratch") == "", "the scratch cluster is gone"
    copies = backups.world.root("ls /var/backups/slipway/db1/evidence").split()
    assert copies, "a copy of the evidence lies beside the backups"
    metrics = backups.world.root("cat /var/lib/slipway/metrics/drill.prom")
    assert 'slipway_drill_verdict{verdict="proved"} 1' in metrics


def test_a_database_that_nobody_listed_is_backed_up_and_reported(backups: Backups) -> None:
    backups.sql("CREATE DATABASE stray", "postgres")
    try:
        said = backups.slipway("backup", "run")
        assert "stray" in said
        manifest = backups.data("backup", "show")["manifest"]
        assert manifest["unlisted"] == ["stray"]
        assert "stray" in {one["name"] for one in manifest["contents"]["databases"]}
    finally:
        backups.sql("DROP DATABASE stray", "postgres")


def test_playbooks_take_drill_and_plan(backups: Backups) -> None:
    taken = backups.world.playbook("take_backup")
    assert taken.returncode == 0, taken.stdout[-3000:]
    assert "databases" in taken.stdout
    drilled = backups.world.playbook("run_drill")
    assert drilled.returncode == 0, drilled.stdout[-3000:]
    assert "proved" in drilled.stdout
    planned = backups.world.playbook("prune_backups", "--check")
    assert planned.returncode == 0, planned.stdout[-3000:]
    assert "0 to remove" in planned.stdout


def test_a_drill_of_a_damaged_backup_fails_and_the_playbook_says_so(backups: Backups) -> None:
    backups.slipway("backup", "run")
    newest = backups.data("backup", "list")["backups"][0]["id"]
    dump = backups.world.root(f"ls /var/backups/slipway/db1/{newest}/*-dump-notes").strip()
    backups.world.root(f"printf X | dd of={dump} bs=1 seek=600 conv=notrunc status=none")
    done = backups.world.playbook("run_drill", "-e", f"backup={newest}")
    assert done.returncode != 0
    assert "The drill FAILED" in done.stdout
    backups.world.root(f"rm -r /var/backups/slipway/db1/{newest}")
    backups.slipway("backup", "run")


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_backup_that_is_killed_raises_the_alarm_leaves_a_record_and_the_next_one_is_fine(backups: Backups) -> None:
    holder = threading.Thread(
        target=lambda: backups.sql("BEGIN; LOCK TABLE notes IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(25)")
    )
    holder.start()
    try:
        time.sleep(1)
        backups.world.root("systemctl start --no-block slipway-backup.service")
        until = time.monotonic() + 30
        while not backups.world.root("cat /var/lib/slipway/backup/lock") and time.monotonic() < until:
            time.sleep(0.2)  # until it has begun: its lock says who it is
        backups.world.root("systemctl kill --signal=KILL slipway-backup.service")
        assert backups.wait_idle("slipway-backup.service") == "signal"
    finally:
        holder.join()
    backups.wait_idle("slipway-alarm@slipway-backup.service")
    log = backups.world.root("journalctl -u slipway-alarm@slipway-backup.service -o cat --no-pager")
    assert "was killed" in log or "slipway-backup of db1 failed" in log, log[-600:]
    check = backups.data("backup", "check")
    assert any("failed" in text for text in check["warnings"]), check
    backups.slipway("backup", "run")
    assert backups.data("backup", "check")["good"] is True
    backups.world.root("systemctl reset-failed 'slipway-*'")


# -- secrets ------------------------------------------------------------------------------------------------------


def test_the_key_that_opens_backups_is_seen_nowhere(backups: Backups) -> None:
    """Not in the loudest run, the diff, a command line, the journal, or a file that is not sealed."""
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(
                backups.world.root(
                    "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '", check=False
                )
            )
            stop.wait(0.2)

    key = identity(backups)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        backups.world.root("rm -f /etc/slipway/backup/credentials/identity.cred")
        loud = backups.ok("-vvv", "--diff")
        backups.slipway("drill", "run")
    finally:
        stop.set()
        watcher.join()
    assert "identity.cred" in loud.stdout
    assert key not in loud.stdout + loud.stderr
    assert PASSWORD not in loud.stdout + loud.stderr
    assert "python" in "".join(seen)
    assert key not in "".join(seen)
    assert key not in backups.world.root("journalctl --no-pager -o cat")
    found = backups.world.root(
        f"grep -rlsF '{key}' /etc /home /opt /root /run /srv /tmp /var/backups /var/lib /var/log /var/tmp || true",
        timeout=300,
    )
    assert found.split() == []


def test_others_can_read_neither_keys_nor_backups(backups: Backups) -> None:
    for path in (
        "/etc/slipway/backup/credentials",
        "/var/backups/slipway",
        "/var/lib/slipway/drill",
        "/var/lib/slipway/backup",
    ):
        assert "denied" in backups.world.root(f"runuser -u nobody -- ls {path} 2>&1; true"), path
    assert backups.world.root("stat -c %a /etc/slipway/backup/credentials/identity.cred").strip() == "600"
    backups.world.root("runuser -u nobody -- cat /var/lib/slipway/metrics/backup.prom")
    assert "denied" in backups.world.root(
        "runuser -u slipway-drill -- sh -c 'rm -r /var/backups/slipway/db1/2*' 2>&1; true"
    )


def test_drills_that_move_elsewhere_take_the_key_with_them(backups: Backups) -> None:
    backups.ok(slipway_drills_beside_database=False)
    try:
        backups.world.root("test ! -e /etc/slipway/backup/credentials/identity.cred")
        assert "identity" not in backups.world.root("systemctl cat slipway-restore.service")
    finally:
        backups.ok()


# -- the real restore ---------------------------------------------------------------------------------------------


def test_into_a_new_database_and_over_the_live_one_and_back(backups: Backups) -> None:
    backups.slipway("backup", "run")
    backups.sql("DELETE FROM tags; DELETE FROM notes WHERE id > 10")
    beside = backups.world.playbook("restore_database", "-e", "database=notes", "-e", "into=notes_look")
    assert beside.returncode == 0, beside.stdout[-4000:]
    assert "Plan:" in beside.stdout
    assert backups.sql("SELECT count(*) FROM notes", "notes_look") == "1000"
    assert backups.sql("SELECT count(*) FROM notes") == "10"
    backups.sql("DROP DATABASE notes_look", "postgres")

    # The latest as of now: not the safety backup, which holds what is to be undone.
    wanted = ("-e", "database=notes")
    typo = backups.world.playbook("restore_database", *wanted, "-e", "over=note")
    assert typo.returncode != 0
    assert "typed once more" in typo.stdout
    over = backups.world.playbook("restore_database", *wanted, "-e", "over=notes")
    assert over.returncode == 0, over.stdout[-4000:]
    assert backups.sql("SELECT count(*) FROM notes") == "1000"
    assert backups.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'notes'") == "notes"
    back = backups.world.playbook("restore_database", "-e", "undo=notes")
    assert back.returncode == 0, back.stdout[-4000:]
    assert backups.sql("SELECT count(*) FROM notes") == "10"
    assert recap(backups.ok())["changed"] == 0, "site.yml agrees with what a restore leaves"


def test_with_the_operators_own_key_alone(backups: Backups) -> None:
    """The drills' key is on no server; the recovery key is lent for one restore, and leaves nothing behind."""
    backups.slipway("backup", "run")
    backups.ok(slipway_drills_beside_database=False)
    try:
        recovery = backups.world.lab.folder / "recovery.age"
        wish = ("-e", "database=notes", "-e", "into=notes_recovered")
        without = backups.world.playbook("restore_database", *wish)
        assert without.returncode != 0
        assert "There is no age identity on this host" in without.stdout, without.stdout[-2000:]
        done = backups.world.playbook("restore_database", *wish, "-e", f"identity_file={recovery}")
        assert done.returncode == 0, done.stdout[-4000:]
        assert int(backups.sql("SELECT count(*) FROM notes", "notes_recovered")) > 0
        assert "lent" not in backups.world.root("ls /run/slipway")
        assert "lent" not in backups.world.root("systemctl cat slipway-restore.service")
        assert recovery.read_text().strip() not in done.stdout
    finally:
        backups.world.root("runuser -u postgres -- psql -Xqc 'DROP DATABASE IF EXISTS notes_recovered'")
        backups.ok()
