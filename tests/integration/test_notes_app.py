# SPDX-License-Identifier: Apache-2.0
"""The example application as it runs: in its container, read-only, behind PgBouncer, on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lab import images
from tests.integration.world import quiet
from tests.load import Load, Plan, Target, ledger_query, parse_ledger, reconcile

ROOT = Path(__file__).parents[2]
NAME = "slipway-notes-app"
PASSWORD = "notes-app-test"  # of a database that lives for this test

DATABASE = f"""
set -e
pg_ctlcluster 17 main start
su postgres -c "psql -qc \\"CREATE ROLE notes LOGIN PASSWORD '{PASSWORD}'\\" -c 'CREATE DATABASE notes OWNER notes'"
cat > /etc/pgbouncer/pgbouncer.ini <<END
[databases]
notes = host=127.0.0.1
notes_session = host=127.0.0.1 dbname=notes pool_mode=session
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 6432
auth_type = plain
auth_file = /etc/pgbouncer/userlist.txt
pool_mode = transaction
max_prepared_statements = 100
default_pool_size = 4
server_login_retry = 1
END
echo '"notes" "{PASSWORD}"' > /etc/pgbouncer/userlist.txt
chown postgres /etc/pgbouncer/*
exec su postgres -s /bin/sh -c 'exec pgbouncer /etc/pgbouncer/pgbouncer.ini'
"""


def docker(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {argv[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def postgres(action: str) -> None:
    """Stop, start or restart PostgreSQL behind the pooler, which stays."""
    mode = ["-m", "fast"] if action != "start" else []
    docker("exec", f"{NAME}-db", "pg_ctlcluster", "17", "main", action, *mode)


@dataclass
class App:
    """The image and its environment; `start` runs one container on a loopback port."""

    image: str

    def options(self, **env: str) -> list[str]:
        url = f"postgresql://notes:{PASSWORD}@{NAME}-db:6432/notes"
        known = {"DATABASE_URL": url, "DATABASE_SESSION_URL": f"{url}_session", "SECRET_KEY": "k" * 20, **env}
        argv = ["--network", NAME, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        return argv + [word for key, value in known.items() for word in ("--env", f"{key}={value}")]

    def migrate(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "run", "--rm", *self.options(**env), self.image, "python", "-m", "notes.migrate"],
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, name: str, **env: str) -> str:
        """Address of a container that answers /healthz."""
        docker("rm", "-f", f"{NAME}-{name}", check=False)
        docker("run", "-d", "--name", f"{NAME}-{name}", "-p", "127.0.0.1::8000", *self.options(**env), self.image)
        url = "http://" + docker("port", f"{NAME}-{name}", "8000").splitlines()[0]
        wait_for(url + "/healthz")
        return url


def fetch(url: str, data: Any = None) -> tuple[int, str]:
    """Status and body; an error status is an answer too."""
    body = None if data is None else json.dumps(data).encode()
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own container
    try:
        with urlopen(request, timeout=30) as response:  # noqa: S310
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def wait_for(url: str, status: int = 200, seconds: float = 30) -> str:
    found: object = None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found = fetch(url)
        except OSError as error:
            found = error
        else:
            if found[0] == status:
                return found[1]
        time.sleep(0.2)
    raise AssertionError(f"{url} did not answer {status} within {seconds} s: {found}")


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    """Database, pooler, image and network, with the schema in place."""
    remove()
    docker("network", "create", NAME)
    docker(
        "run", "-d", "--name", f"{NAME}-db", "--network", NAME, images.ensure("rung0", quiet), "bash", "-c", DATABASE
    )
    base = images.ensure("python", quiet)
    build = [
        "docker",
        "build",
        "-q",
        "-t",
        f"{NAME}:test",
        "--build-arg",
        f"BASE_IMAGE={base}",
        ROOT / "examples/notes",
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = App(f"{NAME}:test")
    deadline = time.monotonic() + 30
    while (done := made.migrate()).returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    yield made
    remove()


def remove() -> None:
    names = docker("ps", "-aq", "--filter", f"name=^{NAME}-(db|a|b)$").split()
    if names:
        docker("rm", "-f", "-v", *names)
    docker("network", "rm", NAME, check=False)
    docker("image", "rm", f"{NAME}:test", check=False)


pytestmark = pytest.mark.lab


def test_migrating_again_does_nothing(app: App) -> None:
    done = app.migrate()
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_a_failing_migration_ends_with_one_line_and_no_traceback(app: App) -> None:
    done = app.migrate(FAIL_MIGRATION="1")
    assert done.returncode == 1
    assert done.stderr.strip() == "migration failed: FAIL_MIGRATION is set: this migration fails on purpose"


def test_a_missing_setting_ends_with_one_line(app: App) -> None:
    done = docker("run", "--rm", *app.options(SECRET_KEY=""), app.image, check=False)
    assert done.strip() == "notes cannot start: SECRET_KEY has 0 characters; expected a random secret of 16 or more"


def test_a_note_is_stored_once_however_often_it_is_sent(app: App) -> None:
    url = app.start("a", RELEASE="r1", COLOUR="blue")
    wait_for(f"{url}/readyz")
    before = json.loads(fetch(f"{url}/api/count")[1])
    note = {"id": str(uuid.uuid4()), "text": "twice <b>é</b>"}
    assert fetch(f"{url}/api/notes", note)[0] == 201
    assert fetch(f"{url}/api/notes", note)[0] == 200
    after = json.loads(fetch(f"{url}/api/count")[1])
    assert after == {"notes": before["notes"] + 1, "duplicates": before["duplicates"] + 1}
    assert json.loads(fetch(f"{url}/api/notes/{note['id']}")[1])["text"] == note["text"]
    page = fetch(f"{url}/")[1]
    assert "twice &lt;b&gt;é&lt;/b&gt;" in page
    assert "r1 · blue" in page


def test_the_page_needs_nothing_a_strict_policy_forbids(app: App) -> None:
    page = fetch(app.start("a") + "/")[1]
    assert "<script" not in page
    assert "style=" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_readiness_follows_database_and_switch(app: App) -> None:
    url = app.start("a", FAIL_READY="1")
    assert fetch(f"{url}/readyz")[0] == 503
    assert fetch(f"{url}/healthz")[0] == 200
    url = app.start("a")
    wait_for(f"{url}/readyz")
    postgres("stop")
    try:
        assert "database" in wait_for(f"{url}/readyz", 503, seconds=5)
        assert fetch(f"{url}/healthz")[0] == 200
    finally:
        postgres("start")
    wait_for(f"{url}/readyz")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_finishes_what_is_in_flight(app: App, workers: str) -> None:
    url = app.start("a", WORKERS=workers)
    wait_for(f"{url}/readyz")
    answers: dict[str, tuple[int, str]] = {}
    threads = [
        threading.Thread(target=lambda path=path: answers.update({path: fetch(url + path)}))
        for path in ("/slow?seconds=5", "/stream?seconds=5")
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    docker("stop", "-t", "30", f"{NAME}-a")
    for thread in threads:
        thread.join()
    assert answers["/slow?seconds=5"][0] == 200
    assert answers["/stream?seconds=5"][1].endswith("end\n")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", f"{NAME}-a").strip() == "0"


def test_a_restart_of_postgres_under_load_loses_nothing(app: App) -> None:
    import asyncio

    url = app.start("a")
    wait_for(f"{url}/readyz")

    async def go() -> Any:
        load = Load(Target(url), Plan(rate=50, seconds=10, protocols=("http/1.1",), connections=64))
        running = asyncio.create_task(load.run())
        await asyncio.sleep(3)
        await asyncio.to_thread(postgres, "restart")
        return await running

    report = asyncio.run(go())
    assert report.clean, report.summary()
    stored = docker(
        "exec", "-i", f"{NAME}-db", "su", "postgres", "-c", "psql -XAtq notes", stdin=ledger_query(report.ledger)
    )
    found = reconcile(report, parse_ledger(stored))
    assert found.lost == []
    assert found.duplicated == []
    assert found.acknowledged == found.stored > 100


def test_logs_are_json_without_secrets(app: App) -> None:
    url = app.start("a", RELEASE="r9", FAIL_RATE="1")
    assert fetch(f"{url}/api/count")[0] == 500
    lines = docker("logs", f"{NAME}-a").splitlines()
    parsed = [json.loads(line) for line in lines]
    assert all(line["release"] == "r9" for line in parsed)
    assert any(line["what"] == "request" and line["status"] == 500 for line in parsed)
    assert PASSWORD not in "\n".join(lines)
