# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery's configuration, its check of a server and a repository, its drill's verdict; all without effects."""

from __future__ import annotations

from configparser import ConfigParser
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from slipway.backup import metrics
from slipway.backup.codec import FormatError
from slipway.backup.config import ConfigError
from slipway.backup.pitr import conf as pitr_conf
from slipway.backup.pitr import drill as pitr_drill
from slipway.backup.pitr import pgbackrest as pitr
from slipway.backup.pitr import run as pitr_run
from slipway.backup.pitr import scratch as pitr_scratch
from slipway.backup.pitr import watch as pitr_watch
from slipway.backup.pitr.conf import Repository, Settings
from slipway.backup.pitr.drill import Marks
from slipway.backup.pitr.run import Archiver, Repo
from slipway.backup.verdict import FAILED, PASSED, SKIPPED, TIERS, Steps

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FOLDER = Repository("directory", "/var/lib/pgbackrest")
BUCKET = Repository("s3", "/pitr/db1", "https://s3.example.com:8443", "eu-1", "mine", "/etc/slipway/pitr/store-ca.pem")
PASSPHRASE = "correct-horse-battery-staple"


def settings(**changes: Any) -> Settings:
    return Settings(**{"host": "db1", "tier": "growth", "repository": FOLDER, **changes})


def ini(text: str) -> ConfigParser:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.read_string(text)
    return parser


# -- configuration ------------------------------------------------------------------------------------------------


def test_the_repository_is_encrypted_compressed_bundled_and_kept_by_days() -> None:
    found = ini(pitr_conf.render(settings(keep_days=21)))["global"]
    assert found["repo1-cipher-type"] == "aes-256-cbc"
    assert (found["compress-type"], found["repo1-bundle"], found["repo1-block"]) == ("zst", "y", "y")
    assert (found["repo1-retention-full-type"], found["repo1-retention-full"]) == ("time", "21")
    assert found["repo1-type"] == "posix"


@pytest.mark.parametrize(
    ("cores", "push", "backup", "restore"), [(1, 1, 1, 1), (2, 2, 1, 2), (4, 2, 2, 4), (32, 2, 4, 8)]
)
def test_backups_leave_the_cores_to_the_app_and_restores_take_them(
    cores: int, push: int, backup: int, restore: int
) -> None:
    found = ini(pitr_conf.render(settings(cores=cores)))
    names = ("global:archive-push", "global:backup", "global:restore")
    assert [int(found[name]["process-max"]) for name in names] == [push, backup, restore]


def test_a_bucket_is_spoken_to_by_its_host_port_and_authority() -> None:
    found = ini(pitr_conf.render(settings(repository=BUCKET)))["global"]
    assert (found["repo1-s3-endpoint"], found["repo1-storage-port"]) == ("s3.example.com", "8443")
    assert found["repo1-storage-ca-file"] == "/etc/slipway/pitr/store-ca.pem"
    assert found["repo1-path"] == "/pitr/db1"


def test_secrets_are_in_their_own_file_and_in_no_other() -> None:
    key = {"key_id": "K1", "secret": "s3cr3t-of-the-key"}
    found = ini(pitr_conf.render_secrets(settings(repository=BUCKET), PASSPHRASE, key))["global"]
    assert dict(found) == {
        "repo1-cipher-pass": PASSPHRASE,
        "repo1-s3-key": "K1",
        "repo1-s3-key-secret": "s3cr3t-of-the-key",
    }
    assert "cipher-pass" not in pitr_conf.render(settings(repository=BUCKET))


@pytest.mark.parametrize(("passphrase", "words"), [("", "has 0 letters"), ("short", "has 5 letters")])
def test_a_passphrase_that_is_none_is_refused_without_showing_it(passphrase: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pitr_conf.render_secrets(settings(), passphrase)
    assert words in str(caught.value)
    assert not passphrase or passphrase not in str(caught.value)


@pytest.mark.parametrize("passphrase", [f"{PASSPHRASE}\nrepo1-path=/etc", f" {PASSPHRASE}", f"{PASSPHRASE}\t"])
def test_a_secret_cannot_bring_options_of_its_own(passphrase: str) -> None:
    with pytest.raises(FormatError):
        pitr_conf.render_secrets(settings(), passphrase)


def test_a_bucket_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="vault_pitr_key"):
        pitr_conf.render_secrets(settings(repository=BUCKET), PASSPHRASE, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"archive_timeout_s": 5}, {"keep_days": 0}, {"full_days": 20}, {"queue_mb": 10}, {"tier": "gold"}, {"stanza": "a b"}, {"format": 2},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        settings(**changes)


@pytest.mark.parametrize(
    "words", [{"kind": "ftp"}, {"path": "relative"}, {"path": "/"}, {"path": "/a/../etc"}, {"kind": "s3", "path": "/x"}]
)
def test_a_repository_that_cannot_be_is_refused(words: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        Repository(**{"kind": "directory", "path": "/var/lib/pgbackrest", **words})


@pytest.mark.parametrize(("disk", "queue"), [(4000, 1024), (20_000, 3000), (80_000, 12_000)])
def test_wal_that_may_wait_is_a_share_of_the_disk(disk: int, queue: int) -> None:
    assert pitr_conf.queue_mb(disk) == queue


# -- what pgBackRest says ---------------------------------------------------------------------------------------------

CRYPTO = """2026-11-21 13:40:38.627 P00  ERROR: [095]: unable to load info file '/var/lib/pgbackrest/archive/main/archive.info':
                                    CryptoError: unable to flush
                                    HINT: is or was the repo encrypted?
2026-11-21 13:40:38.632 P00   INFO: check command end: aborted with exception [095]"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CRYPTO, "vault_pitr_passphrase"),
        ('ERROR: FormatError: key/value found outside of section at line 1: "\x00\ufffd\x8a', "vault_pitr_passphrase"),
        (
            "P00  ERROR: [050]: unable to acquire lock on file '/x.lock': Resource temporarily unavailable",
            "Another run",
        ),
        ("ERROR: [028]: backup and archive info files exist but do not match the database", "--new-cluster"),
        ("ERROR: [055]: unable to load info file ... HINT: has a stanza-create been performed?", "slipway pitr setup"),
        ("ERROR: [039]: HTTP request failed with 403 (Forbidden)", "vault_pitr_key"),
        ("ERROR: [049]: unable to get address for 's3.nowhere': Name or service not known", "cannot be reached"),
        ("ERROR: [082]: unable to write: [28] No space left on device", "full"),
        ("ERROR: [062]: stop file exists for all stanzas", "pgbackrest start"),
        ("ERROR: [999]: something new", "something new"),
    ],
)
def test_an_error_of_pgbackrest_is_told_with_its_meaning(text: str, words: str) -> None:
    error = pitr_run.meaning(text, "pgBackRest ended with code 1")
    assert words in str(error)
    assert str(error).isprintable()
    assert str(error).isascii()
    assert isinstance(error, pitr.BusyError) == ("[050]" in text)


# -- the check --------------------------------------------------------------------------------------------------------


def archiver(**changes: Any) -> Archiver:
    good = Archiver(
        NOW, "000000010000000000000009", NOW - timedelta(minutes=3), "", None, 0, 0, 64 << 20, NOW - timedelta(days=1)
    )
    return replace(good, **changes)


def test_a_server_that_archives_has_no_problem() -> None:
    assert pitr_watch.of_server(settings(), archiver(), 50_000) == []


@pytest.mark.parametrize(
    ("changes", "free", "words"),
    [
        (
            {"failed": "00000001000000000000000A", "failed_at": NOW - timedelta(seconds=30), "failures": 7},
            50_000,
            "Archiving fails",
        ),
        ({"last_at": NOW - timedelta(minutes=30)}, 50_000, "30 min 00 s old"),
        ({"last_at": None}, 50_000, "No WAL was ever archived"),
        ({"waiting": 140}, 50_000, "2240 MB of WAL wait"),
        ({}, 3000, "has 3000 MB free"),
    ],
)
def test_each_way_to_lose_the_archive_is_told(changes: dict[str, Any], free: int, words: str) -> None:
    (problem,) = pitr_watch.of_server(settings(), archiver(**changes), free)
    assert words in problem


def test_an_old_failure_that_was_made_up_for_is_no_problem() -> None:
    assert (
        pitr_watch.of_server(settings(), archiver(failed="x", failed_at=NOW - timedelta(hours=1), failures=3), 50_000)
        == []
    )


def test_a_server_that_has_only_just_started_is_given_time() -> None:
    assert pitr_watch.of_server(settings(), archiver(last_at=None, reset_at=NOW - timedelta(minutes=1)), 50_000) == []


def repo(age: timedelta = timedelta(hours=3), *, missing: str = "", code: int = 0, damaged: bool = False) -> Repo:
    base = pitr.Base("20260301-090000F", "full", NOW - age, NOW - age, "1" * 24, "1" * 24, 1 << 30, 1 << 28, damaged)
    window = pitr.Window(1, base.stopped, NOW, (base,), missing)
    return Repo(pitr.Info(code, "bad", (base,), "17-1", 1, "17"), pitr.Archive({}), ((1, 1 << 62),), (window,))


def test_a_good_repository_has_no_problem() -> None:
    assert pitr_watch.of_repository(settings(), repo(), NOW, 50_000) == ([], "")


@pytest.mark.parametrize(
    ("found", "free", "words", "wanted"),
    [
        (repo(timedelta(hours=31)), 50_000, "31 h old", False),
        (repo(missing="00000001000000000000000B"), 50_000, "00000001000000000000000B is missing", True),
        (repo(damaged=True), None, "wrong checksums", False),
        (repo(code=4), None, "not whole", False),
        (repo(), 100, "100 MB free", False),
        (replace(repo(), windows=()), None, "no base backup yet", True),
    ],
)
def test_each_fault_of_a_repository_is_told(found: Repo, free: int | None, words: str, wanted: bool) -> None:
    problems, why = pitr_watch.of_repository(settings(), found, NOW, free)
    assert len(problems) == 1
    assert words in problems[0]
    assert bool(why) == wanted


@pytest.mark.parametrize(("age", "kind"), [(6.5, "diff"), (6.99, "full"), (20, "full")])
def test_a_full_backup_is_due_when_the_last_is_old_enough(age: float, kind: str) -> None:
    assert pitr_watch.kind_due(settings(), repo(timedelta(days=age)), NOW) == kind
    empty = replace(repo(), info=pitr.Info(2, "no valid backups"))
    assert pitr_watch.kind_due(settings(), empty, NOW) == "full"


def test_problems_are_told_once_and_again_after_hours() -> None:
    late = "The newest archived WAL is 30 min 00 s old, expected every 5 min 00 s"
    first, tell = pitr_watch.told(None, pitr_watch.Seen(NOW, (late,)))
    assert tell
    later = NOW + timedelta(minutes=5)
    second, tell = pitr_watch.told(first, pitr_watch.Seen(later, (late.replace("30", "35"),)))
    assert not tell
    assert second.told == NOW
    assert pitr_watch.told(second, pitr_watch.Seen(later, (late, "The repository is full")))[1]
    assert pitr_watch.told(second, pitr_watch.Seen(NOW + timedelta(hours=7), (late,)))[1]
    assert not pitr_watch.told(second, pitr_watch.Seen(later))[1]


def test_metrics_name_the_age_of_the_newest_wal() -> None:
    seen = pitr_watch.Seen(NOW, ("x",), last_archived=NOW - timedelta(seconds=90), waiting=3)
    text = metrics.render(pitr_watch.gauges(settings(), seen))
    assert "slipway_pitr_archive_age_seconds 90\n" in text
    assert "slipway_pitr_problems 1\n" in text
    assert "slipway_pitr_waiting_segments 3\n" in text


# -- the drill --------------------------------------------------------------------------------------------------------

MARKS = Marks(NOW, (7, NOW - timedelta(seconds=1)), (8, NOW + timedelta(seconds=1)), frozenset({5, 6, 7}))
COPY = {5: NOW - timedelta(hours=1), 6: NOW - timedelta(minutes=5), 7: NOW - timedelta(seconds=1)}


def statuses(marks: Marks, copy: dict[int, datetime] | None) -> list[str]:
    return [each.status for each in pitr_drill.judge_marks(marks, copy)]


def test_a_copy_of_that_second_has_the_row_before_and_not_the_row_after() -> None:
    assert statuses(MARKS, COPY) == [PASSED, PASSED, PASSED]


def test_a_copy_that_went_too_far_or_not_far_enough_fails() -> None:
    assert statuses(MARKS, COPY | {8: NOW + timedelta(seconds=1)}) == [PASSED, FAILED, FAILED]
    assert statuses(MARKS, {5: COPY[5], 6: COPY[6]}) == [FAILED, PASSED, FAILED]
    assert statuses(MARKS, {5: COPY[5], 7: COPY[7]}) == [PASSED, PASSED, FAILED], "a hole in between"


def test_what_could_not_be_looked_for_is_no_proof() -> None:
    assert statuses(MARKS, None) == [SKIPPED, SKIPPED, SKIPPED]
    assert statuses(replace(MARKS, after=None), COPY)[1] == SKIPPED
    assert statuses(replace(MARKS, before=None), COPY)[0] == SKIPPED


def test_rpo_is_the_time_until_a_change_has_left_the_server() -> None:
    steps = Steps(60_000, 0, 30_000, 10_000)
    found = pitr_drill.recovery(TIERS["growth"], steps, timedelta(minutes=2), 300, 4.5)
    assert (found.rto_ms, found.rpo_now_ms, found.rpo_worst_ms, found.misses) == (100_000, 120_000, 304_500, ())
    late = pitr_drill.recovery(TIERS["growth"], steps, timedelta(hours=2), 300, 4.5)
    assert (late.rpo_now_ms, late.rpo_worst_ms) == (7_200_000, 7_200_000)
    assert "RPO 2 h at worst" in late.misses[0]
    assert "standby" in pitr_drill.recovery(TIERS["enterprise"], steps, timedelta(0), 60, 1).misses[0]


BASE = pitr.Base("B", "full", NOW, NOW, "1" * 24, "1" * 24, 1, 1)

# -- the copy and the restore --------------------------------------------------------------------------------------------


def test_a_copy_cannot_reach_the_live_archive_and_opens_for_writing_at_the_second() -> None:
    goal = pitr.Goal(NOW, BASE, 2)
    control = {"max_prepared_xacts": 10, "max_locks_per_xact": 64}
    text = pitr_scratch.configuration(settings(), Path("/x/home"), goal, control)
    assert "archive_mode = 'off'" in text
    assert "listen_addresses = ''" in text
    assert "recovery_target_time = '2026-03-01 12:00:00+00'" in text
    assert "recovery_target_timeline = '2'" in text
    assert "--lock-path=/x/home/lock" in text
    assert "--spool-path=/x/home/spool" in text
    assert "max_prepared_transactions = '10'" in text


def test_pgbackrest_is_told_the_backup_the_second_and_the_timeline() -> None:
    words = pitr_scratch.goal_words(pitr.Goal(NOW, BASE, 3))
    assert words == [
        "--set=B", "--type=time", "--target=2026-03-01 12:00:00+00", "--target-action=promote", "--target-timeline=3",
        "--log-level-console=warn", "restore",
    ]  # fmt: skip
    aside = pitr_scratch.restore_words(Path("/x"), pitr.Goal(NOW, BASE, 3))
    assert set(words) < set(aside)
    assert {"--archive-mode=off", "--pg1-path=/x/data"} <= set(aside)


def test_all_there_is_has_no_second_to_stop_at() -> None:
    goal = pitr.Goal(NOW, BASE, 3, latest=True)
    assert "--type=default" in pitr_scratch.goal_words(goal)
    assert not [word for word in pitr_scratch.goal_words(goal) if word.startswith("--target=")]
    assert "recovery_target_time =" not in pitr_scratch.configuration(settings(), Path("/x"), goal, {})


def test_wal_that_ends_too_early_is_told_with_its_last_transaction() -> None:
    log = (
        "LOG: last completed transaction was at log time 2026-03-01 11:58:02.5+00\n"
        "FATAL: recovery ended before configured recovery target was reached"
    )
    found = pitr_scratch.ended_before(log, NOW)
    assert "2026-03-01 11:58:02.5 UTC" in str(found)
    assert "--to-time latest" in str(found)
    assert pitr_scratch.ended_before("LOG: all is well", NOW) is None


def test_parts_of_a_second_are_kept() -> None:
    assert pitr_scratch.stamp(NOW.replace(microsecond=1500)) == "2026-03-01 12:00:00.001500+00"


def test_pg_controldata_is_read() -> None:
    text = "max_connections setting:              50\nmax_prepared_xacts setting:           0\nmax_locks_per_xact setting:           64\n"
    assert pitr_scratch.parse_control(text) == {
        "max_connections": 50,
        "max_prepared_xacts": 0,
        "max_locks_per_xact": 64,
    }
