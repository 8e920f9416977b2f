# SPDX-License-Identifier: Apache-2.0
"""Changes that lock the operator out: the host comes back by itself, also over a reboot, and says so afterwards."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.world import ROOT, Done, World, raise_lab, recap, remove_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
PLAYBOOK = "../tests/integration/hardened"
GUARD_SECONDS = 15
# A lock-out is noticed at once rather than after ssh's patience.
IMPATIENT = {"ANSIBLE_TIMEOUT": "3"}
NOBODY = {"firewall_admin_sources": ["192.0.2.1"]}
NO_GROUP = {"hardening_ssh_groups": ["nogroup"]}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A hardened host behind its firewall."""
    made = raise_lab("lockout", image="rung0", acme=False)
    try:
        done = made.playbook(PLAYBOOK)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        yield made
    finally:
        remove_lab(made)


def change(world: World, tag: str, seconds: int = GUARD_SECONDS, **settings: Any) -> Done:
    """Run the playbook with settings that lock out (or not)."""
    settings |= {"hardening_guard_seconds": seconds, "firewall_guard_seconds": seconds}
    return world.playbook(PLAYBOOK, "--tags", tag, "-e", json.dumps(settings), env=IMPATIENT)


def port_answers(world: World) -> bool:
    """Whether TCP port 22 takes a new connection."""
    try:
        with socket.create_connection((world.ip, 22), timeout=2):
            return True
    except OSError:
        return False


def logs_in(world: World) -> bool:
    """Whether the admin can log in and become root, over a connection of its own."""
    try:
        return port_answers(world) and world.ssh("sudo -n true", timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def seconds_until_back(world: World, limit: float) -> float:
    """Seconds until the admin can log in again."""
    started = time.monotonic()
    while time.monotonic() - started < limit:
        if logs_in(world):
            return time.monotonic() - started
        time.sleep(2)  # each refusal counts towards a ban
    raise AssertionError(f"the host did not come back within {limit} s")


def test_rules_that_shut_the_operator_out_are_undone_by_the_host(world: World) -> None:
    before = world.root(["cat", "/etc/slipway/firewall.nft"])
    done = change(world, "firewall", **NOBODY)
    assert done.returncode != 0
    assert "The host puts the old rules back by itself" in done.stdout
    assert not port_answers(world), "the rules did not lock out, so this test shows nothing"
    seconds_until_back(world, GUARD_SECONDS + 10)
    assert world.root(["cat", "/etc/slipway/firewall.nft"]) == before
    rules = world.root(["nft", "list", "table", "inet", "slipway"])
    assert rules.count("policy drop") == 2
    assert "192.0.2.1" not in rules


def test_the_next_change_tells_of_the_undone_one(world: World) -> None:
    done = change(world, "firewall", firewall_ssh_rate=119)
    assert done.returncode == 0, done.stdout[-3000:]
    told = " ".join((done.stdout + done.stderr).split())
    assert "was undone by the host at" in told
    assert "no new connection confirmed it in time" in told
    assert change(world, "firewall").returncode == 0


def test_an_sshd_that_lets_nobody_in_is_undone_by_the_host(world: World) -> None:
    done = change(world, "hardening", **NO_GROUP)
    assert done.returncode != 0
    assert "cannot log in over a new connection" in done.stdout
    assert port_answers(world)
    assert not logs_in(world), "sshd did not lock out, so this test shows nothing"
    seconds_until_back(world, GUARD_SECONDS + 10)
    assert "allowgroups sudo" in world.root(["sshd", "-T"])


def test_a_reboot_within_the_minute_brings_the_old_state_back(world: World) -> None:
    change(world, "hardening", seconds=600, **NO_GROUP)
    assert not logs_in(world), "sshd did not lock out, so this test shows nothing"
    world.driver.restart(world.host)
    world.refresh()
    seconds_until_back(world, 60)
    assert "allowgroups sudo" in world.root(["sshd", "-T"])
    assert "rebooted before anyone confirmed" in guards(world)[0]["message"]


def test_rules_are_restored_by_a_reboot_before_they_are_loaded(world: World) -> None:
    change(world, "firewall", seconds=600, **NOBODY)
    assert not port_answers(world), "the rules did not lock out, so this test shows nothing"
    world.driver.restart(world.host)
    world.refresh()
    seconds_until_back(world, 60)
    rules = world.root(["nft", "list", "table", "inet", "slipway"])
    assert rules.count("policy drop") == 2
    assert "192.0.2.1" not in rules


def test_a_good_change_stays_and_leaves_no_guard_behind(world: World) -> None:
    done = change(world, "hardening,firewall", seconds=5)
    assert done.returncode == 0, done.stdout[-3000:]
    time.sleep(6)
    again = change(world, "hardening,firewall", seconds=5)
    assert recap(again)["changed"] == 0, again.stdout[-3000:]
    assert guards(world) == []
    assert "slipway-guard" not in world.root(
        "systemctl list-timers --all; ls /etc/systemd/system /run/systemd/transient"
    )


def guards(world: World) -> list[dict[str, str]]:
    """What the library on the host says is pending or was undone and not told yet."""
    found = world.root("ls /var/lib/slipway/guard/*/restored.json /var/lib/slipway/guard/*/armed 2>/dev/null || true")
    reports = []
    for path in found.split():
        text = world.root(["cat", path])
        by = json.loads(text)["by"] if path.endswith(".json") else "nobody yet"
        reports.append({"path": path, "message": {"boot": "rebooted before anyone confirmed"}.get(by, by)})
    return reports


def test_an_exempt_address_is_never_banned(world: World) -> None:
    mine = ipaddress.ip_network(f"{world.ip}/24", strict=False)[1]
    done = change(world, "hardening", hardening_bans_exempt=[str(mine)])
    assert done.returncode == 0, done.stdout[-3000:]
    try:
        for _ in range(8):
            assert world.ssh("true", user="guess").returncode == 255
        time.sleep(3)
        assert world.root(["fail2ban-client", "get", "sshd", "banip"]).strip() == ""
        assert logs_in(world)
    finally:
        assert change(world, "hardening").returncode == 0


def test_every_topic_can_be_switched_off_and_is_then_left_alone(world: World) -> None:
    defaults = yaml.safe_load((ROOT / "roles/hardening/defaults/main.yml").read_text())
    switches = {name: False for name, value in defaults.items() if isinstance(value, bool)}
    del switches["hardening_admin_nopasswd"]  # not a topic: without a password the admin would be shut out of sudo
    assert len(switches) >= 20
    world.root("sed -i 's/MaxSessions.*/MaxSessions 9/' /etc/ssh/sshd_config.d/00-slipway.conf")
    done = change(world, "hardening", **switches, hardening_time="none")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "MaxSessions 9" in world.root(["cat", "/etc/ssh/sshd_config.d/00-slipway.conf"])
