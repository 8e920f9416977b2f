# SPDX-License-Identifier: Apache-2.0
"""``fab``: what it reads from an inventory, the exact command lines it starts, and how it judges what it saw."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from slipway.errors import InputError, SlipwayError

from console import hosts, judge, remote, status, style, ways_in
from console.hosts import Endpoint, Fleet

ROOT = Path(__file__).resolve().parents[2]
FAB = [str(ROOT / "bin/fab")]
HEALTHY: dict[str, Any] = {
    "system": {
        "hostname": "web1", "os": "Debian GNU/Linux 13 (trixie)", "kernel": "6.12", "uptime_seconds": 90061, "load": [0.1, 0.2, 0.3],
        "cores": 2, "ram_mb": 1981, "ram_used_mb": 900, "swap_used_mb": 0, "disk_total_mb": 40960, "disk_used_percent": 31,
        "inodes_used_percent": 5, "reboot_required": False, "lab": False,
    },
    "services": {"ssh": {"state": "active", "version": "10.0p1-7"}, "caddy": {"state": "active", "version": "2.6.2-12"}},
    "failed_units": [],
    "backups": None,
    "climb": None,
    "redis": [{"app": "notes", "purpose": "queue", "up": True, "reason": "", "used_memory": 2**20, "maxmemory": 2**26, "evicted_keys": 0, "connected_clients": 3}],
    "network": {"db1": True},
    "updates": {"all": 0, "security": 0},
    "database": {
        "version": "17.6", "max_connections": 50, "connections": 9, "standby": False, "databases_mb": {"postgres": 7, "notes": 12},
        "pools": [{"database": "notes", "cl_active": 3, "cl_waiting": 0, "sv_active": 1, "sv_idle": 2, "maxwait": 0}],
    },
    "apps": [{"app": "notes", "release": "20260131-a1b2", "colour": "blue", "health": "healthy", "memory_mb": 128, "memory_limit_mb": 316}],
    "last_deploy": {"at": "2026-01-31T12:00:00Z", "who": "me", "what": "deploy", "app": "notes", "result": "succeeded"},
    "certificates": [{"domain": "notes.example.com", "days_left": 61, "issuer": "Let's Encrypt", "problem": ""}],
}  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory with templates in its connection variables, as a user may write them."""
    (tmp_path / "production/group_vars/all").mkdir(parents=True)
    folder = tmp_path / "production"
    (folder / "hosts.yml").write_text(
        "all:\n  hosts:\n    web1:\n      ansible_host: 203.0.113.7\n      ansible_port: 2222\n"
        "      ansible_ssh_common_args: -o UserKnownHostsFile=/k/known -J jump.example.com -o IdentityFile=/k/id\n"
        "edge: {hosts: {web1: }}\napp: {hosts: {web1: }}\ndb: {hosts: {web1: }}\n"
    )
    (folder / "group_vars/all/main.yml").write_text(
        "slipway_environment: production\nslipway_admin_user: deploy\nmy_domain: example.com\nslipway_apps:\n"
        '  - {name: notes, domains: ["notes.{{ my_domain }}"], secrets: {K: "{{ vault_apps.notes.k }}"}}\n'
    )
    return folder


def fleet(**changes: Any) -> Fleet:
    host = Endpoint("web1", "203.0.113.7", groups=("app", "db", "edge"))
    app = {"name": "notes", "domains": ["notes.example.com"]}
    values: dict[str, Any] = {
        "inventory": Path("inventories/production"),
        "environment": "production",
        "hosts": (host,),
        "apps": (app,),
        "overrides": {},
    }
    return Fleet(**{**values, **changes})


# -- the inventory ------------------------------------------------------------------------------------------------


def test_inventory_is_read_with_its_templates_rendered_and_its_secrets_left_out(inventory: Path) -> None:
    found = hosts.read_fleet(inventory)
    (host,) = found.hosts
    assert (host.address, host.port, host.users) == ("203.0.113.7", 2222, ("deploy",))
    assert host.known_hosts == ("/k/known",)
    assert host.jump == "jump.example.com"
    assert host.keys == ("/k/id",)
    assert found.domains == ["notes.example.com"]
    assert "secrets" not in found.apps[0]


def test_one_failed_login_at_most_since_each_counts_towards_a_ban(inventory: Path) -> None:
    (host,) = hosts.read_fleet(inventory).hosts
    assert len(host.users) == 1
    both = hosts.endpoint({"inventory_hostname": "x", "ansible_user": "root", "slipway_admin_user": "ops"})
    assert both.users == ("ops", "root")


def test_only_inventory_is_taken_without_asking(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPWAY_INVENTORY", raising=False)
    (inventory.parent / "example").mkdir()
    assert hosts.choose_inventory("", inventory.parent) == inventory
    assert hosts.choose_inventory("production", inventory.parent) == inventory
    (inventory.parent / "staging").mkdir()
    with pytest.raises(InputError, match=r"2 inventories.*staging"):
        hosts.choose_inventory("", inventory.parent)
    monkeypatch.setenv("SLIPWAY_INVENTORY", str(inventory))
    assert hosts.choose_inventory("", inventory.parent) == inventory


def test_no_inventory_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPWAY_INVENTORY", raising=False)
    with pytest.raises(InputError, match="fab init"):
        hosts.choose_inventory("", tmp_path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "UserKnownHostsFile=/a", "-oIdentityFile=/b"], {"userknownhostsfile": ["/a"], "identityfile": ["/b"]}),
        (["-o", "UserKnownHostsFile /a"], {"userknownhostsfile": ["/a"]}),
        (["-i", "/k", "-J", "me@jump:2222", "-q"], {"identityfile": ["/k"], "proxyjump": ["me@jump:2222"]}),
        (["-o"], {"": [""]}),
        ([], {}),
    ],
)
def test_openssh_options_are_understood(words: list[str], expected: dict[str, list[str]]) -> None:
    assert hosts.parse_options(words) == expected


def test_hosts_and_apps_are_chosen_by_name_or_by_being_the_only_one() -> None:
    one = fleet()
    assert one.host().name == "web1"
    assert one.app()["name"] == "notes"
    with pytest.raises(InputError, match="one of: web1"):
        one.host("web2")
    two = fleet(apps=({"name": "a"}, {"name": "b"}))
    with pytest.raises(InputError, match="a, b"):
        two.app()


# -- exact command lines ------------------------------------------------------------------------------------------


def test_ssh_command_line_is_exact() -> None:
    host = Endpoint("web1", "203.0.113.7", 2222, ("deploy",), keys=("/k/id",), ssh_args=("-o", "UserKnownHostsFile=/k"))
    assert host.ssh_argv(["ls", "a b"], terminal=True) == [
        "ssh", "-o", "UserKnownHostsFile=/k", "-o", "LogLevel=ERROR", "-o", "PreferredAuthentications=publickey", "-p", "2222", "-l", "deploy",
        "-i", "/k/id", "-t", "203.0.113.7", "ls 'a b'",
    ]  # fmt: skip


def test_psql_is_read_only_with_the_apps_rights_unless_told_otherwise() -> None:
    argv = ways_in.psql_command({"name": "notes"})
    assert argv[:6] == ["sudo", "-n", "-u", "postgres", "--", "env"]
    assert argv[6] == "PGOPTIONS=-c role=notes -c default_transaction_read_only=on -c statement_timeout=60s"
    assert argv[7:11] == ["psql", "-X", "-d", "notes"]
    assert any("read only" in word for word in argv)
    assert ways_in.psql_command({"name": "notes"}, write=True)[6] == "PGOPTIONS=-c role=notes"
    assert "role=" not in ways_in.psql_command({"name": "notes"}, admin=True)[6]
    assert ways_in.psql_command({"name": "notes"}, command="select 1")[-2:] == ["-c", "select 1"]


def test_psql_for_an_app_without_database_is_one_message() -> None:
    with pytest.raises(InputError, match="has no database"):
        ways_in.psql_command({"name": "site", "database": False})


def test_logs_of_apps_and_services() -> None:
    journal = ["sudo", "-n", "--", "journalctl", "--no-pager", "--output=short-iso"]
    assert ways_in.logs_command("notes", ["notes"]) == [*journal, "--identifier=slipway-notes", "--lines=100"]
    assert ways_in.logs_command("caddy", ["notes"], since="15m", follow=True) == [
        *journal, "--unit=caddy.service", "--since=15 minutes ago", "--follow",
    ]  # fmt: skip
    assert ways_in.logs_command("notes", ["notes"], access=True, lines=5)[3:] == [
        "tail", "-n", "5", "/var/log/caddy/notes.access.log",
    ]  # fmt: skip
    with pytest.raises(InputError, match="did you mean notes"):
        ways_in.logs_command("note", ["notes"])
    with pytest.raises(InputError, match="shows nothing"):
        ways_in.logs_command("notes", ["notes"], lines=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2h", "2 hours ago"), ("3d", "3 days ago"), ("yesterday", "yesterday"), ("2026-01-31 12:00", "2026-01-31 12:00")],
)
def test_since_takes_short_forms_and_journalds_own(text: str, expected: str) -> None:
    assert ways_in.since_text(text) == expected


# -- judgement ----------------------------------------------------------------------------------------------------


def levels(**changes: Any) -> dict[str, str]:
    """Label -> level of the rows for a healthy host with parts changed."""
    return {row.label: row.level for row in judge.rows_of({**HEALTHY, **changes}, ["notes"])}


def test_healthy_host_has_no_bad_and_no_warning() -> None:
    assert set(levels().values()) <= {"good", "quiet"}


@pytest.mark.parametrize(
    ("changes", "label", "level"),
    [
        ({"apps": []}, "app notes", "bad"),
        ({"apps": None}, "app notes", "bad"),
        ({"apps": [{"app": "notes", "release": "1", "health": "failing"}]}, "app notes", "bad"),
        ({"system": {**HEALTHY["system"], "disk_used_percent": 85}}, "disk", "warn"),
        ({"system": {**HEALTHY["system"], "disk_used_percent": 95}}, "disk", "bad"),
        ({"system": {**HEALTHY["system"], "inodes_used_percent": 95}}, "disk", "bad"),
        ({"system": {**HEALTHY["system"], "ram_used_mb": 1900}}, "memory", "bad"),
        ({"system": {**HEALTHY["system"], "reboot_required": True}}, "reboot", "warn"),
        ({"services": {"caddy": {"state": "failed", "version": "2.6"}}}, "services", "bad"),
        ({"failed_units": ["x.service"]}, "failed units", "bad"),
        ({"database": {**HEALTHY["database"], "connections": 40}}, "connections", "warn"),
        ({"database": {**HEALTHY["database"], "connections": 49}}, "connections", "bad"),
        ({"database": {**HEALTHY["database"], "pools": None}}, "pool", "warn"),
        ({"certificates": [{"domain": "a.b", "days_left": 5, "issuer": ""}]}, "certificate", "bad"),
        ({"certificates": [{"domain": "a.b", "days_left": None, "problem": "none"}]}, "certificate", "bad"),
        ({"apps": [{**HEALTHY["apps"][0], "restarts": 3}]}, "app notes", "warn"),
        ({"apps": [{**HEALTHY["apps"][0], "held": {"release": "r2", "why": "5xx"}}]}, "app notes", "warn"),
        ({"updates": {"all": 4, "security": 2}}, "updates", "warn"),
        ({"redis": [{**HEALTHY["redis"][0], "up": False, "reason": "refused"}]}, "redis queue notes", "bad"),
        ({"redis": [{**HEALTHY["redis"][0], "used_memory": 2**26}]}, "redis queue notes", "bad"),
        ({"redis": [{**HEALTHY["redis"][0], "used_memory": 2**26, "purpose": "cache"}]}, "redis cache notes", "good"),
        ({"network": {"db1": True, "db2": False}}, "network", "bad"),
        ({"last_deploy": {"at": "x", "what": "deploy", "result": "failed"}}, "last deploy", "warn"),
    ],
)
def test_what_is_wrong_is_seen(changes: dict[str, Any], label: str, level: str) -> None:
    assert levels(**changes)[label] == level


def test_bare_or_half_broken_host_is_shown_all_the_same() -> None:
    for missing in HEALTHY:
        assert isinstance(judge.rows_of({**HEALTHY, missing: None}, ["notes"]), list)
    assert judge.rows_of({}, ["notes"])


def test_rung_follows_the_shape() -> None:
    one = {"app": ["a"], "db": ["a"]}
    assert judge.rung(one, [1981]) == (0, "mvp")
    assert judge.rung(one, [3936]) == (1, "resize")
    assert judge.rung({**one, "redis": ["a"]}, [3936])[0] == 2
    assert judge.rung({"app": ["a"], "db": ["b"]}, [3936, 1981]) == (4, "split_db")


# -- the screen ---------------------------------------------------------------------------------------------------


def looker(*answers: dict[str, Any] | SlipwayError) -> status.Looker:
    def look(_hosts: Sequence[Endpoint], _domains: Sequence[str]) -> list[dict[str, Any] | SlipwayError]:
        return list(answers)

    return look


def test_unreachable_host_does_not_hide_the_other() -> None:
    two = fleet(hosts=(Endpoint("web1", "a", groups=("app", "edge")), Endpoint("web2", "b", groups=("app",))))
    found = status.reports(two, looker(remote.UnreachableError("did not answer within 8 s"), dict(HEALTHY)))
    text = status.render(two, found, style.Style(False))
    assert "✗ unreachable: did not answer within 8 s" in text
    assert "release 20260131-a1b2" in text
    assert "\x1b" not in text
    assert [report.level for report in found] == ["bad", "good"]


def test_json_and_colours(capsys: pytest.CaptureFixture[str]) -> None:
    found = status.reports(fleet(), looker(dict(HEALTHY)))
    whole = json.loads(status.as_json(fleet(), found))
    assert whole["level"] == "good"
    assert whole["rung"] == {"number": 0, "name": "mvp"}
    assert "\x1b[" in status.render(fleet(), found, style.Style(True))


def test_control_characters_from_a_server_never_reach_the_terminal() -> None:
    evil = {**HEALTHY, "system": {**HEALTHY["system"], "os": "Debian\x1b]0;owned\x07\x1b[2J"}}
    assert "\x1b" not in status.render(fleet(), status.reports(fleet(), looker(evil)), style.Style(False))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (61, "1 min 1 s"), (90061, "1 d 1 h"), (7200, "2 h")])
def test_durations(seconds: int, text: str) -> None:
    assert style.duration(seconds) == text


# -- the way there ----------------------------------------------------------------------------------------------


def test_closed_port_and_unknown_name_are_told_apart() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]  # ours, and nobody listens on it
        with pytest.raises(remote.UnreachableError, match=f"refuses connections on port {port}"):
            remote.exchange(Endpoint("x", "127.0.0.1", port), b"")
    with pytest.raises(remote.UnreachableError, match="not known to DNS"):
        remote.exchange(Endpoint("x", "no-such-host.invalid"), b"")


def test_something_else_on_the_ssh_port_is_one_message() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        import threading

        def hang_up() -> None:
            peer, _ = listener.accept()
            peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(remote.UnreachableError, match=r"SSH failed|did not answer"):
            remote.exchange(Endpoint("x", "127.0.0.1", listener.getsockname()[1]), b"")


# -- the command as typed -----------------------------------------------------------------------------------------


def fab(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": "/nonexistent", "SLIPWAY_INVENTORY": "", **environment}
    return subprocess.run(
        [*FAB, *words], check=False, capture_output=True, text=True, cwd="/", env=env, stdin=subprocess.DEVNULL
    )


def test_list_names_every_command() -> None:
    shown = fab("--list").stdout
    for name in ("init", "status", "logs", "psql", "ssh", "sizing"):
        assert f"  {name}" in shown


def test_sizing_of_a_host_that_is_only_thought_of() -> None:
    text = fab("sizing", "--ram", "4096", "--cores", "2").stdout
    assert "1024 MB" in text
    assert json.loads(fab("sizing", "--ram", "4096", "--cores", "2", "--json").stdout)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sizing", "--ram", "100", "--cores", "1"], "To mend it: take a plan of"),
        (["sizing", "--ram", "4096"], "its RAM and its cores"),
        (["status", "-i", "inventories/nope"], "There is no inventory inventories/nope"),
        (["logs", "catty", "-i", "example"], "did you mean caddy"),
        (["logs", "-i", "example", "catty"], "did you mean caddy"),
        (["psql", "shop", "-i", "example"], "name one of: notes"),
        (["ssh", "web9", "-i", "example"], "one of: web1"),
        (["init", "--name", "lab"], "missing"),
    ],
)
def test_mistakes_end_in_one_message_and_no_traceback(words: list[str], expected: str) -> None:
    done = fab(*words)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("fab:")]) == 1


def test_help_works_where_a_bare_word_could_stand() -> None:
    assert "--since" in fab("logs", "--help").stdout


def test_status_of_an_unreachable_host_is_a_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "i/group_vars").mkdir(parents=True)
    (tmp_path / "i/hosts.yml").write_text(
        "all: {hosts: {web1: {ansible_host: no-such-host.invalid}}}\napp: {hosts: {web1: }}\n"
    )
    done = fab("status", "-i", str(tmp_path / "i"))
    assert done.returncode == 1
    assert "unreachable: the name no-such-host.invalid is not known to DNS" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
