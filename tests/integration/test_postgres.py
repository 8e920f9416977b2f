# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as the role leaves it: every assertion on the running server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import psycopg
import pytest
from slipway.postgres.conf import Running, differences
from slipway.sizing.plan import size_from_facts

from tests.integration.database import PASSWORDS, Database, databases
from tests.integration.world import raise_lab, recap, remove_lab

pytestmark = pytest.mark.lab
pytest_plugins = ("tests.integration.database_fixture",)


@pytest.fixture(autouse=True)
def _postgres_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """The pooler was converged once; these tests run the role postgres alone, which halves their time."""
    if "database" not in request.fixturenames:
        yield
        return
    database: Database = request.getfixturevalue("database")
    database.roles = "postgres"
    yield
    database.roles = "postgres,pgbouncer"


ROWS = (
    "SELECT json_object_agg(name, json_build_array(setting, coalesce(unit, ''), vartype, context, pending_restart, "
    "coalesce(sourcefile, ''))) FROM pg_settings"
)


def running(database: Database) -> dict[str, Running]:
    """pg_settings, read by psql."""
    return {name: Running(*row) for name, row in json.loads(database.world.sql(ROWS, "postgres")).items()}


def test_every_setting_of_the_sizing_runs_exactly(database: Database) -> None:
    facts = {"ram_mb": 2048, "cores": 2, "disk_total_mb": 40960, "postgres_major": 17}
    sizing = size_from_facts(facts)
    there = running(database)
    disk_bound = {"max_wal_size", "min_wal_size", "max_slot_wal_keep_size"}  # of the machine the lab runs on
    wished = {name: value for name, value in sizing.settings.items() if name not in disk_bound}
    assert len(wished) > 15
    assert differences(wished, there) == []
    # Golden values of a 2 GB host, written out: a fault of the sizing would pass the comparison above.
    assert {name: there[name].shown for name in ("shared_buffers", "effective_cache_size")} == {
        "shared_buffers": "512MB",
        "effective_cache_size": "1536MB",
    }
    assert there["max_connections"].setting == "50"
    assert not [name for name, row in there.items() if row.pending_restart]


def test_checksums_are_on_in_a_cluster_that_came_without(database: Database) -> None:
    assert database.world.sql("SHOW data_checksums", "postgres") == "on"


def test_a_second_run_changes_nothing_and_check_mode_shows_no_diff(database: Database) -> None:
    database.roles = "postgres,pgbouncer"
    assert recap(database.converge())["changed"] == 0
    checked = database.converge("--check", "--diff")
    assert recap(checked)["changed"] == 0
    assert recap(checked)["failed"] == 0
    assert not re.search(r"^[+-]", checked.stdout, flags=re.MULTILINE)


def test_check_mode_on_a_bare_host_ends_well_and_changes_nothing() -> None:
    world = raise_lab("dbbare", image="bare", acme=False, host="bare1")
    try:
        look = "dpkg-query -W; find /etc /var/lib -xdev -newer /etc/hostname -type f | sort; getent passwd; ss -Hltn"
        before = world.root(look)
        done = Database(world).converge("--check", "--diff")
        assert done.returncode == 0, done.stdout[-3000:]
        assert recap(done)["failed"] == 0
        assert "shared_buffers = 512MB" in done.stdout
        assert "create database notes" in done.stdout
        assert not [secret for secret in PASSWORDS.values() if secret in done.stdout + done.stderr]
        assert world.root(look) == before
    finally:
        remove_lab(world)


@pytest.mark.parametrize("target", ["blog", "postgres", "template1"])
def test_an_app_cannot_connect_to_any_database_but_its_own(database: Database, target: str) -> None:
    done = database.psql_as("notes", target, "SELECT 1")
    assert done.returncode != 0
    assert "permission denied for database" in done.stderr


def test_an_app_can_migrate_its_own_database(database: Database) -> None:
    query = "CREATE SCHEMA s; CREATE TABLE s.t (i int); CREATE TABLE public.t (c citext); DROP TABLE public.t; DROP SCHEMA s CASCADE"
    done = database.psql_as("notes", "notes", query)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "query",
    [
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "ALTER ROLE notes SUPERUSER",
        "SELECT rolpassword FROM pg_authid",
        "SELECT * FROM pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT pg_reload_conf()",
        "SELECT slipway_pooler.lookup('blog')",
    ],
)
def test_an_app_cannot_reach_beyond_its_database(database: Database, query: str) -> None:
    done = database.psql_as("notes", "notes", query)
    assert done.returncode != 0
    assert re.search("permission denied|does not exist|must be superuser|Only roles with", done.stderr), done.stderr


def test_a_wrong_password_and_the_superuser_by_network_are_refused(database: Database) -> None:
    world = database.world
    as_postgres = world.driver.exec(
        world.host, ["sh", "-c", "PGPASSWORD=x psql -h 127.0.0.1 -U postgres -c 'SELECT 1'"], check=False
    )
    assert as_postgres.code != 0
    assert "pg_hba.conf rejects" in as_postgres.stderr
    wrong = world.driver.exec(
        world.host, ["sh", "-c", "PGPASSWORD=wrong-password psql -h 127.0.0.1 -U notes -c 'SELECT 1'"], check=False
    )
    assert "password authentication failed" in wrong.stderr


def test_a_setting_is_reloaded_where_that_is_enough_and_restarts_only_where_needed(database: Database) -> None:
    started = database.postmaster()
    database.ok(postgres_settings={"random_page_cost": "1.3"})
    assert database.world.sql("SHOW random_page_cost", "postgres") == "1.3"
    assert database.postmaster() == started
    waiting = database.ok(postgres_settings={"max_locks_per_transaction": 80}, postgres_restart_allowed=False)
    assert database.postmaster() == started
    assert database.world.sql("SHOW max_locks_per_transaction", "postgres") == "64"
    assert "max_locks_per_transaction" in waiting
    assert "wait for a restart" in " ".join(waiting.split())
    database.ok(postgres_settings={"max_locks_per_transaction": 80})
    assert database.postmaster() != started
    assert database.world.sql("SHOW max_locks_per_transaction", "postgres") == "80"
    database.ok()
    assert database.world.sql("SHOW max_locks_per_transaction", "postgres") == "64"


def test_an_override_that_breaks_a_bound_wins_with_a_warning(database: Database) -> None:
    said = " ".join(database.ok("--check", postgres_settings={"work_mem": "8MB"}).split())
    assert "WARNING: " in said
    assert "work_mem" in said


def test_settings_the_server_cannot_start_with_are_put_back_with_one_message(database: Database) -> None:
    done = database.converge(postgres_preload_libraries=["pg_stat_statements", "no_such_library"])
    assert done.returncode != 0
    assert "no_such_library" in done.stdout
    assert "were put back" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
    assert database.world.sql("SHOW shared_preload_libraries", "postgres") == "pg_stat_statements"
    database.ok()


def test_a_value_that_cannot_be_is_refused_before_the_server_sees_it(database: Database) -> None:
    done = database.converge(postgres_settings={"log_rotation_age": "banana"})
    assert done.returncode != 0
    assert "banana" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "banana" not in database.world.root("cat /etc/postgresql/17/main/conf.d/10-slipway.conf")


def test_alter_system_against_the_inventory_is_found(database: Database) -> None:
    database.world.sql("ALTER SYSTEM SET random_page_cost = 9", "postgres")
    database.world.sql("SELECT pg_reload_conf()", "postgres")
    try:
        done = database.converge()
        assert done.returncode != 0
        assert "ALTER SYSTEM RESET random_page_cost" in " ".join(done.stdout.split())
    finally:
        database.world.sql("ALTER SYSTEM RESET random_page_cost", "postgres")
    database.ok()


def test_a_cluster_with_data_and_no_checksums_is_refused_with_the_way_out(database: Database) -> None:
    world = database.world
    checksums = "runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_checksums {} -D /var/lib/postgresql/17/main"
    unit = "postgresql@17-main.service"
    world.root(f"systemctl stop {unit}; {checksums.format('--disable')}; systemctl start {unit}")
    try:
        done = database.converge()
        said = " ".join(done.stdout.split())
        assert done.returncode != 0
        assert "holds data and has no data checksums" in said
        assert "pg_checksums --enable" in said
    finally:
        world.root(f"systemctl stop {unit}; {checksums.format('--enable')}; systemctl start {unit}")
    database.ok()


def test_the_server_comes_back_when_it_is_killed(database: Database) -> None:
    world = database.world
    started = database.postmaster()
    world.root("kill -9 $(head -1 /var/lib/postgresql/17/main/postmaster.pid)")
    until = time.monotonic() + 40
    while True:
        try:
            assert database.postmaster() != started
            return
        except AssertionError:
            assert time.monotonic() < until, "PostgreSQL did not come back"
            time.sleep(0.5)


def test_off_the_host_only_tls_is_let_in(database: Database) -> None:
    world = database.world
    gateway = world.root("ip -4 -o route show default").split()[2]
    wish = {
        "postgres_listen_addresses": ["localhost", world.ip],
        "postgres_remote_access": [{"address": f"{gateway}/32", "user": "notes"}],
    }
    target = {
        "host": world.ip,
        "dbname": "notes",
        "user": "notes",
        "password": PASSWORDS["notes"],
        "connect_timeout": 10,
    }
    try:
        database.ok(**wish)
        with psycopg.connect(**target, sslmode="require") as connection:
            row = connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
            assert row is not None
            assert row[0] in ("TLSv1.2", "TLSv1.3")
        certificate = world.lab.folder / "db.crt"
        certificate.write_text(world.root("cat /etc/postgresql/17/main/server.crt"))
        with psycopg.connect(**target, sslmode="verify-full", sslrootcert=str(certificate)):
            pass
        with pytest.raises(psycopg.OperationalError, match=r"no encryption|rejects"):
            psycopg.connect(**target, sslmode="disable")
        with pytest.raises(
            psycopg.OperationalError,
            match=r"unsupported protocol|alert protocol version|no protocols available|internal error",
        ):
            psycopg.connect(
                **target, sslmode="require", ssl_min_protocol_version="TLSv1", ssl_max_protocol_version="TLSv1.1"
            )
        for user in ("blog", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="rejects"):
                psycopg.connect(
                    **{**target, "user": user, "dbname": "blog", "password": PASSWORDS["blog"]}, sslmode="require"
                )
        assert recap(database.converge(**wish))["changed"] == 0
    finally:
        database.ok()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**target, sslmode="require")


def test_a_changed_password_is_taken_up_once(database: Database) -> None:
    fresh = "planted-db-rotated-81"
    said = database.ok("--diff", postgres_databases=databases(notes=fresh))
    assert "change the password of role notes" in said
    try:
        assert recap(database.converge(postgres_databases=databases(notes=fresh)))["changed"] == 0
        assert "password authentication failed" in database.psql_as("notes", "notes", "SELECT 1").stderr
    finally:
        database.ok()
    assert database.psql_as("notes", "notes", "SELECT 1").returncode == 0


def test_no_password_is_in_a_log_a_statistic_a_file_or_the_output(database: Database) -> None:
    database.roles = "postgres,pgbouncer"
    world = database.world
    fresh = "planted-db-rotated-77"
    rotated = databases(notes=fresh)
    said = "".join(
        done.stdout + done.stderr
        for done in (
            database.converge("-vvv", "--diff", postgres_databases=rotated),
            database.converge("-vvv", "--check", "--diff"),
            database.converge("-vvv", "--diff"),
        )
    )
    verifier = world.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'notes'", "postgres")
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    logs = world.root("journalctl --no-pager -o cat; cat /var/log/postgresql/* 2>/dev/null", check=False)
    statistics = world.sql("SELECT query FROM pg_stat_statements", "postgres")
    files = world.root("grep -rlE 'planted-db' /etc /run /var/lib/slipway /var/log /tmp /root 2>/dev/null || true")
    for secret in (fresh, *PASSWORDS.values()):
        assert secret not in said
        assert secret not in logs
        assert secret not in statistics
    assert "SCRAM-SHA-256$" not in said + logs + statistics
    assert files.strip() == ""


def test_slow_statements_are_in_the_journal_without_their_values(database: Database) -> None:
    database.ok()
    with database.pooled() as connection:
        connection.execute("SELECT pg_sleep(0.2), %s::text", ("somebodys-private-data",), prepare=True)
    time.sleep(0.5)
    log = database.world.root("journalctl --no-pager -o cat -t postgres --since -30s")
    assert "pg_sleep" in log
    assert "notes@notes" in log
    assert "somebodys-private-data" not in log


def test_pg_stat_statements_answers_where_monitoring_looks(database: Database) -> None:
    assert int(database.world.sql("SELECT count(*) FROM pg_stat_statements", "postgres")) > 0
