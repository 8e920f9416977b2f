# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery on a server: any second can be gone back to, and what would prevent that is told beforehand.

Differences from a VPS: the repository is a folder of the host itself, and its being away is a folder that may not be entered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.pitr_host import PASSPHRASE, PitrHost, pitr_host
from tests.integration.world import recap

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def host() -> Iterator[PitrHost]:
    with pitr_host() as made:
        yield made


def drill(host: PitrHost, *words: str) -> dict[str, Any]:
    """A drill's record."""
    done = host.pitr("drill", "--json", *words)
    return dict(json.loads(done.stdout), code=done.returncode)


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["status"] for each in record["checks"]}


def test_a_second_run_changes_nothing_and_check_mode_shows_no_diff(host: PitrHost) -> None:
    assert recap(host.converge())["changed"] == 0
    checked = host.converge("--check", "--diff")
    assert recap(checked)["changed"] == 0, checked.stdout[-3000:]
    assert recap(checked)["failed"] == 0
    assert not re.search(r"^[+-]", checked.stdout, flags=re.MULTILINE)


def test_the_passphrase_is_for_root_and_postgres_alone(host: PitrHost) -> None:
    found = host.world.root(
        f"grep -rl {PASSPHRASE} /etc /var/lib/slipway /var/spool/pgbackrest /var/log /run 2>/dev/null || true"
    ).split()
    assert found == ["/etc/pgbackrest/conf.d/secrets.conf"]
    assert host.world.root("stat -c '%a %U %G' /etc/pgbackrest/conf.d/secrets.conf").split() == [
        "640",
        "root",
        "postgres",
    ]
    assert PASSPHRASE not in host.ok("--diff", pitr_keep_days=15)
    host.ok()
    assert PASSPHRASE not in host.world.root("journalctl --no-pager --output=cat")


def test_nothing_in_the_repository_can_be_read_without_the_passphrase(host: PitrHost) -> None:
    host.world.sql("CREATE TABLE IF NOT EXISTS plain (t text); INSERT INTO plain VALUES ('planted-row-kq83hz7w')")
    host.switch()
    host.good("backup", "--type", "diff")
    listed = host.world.root(
        "find /var/lib/pgbackrest -type f | wc -l; grep -rc planted-row-kq83hz7w /var/lib/pgbackrest | grep -v ':0$' || true"
    )
    assert int(listed.split()[0]) > 5
    assert len(listed.split()) == 1


def test_a_drill_proves_a_chosen_second_and_is_on_record(host: PitrHost) -> None:
    record = drill(host)
    assert record["code"] == 0, record
    assert record["verdict"] == "proved"
    assert set(statuses(record).values()) == {"passed"}
    assert {"row before", "row after", "marks", "structure"} <= set(statuses(record))
    measured = record["recovery"]
    assert 0 < measured["rto_ms"] < 3_600_000
    assert 60_000 <= measured["rpo_worst_ms"] < 3_600_000
    assert measured["misses"] == []
    chain = [json.loads(line) for line in host.world.root("cat /var/lib/slipway/drill/evidence.jsonl").splitlines()]
    assert chain[-1]["record"]["drill"]["drill_id"] == record["drill_id"]
    assert host.world.root("ls -A /var/lib/slipway/pitr/scratch") == "", "it left something behind"


def test_the_drill_cannot_touch_the_live_data(host: PitrHost) -> None:
    assert "/var/lib/postgresql/17/main" in host.world.root(
        "systemctl show --value -p InaccessiblePaths slipway-pitr-drill.service"
    )
    exposure = host.world.root("systemd-analyze security --no-pager slipway-pitr-drill.service | tail -1")
    assert float(re.findall(r"\d+\.\d", exposure)[0]) < 4.0, exposure


def test_a_drill_of_a_past_second_looks_for_the_marks_of_that_time(host: PitrHost) -> None:
    host.good("check", "--timer")
    then = host.now()
    host.good("check", "--timer")
    record = drill(host, "--to-time", then)
    assert record["verdict"] == "proved", record
    recovered = next(each["actual"] for each in record["checks"] if each["name"] == "recovery")
    assert then.replace("T", " ").replace("Z", " UTC") in recovered


def test_a_database_comes_back_as_it_was_under_a_new_name(host: PitrHost) -> None:
    host.world.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, what text); INSERT INTO orders SELECT g, 'x' FROM generate_series(1, 500) g"
    )
    host.world.sql("ALTER TABLE orders OWNER TO notes")
    then = host.now()
    host.world.sql("DELETE FROM orders WHERE id > 100")  # somebody's mistake
    text = host.good("restore", "--database", "notes", "--to-time", then, "--into", "notes_then")
    assert "notes_then" in text
    assert host.world.sql("SELECT count(*) FROM orders", "notes_then") == "500"
    assert host.world.sql("SELECT count(*) FROM orders", "notes") == "100", "the live one was touched"
    assert host.world.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", "notes_then") == "notes"
    again = host.pitr("restore", "--database", "notes", "--to-time", then, "--into", "notes_then")
    assert again.returncode == 1
    assert "There is a database notes_then already" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--to-time", "2020-01-01T00:00:00Z", "--database", "notes", "--plan"),
            "before the end of the oldest base backup",
        ),
        (("--to-time", "2099-01-01T00:00:00Z", "--database", "notes", "--plan"), "in the future"),
        (("--to-time", "next tuesday", "--database", "notes"), "is no time"),
        (("--to-time", "2026-01-01T00:00:00Z"), "--whole-server"),
        (("--to-time", "2026-01-01T00:00:00Z", "--whole-server", "--confirm", "db2"), "--confirm db1"),
        (("--to-time", "2020-01-01T00:00:00Z", "--database", "notes", "--timeline", "9", "--plan"), "no timeline 9"),
    ],
)
def test_what_cannot_be_restored_is_one_message_with_what_can(
    host: PitrHost, words: tuple[str, ...], message: str
) -> None:
    done = host.pitr("restore", *words)
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    if "--plan" in words and "timeline" not in message:
        assert re.search(r"\d UTC to 20\d\d-", done.stderr), "the range that is possible"


@pytest.mark.slow
def test_archiving_that_fails_is_told_at_the_next_look_and_heals_by_itself(host: PitrHost) -> None:
    with host.repository_away():
        host.switch()
        host.world.sql("CREATE TABLE IF NOT EXISTS noise (i int); INSERT INTO noise SELECT generate_series(1, 1000)")
        host.switch()
        host.until(lambda: int(host.archiver("coalesce(failed_count, 0)")) > 0)
        done = host.pitr("check", "--timer")
        assert done.returncode == 1
        assert "Archiving fails" in done.stdout
        assert host.pitr("check", "--timer").returncode == 0, "told once"
        text = host.world.root("cat /var/lib/slipway/metrics/pitr.prom")
        assert not re.search(r"slipway_pitr_problems 0$", text, re.MULTILINE)
        assert re.search(r"slipway_pitr_waiting_segments [1-9]", text)
        record = drill(host)
        assert record["verdict"] != "proved"
    host.until(
        lambda: host.world.sql("SELECT last_failed_time < last_archived_time FROM pg_stat_archiver", "postgres") == "t",
        120,
    )
    host.good("check")


@pytest.mark.slow
def test_wal_is_given_up_before_the_disk_is_full_and_the_gap_is_told_and_closed(host: PitrHost) -> None:
    with host.repository_away():
        for _ in range(18):  # 256 MB may wait
            host.world.sql("INSERT INTO noise SELECT generate_series(1, 10)")
            host.switch()
        host.until(
            lambda: (
                int(
                    host.world.sql(
                        "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'", "postgres"
                    )
                )
                < 5
            ),
            180,
        )
        assert host.world.sql("SELECT 1") == "1", "the database lives"
    host.world.sql("INSERT INTO noise VALUES (1)")
    host.switch()
    host.until(
        lambda: (
            int(host.world.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'", "postgres"))
            == 0
        ),
        120,
    )
    windows = json.loads(host.good("list", "--json"))["windows"]
    done = host.pitr("check")
    # The gap counts as one once later segments have been there for two minutes; a backup closes it in any case.
    assert done.returncode == 1 or not windows[-1]["missing"]
    host.good("backup", "--type", "diff")
    host.good("check")
    record = drill(host)
    assert record["verdict"] == "proved", record


def test_a_wrong_passphrase_is_told_and_nothing_is_written(host: PitrHost) -> None:
    before = host.world.root("cd /var/lib/pgbackrest && find backup -type f | sort | xargs sha256sum | sha256sum")
    done = host.converge(pitr_passphrase="another-passphrase-than-before")
    assert done.returncode != 0
    assert "cannot be decrypted with this host's passphrase" in done.stdout
    assert "another-passphrase" not in done.stdout
    assert (
        host.world.root("cd /var/lib/pgbackrest && find backup -type f | sort | xargs sha256sum | sha256sum") == before
    )
    host.ok()
    host.good("check")


def test_the_whole_server_goes_back_and_forth(host: PitrHost) -> None:
    host.world.sql("CREATE TABLE keep (i int); INSERT INTO keep VALUES (1)")
    then = host.now()
    host.world.sql("DROP TABLE keep; CREATE TABLE later (i int)")
    undo = host.now()
    text = host.good("restore", "--whole-server", "--confirm", "db1", "--to-time", then)
    aside = re.findall(r"/var/lib/postgresql/17/main\.before-\S+?(?=:)", text)
    assert aside, text
    assert host.world.sql("SELECT i FROM keep") == "1"
    assert host.world.sql("SELECT to_regclass('later') IS NULL") == "t"
    host.until(
        lambda: host.world.root("systemctl is-active slipway-pitr-backup.service || true").strip() == "inactive", 120
    )
    host.good("check")
    assert drill(host)["verdict"] == "proved", "on the new timeline"
    # The second after the mistake can be had too: it is on the timeline that was left.
    host.good("restore", "--database", "notes", "--to-time", undo, "--timeline", "1", "--into", "notes_undo")
    assert host.world.sql("SELECT to_regclass('later') IS NOT NULL", "notes_undo") == "t"
    host.world.root(["rm", "-rf", aside[0]])
    assert recap(host.converge())["changed"] == 0


def test_a_restore_that_fails_puts_the_server_back_by_itself(host: PitrHost) -> None:
    host.world.sql("CREATE TABLE stays (i int)")
    then = host.now()
    host.switch()
    host.good("restore", "--database", "notes", "--to-time", then, "--plan")
    # The base backup is damaged in the store after it was chosen: every file of it is cut short. WAL goes on arriving beside it.
    host.world.root(
        "cp -a /var/lib/pgbackrest/backup /var/lib/pgbackrest.good; find /var/lib/pgbackrest/backup/main -path '*bundle*' -type f -exec truncate -s 100 {} +"
    )
    try:
        done = host.pitr("restore", "--whole-server", "--confirm", "db1", "--to-time", then)
        assert done.returncode == 1, done.stdout
        assert "in its place again" in done.stdout + done.stderr
        assert host.world.sql("SELECT to_regclass('stays') IS NOT NULL") == "t"
        assert drill(host)["verdict"] == "failed"
    finally:
        host.world.root("rm -rf /var/lib/pgbackrest/backup && mv /var/lib/pgbackrest.good /var/lib/pgbackrest/backup")
    host.good("check")


def test_a_drill_that_was_killed_leaves_a_record_and_nothing_else(host: PitrHost) -> None:
    before = len(host.world.root("cat /var/lib/slipway/drill/evidence.jsonl").splitlines())
    host.world.root("systemctl start --no-block slipway-pitr-drill.service")
    host.until(lambda: bool(host.world.root("ls /var/lib/slipway/pitr/scratch").strip()), 60)
    host.world.root("systemctl kill --signal=KILL slipway-pitr-drill.service")
    host.until(
        lambda: (
            host.world.root("systemctl is-active slipway-pitr-drill.service || true").strip() in ("failed", "inactive")
        ),
        60,
    )
    chain = [json.loads(line) for line in host.world.root("cat /var/lib/slipway/drill/evidence.jsonl").splitlines()]
    assert len(chain) == before + 1
    assert chain[-1]["record"]["drill"]["verdict"] == "inconclusive"
    assert drill(host)["verdict"] == "proved"
    assert host.world.root("ls -A /var/lib/slipway/pitr/scratch") == ""


def test_another_clusters_repository_is_not_written_to(host: PitrHost) -> None:
    """A server that was installed anew comes up empty; its playbook must not go over the history of the old one."""
    host.world.root(
        "systemctl stop postgresql@17-main && mv /var/lib/postgresql/17/main /var/lib/postgresql/17/main.old"
    )
    host.world.root(
        [
            "runuser",
            "-u",
            "postgres",
            "--",
            "/usr/lib/postgresql/17/bin/initdb",
            "-D",
            "/var/lib/postgresql/17/main",
            "--data-checksums",
        ]
    )
    host.world.root("systemctl start postgresql@17-main")
    done = host.converge()
    assert done.returncode != 0
    assert "belongs to another cluster" in done.stdout
    assert "--whole-server" in done.stdout
    # The way back that it names.
    host.good("restore", "--whole-server", "--confirm", "db1", "--to-time", "latest")
    assert host.world.sql("SELECT count(*) FROM orders") == "100"
    host.ok()
    host.world.root("rm -rf /var/lib/postgresql/17/main.old /var/lib/postgresql/17/main.before-*")


def test_switched_off_it_leaves_the_repository_alone(host: PitrHost) -> None:
    host.ok(pitr_enabled=False, postgres_archive_command="")
    for name in ("backup.timer", "backup.path", "check.timer", "drill.timer"):
        assert host.world.root(f"systemctl is-active slipway-pitr-{name} || true").strip() == "inactive"
    assert host.world.sql("SHOW archive_mode", "postgres") == "off"
    assert host.world.root("ls /var/lib/pgbackrest/backup/main").strip()
