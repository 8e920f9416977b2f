# SPDX-License-Identifier: Apache-2.0
"""PgBouncer as the role leaves it: apps log in, pools hold, sessions listen, and a restart of the server is survived."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.integration.database import PASSWORDS, Database, databases
from tests.integration.world import recap

pytestmark = pytest.mark.lab
pytest_plugins = ("tests.integration.database_fixture",)


def test_a_transaction_pool_serves_more_clients_than_it_has_connections_with_prepared_statements(
    database: Database,
) -> None:
    def client(number: int) -> set[int]:
        """Statements prepared once by name, run in many transactions on whichever server connection is free."""
        servers = set()
        with database.pooled(prepare_threshold=0) as connection:
            for turn in range(20):
                row = connection.execute(
                    "SELECT %s::int + %s::int, pg_backend_pid()", (number, turn), prepare=True
                ).fetchone()
                assert row is not None
                assert row[0] == number + turn
                servers.add(row[1])
        return servers

    with ThreadPoolExecutor(12) as pool:
        used = set().union(*pool.map(client, range(12)))
    assert 1 <= len(used) <= 3


def test_a_session_can_listen_while_transactions_notify(database: Database) -> None:
    with database.pooled("notes_session") as listener, database.pooled("notes") as writer:
        listener.execute("LISTEN slipway_test")
        writer.execute("NOTIFY slipway_test, 'hello'")
        heard = [note.payload for note in listener.notifies(timeout=10, stop_after=1)]
    assert heard == ["hello"]


def test_a_session_keeps_what_a_migration_needs(database: Database) -> None:
    with database.pooled("notes_session") as connection:
        connection.execute("SELECT pg_advisory_lock(42)")
        connection.execute("SET application_name = 'kept'")
        row = connection.execute("SHOW application_name").fetchone()
        assert row == ("kept",)
        row = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ).fetchone()
        assert row == (1,)


def test_a_statement_of_a_request_is_limited_and_one_of_a_migration_is_not(database: Database) -> None:
    with database.pooled("notes") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1min",)
    with database.pooled("notes_session") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


@pytest.mark.parametrize(
    ("entry", "user", "password", "said"),
    [
        ("notes", "notes", "not-the-password", "authentication failed"),
        ("notes", "nobody_knows", "not-the-password", "no such user"),
        ("notes", "postgres", "not-the-password", "no such user"),
        ("notes", "pgbouncer", "not-the-password", "authentication failed"),
        ("blog", "notes", PASSWORDS["notes"], "permission denied for database"),
        ("slipway_auth", "notes", PASSWORDS["notes"], "permission denied for database"),
        ("postgres", "notes", PASSWORDS["notes"], "authentication failed|no such database"),
        ("pgbouncer", "notes", PASSWORDS["notes"], "not allowed|authentication failed"),
    ],
)
def test_who_does_not_belong_is_refused(database: Database, entry: str, user: str, password: str, said: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=said):
        database.pooled(entry, user=user, password=password)


def test_no_password_is_copied_to_the_pooler(database: Database) -> None:
    kept = database.world.root("cat /etc/pgbouncer/*")
    assert not [secret for secret in PASSWORDS.values() if secret in kept]
    assert "SCRAM-SHA-256" not in kept.replace("auth_type = scram-sha-256", "")
    rights = database.world.root("stat -c '%a %U:%G %n' /etc/pgbouncer/*.ini /etc/pgbouncer/userlist.txt").splitlines()
    assert {line.rpartition(" ")[0] for line in rights} == {"640 root:pgbouncer"}


def test_the_pooler_runs_as_its_own_user_that_can_look_up_verifiers_and_nothing_else(database: Database) -> None:
    world = database.world
    assert world.root("ps -o user= -C pgbouncer").split() == ["pgbouncer"]
    console = ["runuser", "-u", "pgbouncer", "--", "psql", "-XAt", "-d", "postgres", "-c"]

    def as_pooler(query: str) -> tuple[int, str]:
        done = world.driver.exec(world.host, [*console, query], check=False)
        return done.code, str(done.stdout) + str(done.stderr)

    assert "notes|SCRAM-SHA-256$" in as_pooler("SELECT * FROM slipway_pooler.lookup('notes')")[1]
    assert as_pooler("SELECT * FROM slipway_pooler.lookup('postgres')") == (0, "")
    for query in (
        "SELECT rolpassword FROM pg_authid",
        "CREATE TABLE public.t ()",
        "CREATE SCHEMA s",
        "SET ROLE slipway_pooler_lookup",
    ):
        code, said = as_pooler(query)
        assert code != 0
        assert "permission denied" in said


def test_it_listens_where_apps_are_and_nowhere_else_even_before_their_network_exists(database: Database) -> None:
    world = database.world
    assert "10.213.87.1" not in world.root("ip -o address")
    listening = {line.split()[3] for line in world.root("ss -Hltn").splitlines()}
    assert {item for item in listening if item.endswith(":6432")} == {"127.0.0.1:6432", "10.213.87.1:6432"}
    assert {item for item in listening if item.endswith(":5432")} == {"127.0.0.1:5432", "[::1]:5432"}


def test_a_rotated_password_works_at_once_and_the_old_one_no_longer(database: Database) -> None:
    fresh = "planted-db-rotated-55"
    try:
        database.ok(postgres_databases=databases(notes=fresh))
        for entry in ("notes", "notes_session"):
            with database.pooled(entry, user="notes", password=fresh) as connection:
                assert connection.execute("SELECT current_user::text").fetchone() == ("notes",)
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                database.pooled(entry, user="notes")
    finally:
        database.ok()
    with database.pooled() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_changed_pools_are_reloaded_under_a_client_that_notices_nothing(database: Database) -> None:
    wish = databases()
    wish[1]["pool_size"] = 4
    before = database.unit("pgbouncer.service", "MainPID")
    with database.pooled() as connection:
        database.ok(postgres_databases=wish)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert database.unit("pgbouncer.service", "MainPID") == before
    shown = database.world.root(
        "runuser -u pgbouncer -- psql -XAt -h /run/pgbouncer -p 6432 pgbouncer -c 'SHOW DATABASES'"
    )
    assert [line.split("|")[5] for line in shown.splitlines() if line.startswith("blog|")] == ["4"]
    database.ok()
    assert database.unit("pgbouncer.service", "MainPID") == before
    assert recap(database.converge())["changed"] == 0


def test_a_setting_the_pooler_does_not_know_is_refused_and_the_files_are_put_back(database: Database) -> None:
    before = database.world.root("cat /etc/pgbouncer/*.ini")
    for wrong in ({"no_such_setting": 1}, {"max_client_conn": "many"}):
        done = database.converge(pgbouncer_settings=wrong)
        assert done.returncode != 0
        assert next(iter(wrong)) in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert database.world.root("cat /etc/pgbouncer/*.ini") == before
    assert recap(database.converge())["changed"] == 0


def test_pools_that_ask_for_more_than_the_server_has_are_refused_before_anything_changes(database: Database) -> None:
    wish = databases()
    wish[0]["pool_size"] = 60
    done = database.converge(pgbouncer_databases=wish)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "has room for 45" in said
    assert "pool_size=60" not in database.world.root("cat /etc/pgbouncer/databases.ini")


class Load:
    """A few clients that ask without a break, reconnect when they must, and count."""

    def __init__(self, database: Database) -> None:
        self.database, self.stop = database, threading.Event()
        self.failed: list[str] = []
        self.answered: dict[int, float] = {}
        self.clients = [threading.Thread(target=self.ask, args=(number,)) for number in range(4)]

    def ask(self, number: int) -> None:
        while not self.stop.is_set():
            try:
                with self.database.pooled() as connection:
                    while not self.stop.is_set():
                        connection.execute("SELECT 1")
                        self.answered[number] = time.monotonic()
                        time.sleep(0.02)
            except psycopg.OperationalError as error:
                self.failed.append(str(error))

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(4)
        self.stop.set()
        for client in self.clients:
            client.join(40)


def test_after_a_restart_of_the_server_clients_go_on_by_themselves(database: Database) -> None:
    """Without warning, what is in flight fails, once; what comes next waits for the server."""
    with Load(database) as load:
        database.world.root("systemctl restart postgresql@17-main.service")
        restarted = time.monotonic()
    assert len(load.failed) <= len(load.clients), load.failed
    assert len(load.answered) == len(load.clients)
    assert min(load.answered.values()) > restarted


def test_a_restart_for_a_setting_fails_no_statement(database: Database) -> None:
    started = database.postmaster()
    try:
        with Load(database) as load:
            database.roles = "postgres"
            database.ok(postgres_settings={"max_locks_per_transaction": 96})
            restarted = time.monotonic()
        assert database.postmaster() != started
        assert load.failed == []
        assert min(load.answered.values()) > restarted
    finally:
        database.ok()
        database.roles = "postgres,pgbouncer"


def test_the_pooler_comes_back_when_it_is_killed(database: Database) -> None:
    before = database.unit("pgbouncer.service", "MainPID")
    database.world.root(f"kill -9 {before}")
    until = time.monotonic() + 15
    while True:
        try:
            with database.pooled() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            break
        except psycopg.OperationalError:
            assert time.monotonic() < until
            time.sleep(0.3)
    assert database.unit("pgbouncer.service", "MainPID") != before
