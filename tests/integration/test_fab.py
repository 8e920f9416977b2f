# SPDX-License-Identifier: Apache-2.0
"""``fab`` against a converged host, over real SSH: it shows what is there and changes nothing."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.world import World

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def seen(converged: World) -> dict[str, Any]:
    """What ``fab status --json`` says of the converged host, its last deploy a good one whatever ran before."""
    fresh = converged.playbook("deploy", "-e", "app_force=true")
    assert fresh.returncode == 0, fresh.stdout[-3000:]
    done = converged.fab("status", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    (host,) = found["hosts"]
    assert not host["error"], host["error"]
    return {**host, "rung": found["rung"], "rows": {row["label"]: row for row in host["rows"]}}


def test_status_shows_the_release_that_serves(converged: World, seen: dict[str, Any]) -> None:
    answer = json.loads(converged.root(["/usr/local/sbin/slipway", "app", "status", "--json"]))
    (app,) = answer["apps"]
    assert seen["rows"]["app notes"]["level"] == "good"
    assert app["release"] in seen["rows"]["app notes"]["text"]
    assert app["deploy"]["release"] in seen["rows"]["last deploy"]["text"]


def test_status_shows_database_pool_and_certificate(converged: World, seen: dict[str, Any]) -> None:
    assert "notes" in seen["seen"]["database"]["databases_mb"]
    assert seen["seen"]["database"]["max_connections"] == int(converged.sql("show max_connections"))
    assert {pool["database"] for pool in seen["seen"]["database"]["pools"]} >= {"notes"}
    (certificate,) = seen["seen"]["certificates"]
    assert certificate["domain"] == converged.domain
    assert certificate["days_left"] > 0
    assert "Pebble" in certificate["issuer"]


def test_status_shows_services_and_the_plans_memory(seen: dict[str, Any]) -> None:
    services = seen["seen"]["services"]
    assert {name for name, one in services.items() if one["state"] == "active"} >= {
        "ssh",
        "docker",
        "caddy",
        "postgres",
        "pgbouncer",
    }
    assert seen["seen"]["system"]["ram_mb"] == 2048
    assert seen["rung"] == {"number": 0, "name": "mvp"}


def test_status_is_one_screen_and_takes_one_login(converged: World) -> None:
    before = int(converged.root("journalctl -t sshd-session -t sshd | grep -c 'Accepted publickey'"))
    text = converged.fab("status").stdout
    after = int(converged.root("journalctl -t sshd-session -t sshd | grep -c 'Accepted publickey'"))
    assert after - before == 1
    assert len(text.splitlines()) <= 40
    assert "\x1b" not in text


def state(world: World) -> set[str]:
    """Every file of ours with its sum, every container, the number of tables."""
    files = world.root("find /etc /usr/local /var/lib/slipway -xdev -type f -exec sha256sum {} +").splitlines()
    return {*files, world.root("docker ps -aq | sort"), world.sql("select count(*) from pg_stat_user_tables")}


def test_looking_changes_nothing(converged: World) -> None:
    # At a quarter past two the host takes a backup by itself, up to half an hour late.
    timers = "slipway-backup.timer slipway-drill.timer"
    converged.root(
        f"systemctl stop {timers}; while systemctl -q is-active slipway-backup slipway-drill; do sleep 1; done"
    )
    try:
        before = state(converged)
        for words in (
            ["status"],
            ["sizing"],
            ["logs", "notes", "--lines", "3"],
            ["psql", "notes", "--command", "select 1"],
        ):
            done = converged.fab(*words)
            assert done.returncode in (0, 1), done.stderr
        assert state(converged) ^ before == set()
    finally:
        converged.root(f"systemctl start {timers}")


def test_stopped_service_is_seen_and_named(converged: World) -> None:
    converged.root("systemctl stop pgbouncer.service")
    try:
        done = converged.fab("status")
    finally:
        converged.root("systemctl start pgbouncer.service")
        converged.wait_until_serving()
    assert done.returncode == 1
    assert "pgbouncer INACTIVE" in done.stdout
    assert "PgBouncer does not answer" in done.stdout


def test_logs_show_the_apps_own_lines_and_its_accesses(converged: World) -> None:
    mark = f"/?mark={time.time_ns()}"
    assert converged.status(mark) == 200
    assert "serving" in converged.fab("logs", "--lines", "200").stdout
    deadline = time.monotonic() + 20
    while mark not in (text := converged.fab("logs", "notes", "--access").stdout):
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(1)
    assert json.loads(text.splitlines()[-1])


@pytest.mark.parametrize(
    "what", ["postgres", "pgbouncer", "caddy", "docker", "ssh", "firewall", "switch", "deploy", "bans"]
)
def test_each_part_of_the_host_has_its_logs(converged: World, what: str) -> None:
    done = converged.fab("logs", what, "--lines", "5")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 1
    assert "No entries" not in done.stdout


def test_deploys_log_names_the_app(converged: World) -> None:
    assert "notes" in converged.fab("logs", "deploy", "--lines", "50").stdout


def test_psql_reads_with_the_apps_rights_and_writes_only_when_told(converged: World) -> None:
    who = converged.fab("psql", "--command", "select current_user, current_setting('transaction_read_only')")
    assert "notes" in who.stdout
    assert " on" in who.stdout
    refused = converged.fab("psql", "--command", "create table fab_was_here()")
    assert refused.returncode != 0
    assert "read-only transaction" in refused.stderr
    assert converged.sql("select to_regclass('fab_was_here')") == ""
    allowed = converged.fab("psql", "--write", "--command", "create table fab_was_here()")
    assert allowed.returncode == 0, allowed.stderr
    assert converged.sql("select tableowner from pg_tables where tablename = 'fab_was_here'") == "notes"
    assert converged.fab("psql", "--write", "--command", "drop table fab_was_here").returncode == 0


def test_sizing_measures_the_live_host(converged: World) -> None:
    budget = json.loads(converged.fab("sizing", "--json").stdout)
    assert budget["postgres"]["settings"]["max_connections"] in (50, "50")
    assert budget["budget"]["total_mb"] <= 2048
    assert "Memory budget: 2048 MB" in converged.fab("sizing").stdout


def test_ssh_leads_to_the_admin_user(converged: World) -> None:
    done = subprocess.run(
        [str(ROOT / "bin/fab"), "ssh", "-i", str(converged.inventory)], check=False, capture_output=True, text=True,
        input="id -un\n", timeout=60, cwd="/",
    )  # fmt: skip
    assert "ops" in done.stdout, done.stderr


def test_changed_host_key_is_refused_with_the_reason(converged: World, tmp_path: Path) -> None:
    known = converged.lab.known_hosts
    original = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    known.write_text(f"{converged.ip} {other}\n")
    try:
        done = converged.fab("status")
    finally:
        known.write_text(original)
    assert done.returncode == 1
    assert "another host key than the one known" in done.stdout
    assert f"ssh-keygen -R '{converged.ip}'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_secrets_are_on_no_screen(converged: World) -> None:
    from tests.integration.world import PLANTED

    shown = "".join(
        done.stdout + done.stderr
        for done in (
            converged.fab("status", "--json"),
            converged.fab("logs", "deploy"),
            converged.fab("logs", "--lines", "500"),
        )
    )
    for secret in PLANTED.values():
        assert secret not in shown
