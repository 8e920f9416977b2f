# SPDX-License-Identifier: Apache-2.0
"""The database on a host of its own, as site.yml makes it from two hosts: who gets in, and what brings it back.

The tests build on each other, in order; the last ones change the inventory and the hosts' state.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.integration.apart import ALONE, APP, DATABASE, GROUPS, Apart, private, raise_apart
from tests.integration.world import PLANTED, Done, recap, remove_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
PORT = 5432
TRY = "import socket,sys\ntry: socket.create_connection(('{0}', {1}), 3).close(); print('open')\nexcept OSError: print('closed')"
LIBPQ = "host={0} dbname={1} user={2} sslmode={3} connect_timeout=5"


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    """Both hosts, converged."""
    world = raise_apart(os.environ.get("SLIPWAY_LAB") or "apart")
    try:
        bare = world.playbook("site", "--check", "--diff")
        assert bare.returncode == 0, bare.stdout[-5000:] + bare.stderr[-1000:]
        assert "PRIVATE KEY" not in bare.stdout
        good(world.playbook("site"))
        yield world
    finally:
        remove_lab(world)


def good(done: Done) -> Done:
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    return done


def reached(apart: Apart, source: object, address: str, port: int = PORT) -> str:
    return apart.root(["python3", "-c", TRY.format(address, port)], host=source).strip()  # type: ignore[arg-type]


def psql(apart: Apart, where: str, *, user: str = "postgres", env: str = "") -> str:
    """What psql on the apps' host says to a query; ``where``: libpq's words."""
    argv = ["runuser", "-u", user, "--", "env", *env.split(), "psql", "-XAtqw", where, "-c", "SELECT current_user"]
    done = apart.driver.exec(apart.host, argv, check=False, timeout=30)
    return str(done.stdout + done.stderr).strip()


def test_an_app_writes_to_it_through_https(apart: Apart) -> None:
    apart.wait_until_serving()
    note = json.dumps({"id": str(uuid.uuid4()), "text": "written apart"})
    added = apart.curl("/api/notes", "-H", "Content-Type: application/json", "-d", note)
    assert json.loads(added.stdout)["created"], added.stdout + added.stderr
    assert apart.sql("SELECT count(*) FROM notes WHERE text = 'written apart'") == "1"
    assert apart.root("find /etc/postgresql /var/lib/postgresql -type f") == ""
    # Every connection from there is encrypted, and the pooler's own was let in by its certificate.
    rows = apart.sql(
        "SELECT DISTINCT usename, ssl, client_addr FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
        "WHERE client_addr IS NOT NULL ORDER BY 1"
    )
    assert rows.splitlines() == [f"notes|t|{private(APP)}", f"pgbouncer|t|{private(APP)}"]
    assert apart.sql("SELECT DISTINCT client_dn FROM pg_stat_ssl WHERE client_dn IS NOT NULL") == "/CN=pgbouncer"


def test_it_is_sized_for_the_database_alone(apart: Apart) -> None:
    assert apart.sql("SHOW maintenance_work_mem") == "128MB"  # beside an app half of it
    ini = apart.root("cat /etc/pgbouncer/databases.ini")
    assert f"host={private(DATABASE)} port=5432 dbname=notes pool_size=16" in ini  # 6 x 2 cores + 4
    assert apart.sql("SHOW listen_addresses") == f"localhost,{private(DATABASE)}"


def test_a_second_run_and_a_check_change_nothing(apart: Apart) -> None:
    for args in ((), ("--check", "--diff")):
        done = good(apart.playbook("site", *args))
        changed = [line for line in done.stdout.splitlines() if line.startswith(("changed", "+", "-"))]
        assert recap(done)["changed"] == 0, changed


def test_nobody_but_the_apps_host_reaches_the_port(apart: Apart) -> None:
    assert reached(apart, apart.host, private(DATABASE)) == "open"
    assert apart.acme
    for source, address in ((apart.acme, apart.db.ip), (apart.host, apart.db.ip), (apart.db, private(APP))):
        assert reached(apart, source, address) == "closed"
    assert reached(apart, apart.acme, apart.ip, 6432) == "closed"


def test_only_certificate_and_password_open_it(apart: Apart) -> None:
    address = private(DATABASE)
    folder, files = "/etc/pgbouncer", "sslrootcert={0}/server.crt sslcert={0}/client.crt sslkey={0}/client.key"
    mine = f"{LIBPQ.format(address, 'postgres', 'pgbouncer', 'verify-full')} {files.format(folder)}"
    assert psql(apart, mine, user="pgbouncer") == "pgbouncer"
    refused = {
        "the pooler's role without its certificate": LIBPQ.format(address, "postgres", "pgbouncer", "require") + " sslcert=none",
        "another role by the pooler's certificate": mine.replace("user=pgbouncer", "user=postgres"),
        "the pooler in an app's database": mine.replace("dbname=postgres", "dbname=notes"),
        "an app without TLS": LIBPQ.format(address, "notes", "notes", "disable"),
        "an app in another database": LIBPQ.format(address, "postgres", "notes", "require"),
    }  # fmt: skip
    for what, where in refused.items():
        said = psql(apart, where, user="pgbouncer", env=f"PGPASSWORD={PLANTED['database_password']}")
        assert "FATAL" in said, f"{what}: {said}"
    # A certificate of the same name by another key is not the one that is trusted.
    apart.root(
        "install -d -o pgbouncer /run/forged && cd /run/forged && runuser -u pgbouncer -- openssl req -x509 -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-256 -noenc -days 9 -subj /CN=pgbouncer -keyout client.key -out client.crt 2>/dev/null"
    )
    forged = mine.replace(f"sslcert={folder}", "sslcert=/run/forged").replace(f"sslkey={folder}", "sslkey=/run/forged")
    assert "unknown ca" in psql(apart, forged, user="pgbouncer")
    apart.root("rm -r /run/forged")


def test_keys_stay_where_they_were_made(apart: Apart) -> None:
    for host, key in ((apart.host, "/etc/pgbouncer/client.key"), (apart.db, "/etc/postgresql/17/main/server.key")):
        assert apart.root(["stat", "-c", "%a", key], host=host).strip() == "600"
        line = apart.root(["sed", "-n", "2p", key], host=host).strip()
        for other in (apart.host, apart.db):
            found = apart.root(
                f"grep -rlF '{line}' /etc /var/log /var/lib/slipway /root /run 2>/dev/null || true", host=other
            )
            assert found.split() == ([key] if other.name == host.name else [])


def test_new_keys_are_taken_up_by_both(apart: Apart) -> None:
    apart.root("rm /etc/pgbouncer/client.key")
    apart.root("rm /etc/postgresql/17/main/server.key", host=apart.db)
    good(apart.playbook("site", "--tags", "postgres,pgbouncer"))
    apart.root("systemctl restart postgresql@17-main", host=apart.db)
    apart.wait_until_serving(30)


def test_the_database_comes_back_after_its_host_restarts(apart: Apart) -> None:
    apart.driver.restart(apart.db)
    started = time.monotonic()
    apart.wait_until_serving(90)
    print(f"serving {time.monotonic() - started:.1f} s after the restart of the database's host")


def test_backups_are_taken_and_proved_on_the_databases_host(apart: Apart) -> None:
    good(apart.playbook("take_backup"))
    done = good(apart.playbook("run_drill"))
    assert "proved" in done.stdout
    good(apart.playbook("deploy", "-e", "app=notes", "-e", "app_force=true"))


def test_an_inventory_that_has_the_data_elsewhere_is_refused(apart: Apart) -> None:
    apart.shape = dict(ALONE) | {"monitor": [DATABASE]}
    apart.write_inventory()
    done = apart.playbook("site")
    assert done.returncode != 0
    assert f"The database is on {DATABASE}, and the inventory has it on {APP}" in done.stdout
    assert "playbooks/grow/split_db_rollback.yml" in done.stdout
    assert recap(done)["changed"] == 0
    apart.shape = dict(GROUPS)
    apart.write_inventory()
    only = apart.playbook("site", "--limit", APP)
    assert only.returncode != 0
    assert f"{DATABASE} was not looked at in this run" in only.stdout
    assert recap(only)["changed"] == 0
