# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while a backup is taken: each ends in one message, a record with the reason, and nothing that counts."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from slipway.backup.config import Config
from slipway.backup.keeping import listing
from slipway.backup.stopping import Stop
from slipway.backup.stores import store as stores
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import runs, take
from slipway.errors import SlipwayError

from tests.unit.waiting import LIMIT, until

from .faults import SLOW, SLOW_ONCE, around, await_file, config, database, fails, meanwhile, programs, store
from .test_there_and_back import Make, keys, where

__all__ = ["around", "config", "database", "keys", "store"]


def children(name: str) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
            comm, fields = rest.rsplit(") ", 1)
        except (OSError, ValueError):
            continue
        if comm == name and int(fields.split()[1]) == os.getpid():
            found.append(int(pid))
    return found


@pytest.mark.parametrize("victim", ["pg_dump", "zstd", "age"])
def test_a_program_killed_in_the_middle(
    config: Config, store: DirectoryStore, around: take.Around, tmp_path: Path, victim: str
) -> None:
    folder = programs(tmp_path / "bin", pg_dump=SLOW)

    def kill() -> None:
        await_file(tmp_path / "bin/pg_dump.begun")
        found: list[int] = []
        until(lambda: found.extend(children(victim)) or found, f"a {victim} of ours")
        for pid in found:
            os.killpg(pid, signal.SIGKILL)  # with what the stand-in's shell started: the real one is a single process

    with meanwhile(kill):
        fails(config, store, replace(around, programs=folder), f"{victim} was killed by SIGKILL")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", "pg_dump ended without an error and without any output"),
        ('$REAL "$@" | head -c 70000; echo "disk trouble" >&2; exit 3', "pg_dump ended with code 3: disk trouble"),
        ("exec sleep 600", "was not over after 2 s"),
    ],
)
def test_a_pg_dump_that_gives_nothing_or_half_or_never_ends(
    config: Config, store: DirectoryStore, around: take.Around, tmp_path: Path, *, script: str, message: str
) -> None:
    around = replace(around, programs=programs(tmp_path / "bin", pg_dump=script))
    fails(replace(config, longest_s=2) if "over" in message else config, store, around, message)


def test_globals_that_come_out_empty(
    config: Config, store: DirectoryStore, around: take.Around, tmp_path: Path
) -> None:
    folder = programs(tmp_path / "bin", pg_dumpall="exit 0")
    fails(config, store, replace(around, programs=folder), "pg_dumpall ended without an error and without any output")


def test_a_server_that_is_down_or_knows_nobody_of_that_name(
    config: Config, store: DirectoryStore, around: take.Around
) -> None:
    assert around.server is not None
    down = replace(around.server, port=1)
    fails(config, store, replace(around, server=down), "cannot be reached as postgres.*systemctl status postgresql")
    nobody = replace(around.server, user="nobody_here")
    fails(config, store, replace(around, server=nobody), 'role "nobody_here" does not exist.*run site.yml')


def opens(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_wrong_password(
    *, config: Config, store: DirectoryStore, around: take.Around, database: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with psycopg.connect(database, autocommit=True) as conn:
        ((hba,),) = conn.execute("SHOW hba_file").fetchall()
        before = Path(hba).read_text()
        conn.execute("CREATE ROLE asked_for_it SUPERUSER LOGIN PASSWORD 'right'")
        try:
            Path(hba).write_text("local all asked_for_it scram-sha-256\n" + before)
            conn.execute("SELECT pg_reload_conf()")
            (tmp_path / "pgpass").write_text("*:*:*:asked_for_it:planted-wrong\n")
            (tmp_path / "pgpass").chmod(0o600)
            monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
            assert around.server is not None
            server = replace(around.server, user="asked_for_it")
            until(lambda: not opens(server.conninfo("postgres")), "the server's reading of pg_hba.conf")
            record = fails(config, store, replace(around, server=server), "password authentication failed.*pg_ident")
            assert "planted" not in record.reason
        finally:
            Path(hba).write_text(before)
            conn.execute("SELECT pg_reload_conf()")
            conn.execute("DROP ROLE asked_for_it")


def test_a_pg_dump_older_than_the_server_is_refused_and_a_newer_one_told(
    config: Config, store: DirectoryStore, around: take.Around, tmp_path: Path
) -> None:
    folder = Path(programs(tmp_path / "bin"))
    real = (folder / "pg_dump").read_text()
    (folder / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3'\n")
    record = fails(config, store, replace(around, programs=f"{folder}/"), "pg_dump is of version 12.3, the server of")
    assert "apt-get install postgresql-client-" in record.reason
    newer = '#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\n' + real.split("\n", 2)[2]
    (folder / "pg_dump").write_text(newer)
    done = take.run(config, lambda: store, replace(around, programs=f"{folder}/", stop=Stop()))
    assert any("newer than the server" in text for text in done.warnings)


def test_somebody_elses_lock_is_waited_for_and_then_named(
    config: Config, store: DirectoryStore, around: take.Around, database: str
) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        fails(replace(config, lock_wait_s=1), store, around, "Another session holds a lock.*pg_stat_activity")
        other.rollback()
    assert take.run(config, lambda: store, replace(around, stop=Stop())).good


def test_it_gives_way_to_an_alter_table_and_takes_the_backup_afterwards(
    config: Config, store: DirectoryStore, around: take.Around, database: str, tmp_path: Path
) -> None:
    waited: list[float] = []

    def migrate() -> None:
        await_file(tmp_path / "bin/pg_dump.begun")
        with psycopg.connect(database, autocommit=True) as conn:
            begun = time.monotonic()
            conn.execute("ALTER TABLE t ADD COLUMN planted text DEFAULT 'planted-value'")
            waited.append(time.monotonic() - begun)

    # Only the database meant is dumped slowly, and only the first time.
    name = where(database)[1]
    script = f'case "$*" in *{name}*) {SLOW_ONCE};; *) exec $REAL "$@";; esac'
    around = replace(around, programs=programs(tmp_path / "bin", pg_dump=script))
    with meanwhile(migrate):
        done = take.run(replace(config, give_way_s=2), lambda: store, around)
    assert waited[0] < LIMIT
    assert "gave way: ALTER TABLE on t by postgres had waited" in done.warnings[0]
    assert "planted-value" not in str(done)
    (whole,) = listing.read(store, "db1").whole
    assert whole.id == done.id


def test_the_session_that_holds_the_snapshot_dies(
    config: Config, store: DirectoryStore, around: take.Around, database: str, tmp_path: Path
) -> None:
    def end_it() -> None:
        await_file(tmp_path / "bin/pg_dump.begun")
        with psycopg.connect(database, autocommit=True) as conn:
            end = b"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'slipway-backup' AND state = 'idle in transaction'"""
            until(lambda: conn.execute(end).fetchall(), "an idle session that holds the snapshot")

    around = replace(around, programs=programs(tmp_path / "bin", pg_dump=SLOW))
    with meanwhile(end_it):
        fails(config, store, around, "held the snapshot of .* is gone")


@pytest.mark.parametrize("where_full", ["store", "pending"])
def test_a_full_disk(
    *, config: Config, store: DirectoryStore, around: take.Around, monkeypatch: pytest.MonkeyPatch, where_full: str
) -> None:
    if where_full == "pending":
        around.state.mkdir()
        (around.state / "pending").symlink_to("/dev/full/nothing")
        fails(config, store, around, "pending.* cannot be written")
        return
    real = os.open

    def full(path: Any, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full", os.O_WRONLY) if ".uploads/" in str(path) else real(path, flags, mode)

    monkeypatch.setattr(stores.os, "open", full)
    with pytest.raises(SlipwayError, match=r"No space left on device.*free some space"):
        take.run(config, lambda: store, around)
    assert runs.records(around.state)[-1].result == "failed"
    assert listing.read(store, "db1").whole == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read from"),
        ("# nobody\n\n", "names no age recipient"),
        ("age1notarecipient\n", "age does not take the recipients"),
        ("AGE-SECRET-KEY-1PLANTED\n", "holds an age identity, a secret"),
    ],
)
def test_recipients_are_looked_at_before_anything_begins(
    *, config: Config, store: DirectoryStore, around: take.Around, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "given"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SlipwayError, match=message) as caught:
        take.run(config, lambda: store, replace(around, recipients=path))
    assert "PLANTED" not in str(caught.value)
    assert list(store.entries()) == []


def test_a_state_folder_that_cannot_be_written(config: Config, store: DirectoryStore, around: take.Around) -> None:
    around.state.write_text("a file")
    with pytest.raises(runs.LockError, match="cannot be opened"):
        take.run(config, lambda: store, around)


def test_databases_that_cannot_or_need_not_be_backed_up_are_named(
    config: Config, store: DirectoryStore, around: take.Around, new_database: Make
) -> None:
    closed, left_out, odd = (where(new_database())[1] for _ in range(3))
    assert around.server is not None
    with psycopg.connect(around.server.conninfo("postgres"), autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {closed} ALLOW_CONNECTIONS false".encode())
        conn.execute(f'ALTER DATABASE {odd} RENAME TO "od d/{odd}"'.encode())
        conn.execute(f'ALTER DATABASE "od d/{odd}" SET default_transaction_read_only = on'.encode())
        try:
            done = take.run(
                replace(config, left_out=(left_out,), databases=(*config.databases, "gone")), lambda: store, around
            )
        finally:
            conn.execute(f"ALTER DATABASE {closed} ALLOW_CONNECTIONS true".encode())
            conn.execute(f'ALTER DATABASE "od d/{odd}" RENAME TO {odd}'.encode())
    told = "\n".join(done.warnings)
    assert f"Database {closed} is not backed up: it accepts no connections" in told
    assert "Database gone is listed, but the server has none of that name." in told
    assert f"od d/{odd}" in done.unlisted
    assert done.left_out == (left_out,)
    assert left_out not in done.databases
    assert f"od d/{odd}" in done.databases
    assert "template1" not in done.databases


def test_nothing_left_to_back_up_is_an_error(config: Config, store: DirectoryStore, around: take.Around) -> None:
    names = tuple(take.run(config, lambda: store, around).databases)
    again = replace(around, stop=Stop())
    with pytest.raises(SlipwayError, match="every one is left out"):
        take.run(replace(config, left_out=names), lambda: store, again)
    assert "slipway_backup_failed_runs 1" in (around.metrics / "backup.prom").read_text()
