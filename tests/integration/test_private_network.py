# SPDX-License-Identifier: Apache-2.0
"""Three hosts joined by WireGuard in user space: who reaches what, what the wire carries, and how it comes back.

``app1`` may reach ``db1`` on PostgreSQL's port, ``odd1`` (a drill host) nobody. The tests build on each other, in order.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from slipway.network.plan import Settings, address_of

from lab import images, inventory
from lab.model import Host, HostSpec
from tests.integration.apart import TUN
from tests.integration.world import Done, World, quiet, raise_lab, recap, remove_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(500)]
GROUPS = {"app": ["app1"], "edge": ["app1"], "db": ["db1"], "drill": ["odd1"]}
FOLDER = "/etc/slipway/private_network"
UNIT = "slipway-private-network.service"
IMPLIED, PLANTED = 5432, 9999
TEXT = "planted-on-the-wire-4k2v9x"
# Answers whoever connects, on every address of the host; the line it got comes back.
LISTENER = f"""
import socket, threading
def serve(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        one, _ = server.accept()
        one.settimeout(5)
        try: one.sendall(one.recv(1000))
        except OSError: pass
        one.close()
threading.Thread(target=serve, args=({IMPLIED},), daemon=True).start()
serve({PLANTED})
"""


@dataclass
class Net:
    """The hosts by name, and what is done with them."""

    world: World
    hosts: dict[str, Host]
    first: Done | None = None

    def private(self, name: str) -> str:
        """A host's address in the tunnel."""
        return address_of(name, Settings().subnet)

    def write(self, setting: dict[str, Any] | None, *left_out: str, **own: dict[str, str]) -> None:
        """The inventory, without some hosts; ``own``: variables of single hosts."""
        hosts = [host for name, host in self.hosts.items() if name not in left_out]
        groups = {name: [one for one in listed if one not in left_out] for name, listed in GROUPS.items()}
        tree = inventory.as_yaml_tree(inventory.build(self.world.lab, hosts, groups))
        for name, variables in own.items():
            tree["all"]["hosts"][name].update(variables)
        folder = self.world.inventory / "group_vars" / "all"
        (self.world.inventory / "hosts.yml").write_text(yaml.safe_dump(tree))
        given = {} if setting is None else {"slipway_private_network": setting}
        (folder / "main.yml").write_text(yaml.safe_dump({"slipway_environment": "lab", **given}))

    def join(self, *args: str) -> Done:
        """The playbook."""
        return self.world.playbook("../tests/integration/private_network.yml", *args)

    def root(self, name: str, argv: list[str] | str, **more: Any) -> str:
        """A command on a host, past its firewall."""
        return self.world.root(argv, host=self.hosts[name], **more)

    def echo(self, source: str, target: str, port: int, text: str = "hello") -> str:
        """What a listener on ``target`` (an address) answers to ``source``; empty where it is not reached."""
        code = (
            "import socket, sys\n"
            "try:\n"
            f" with socket.create_connection(('{target}', {port}), 3) as one:\n"
            f"  one.sendall(b'{text}'); print(one.recv(1000).decode())\n"
            "except OSError: pass\n"
        )
        return self.root(source, ["python3", "-c", code]).strip()

    def until(self, source: str, target: str, seconds: float) -> float:
        """Seconds until ``target`` answers ``source`` over the tunnel."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if self.echo(source, self.private(target), IMPLIED):
                return time.monotonic() - started
            time.sleep(0.3)
        raise AssertionError(f"{target} does not answer {source} after {seconds} s")


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The hosts, with a listener on every address that only one of them may reach, not yet joined."""
    beside = [HostSpec(name=name, image="rung0", ram_mb=1024) for name in ("db1", "odd1")]
    world = raise_lab(
        os.environ.get("SLIPWAY_LAB") or "network", image="rung0", acme=False, ram_mb=1024, host="app1", beside=beside
    )
    try:
        made = {host.name: host for host in world.driver.hosts(world.lab)}
        net = Net(world, made)
        for name, host in made.items():
            world.driver.put_file(host, "/etc/systemd/system/lab-tun.service", TUN.encode())
            world.driver.put_file(host, "/opt/listener.py", LISTENER.encode())
            unit = "[Service]\nExecStart=/usr/bin/python3 /opt/listener.py\n[Install]\nWantedBy=multi-user.target\n"
            world.driver.put_file(host, "/etc/systemd/system/listener.service", unit.encode())
            net.root(name, "systemctl disable --now --quiet postgresql.service postgresql@17-main.service", check=False)
            net.root(name, "systemctl daemon-reload && systemctl enable --now --quiet lab-tun.service listener.service")
        yield net
    finally:
        remove_lab(world)


def good(done: Done) -> Done:
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    return done


def test_a_wrong_subnet_ends_in_one_message_before_anything_is_changed(net: Net) -> None:
    lab = ".".join(net.world.ip.split(".")[:2]) + ".0.0/16"
    net.write({"subnet": lab})
    done = net.join()
    assert done.returncode != 0
    assert re.search(rf"The subnet {re.escape(lab)} overlaps \S+, which the host has on eth0", done.stdout)
    assert recap(done)["changed"] == 0
    net.write(
        {"kind": "provider", "interface": "enp7s0", "subnet": "10.0.0.0/16"},
        app1={"slipway_private_address": "10.0.0.2"},
    )
    assert "The host has no interface enp7s0" in net.join("--limit", "app1").stdout
    assert net.root("app1", f"ls {FOLDER} 2>/dev/null", check=False) == ""


def test_check_mode_shows_it_and_changes_nothing(net: Net) -> None:
    net.write({})
    done = good(net.join("--check", "--diff"))
    assert recap(done)["changed"] > 0
    assert "Would install" in done.stdout
    assert f"AllowedIPs = {net.private('db1')}/32" in done.stdout
    assert net.root("app1", f"ls {FOLDER} 2>/dev/null", check=False) == ""


def test_the_hosts_are_joined_and_a_second_run_changes_nothing(net: Net) -> None:
    net.first = good(net.join("--diff", "-vvv"))
    again = good(net.join("--diff"))
    assert recap(again)["changed"] == 0
    assert "WireGuard in user space" in net.root("app1", ["systemctl", "show", "-P", "Description", UNIT])


def test_the_secret_half_of_a_key_is_on_its_host_alone(net: Net) -> None:
    assert net.first
    for name in net.hosts:
        secret = net.root(name, f"sed -n 's/^PrivateKey = //p' {FOLDER}/key.conf").strip()
        assert len(secret) == 44
        assert secret not in net.first.stdout + net.first.stderr
        assert secret not in net.root(name, ["journalctl", "--no-pager", "-q"])
        assert net.root(name, f"stat -c '%a %U' {FOLDER} {FOLDER}/key.conf").split() == ["700", "root", "600", "root"]
        for other in set(net.hosts) - {name}:
            assert secret not in net.root(other, f"cat {FOLDER}/*")


def test_every_tcp_port_from_every_host_finds_exactly_the_implied_pairs(net: Net) -> None:
    """Over private and public addresses, with a listener bound to everything on a port that nobody implied."""
    services = images.ensure("services", quiet)
    private = {net.private(name): name for name in net.hosts}
    public = {host.ip: name for name, host in net.hosts.items()}

    def nmap(source: str, targets: list[str], *options: str) -> str:
        """Past the host's own firewall but from its addresses: another container in its network."""
        return subprocess.run(
            ["docker", "run", "--rm", "--network", f"container:{net.hosts[source].id}", "--entrypoint", "nmap", services,
             "-n", "-Pn", "--open", *options, "-oG", "-", *targets],
            capture_output=True, text=True, check=True, timeout=200,
        ).stdout  # fmt: skip

    def scan(source: str) -> dict[tuple[str, str, str], set[int]]:
        # The public side is the same for all of them: it is looked at from the host that may reach nothing.
        looked_at = {**private, **public} if source == "odd1" else private
        targets = [address for address, name in looked_at.items() if name != source]
        # Every port once, and those where something listens until it is sure: a lost packet must not hide one.
        said = nmap(source, targets, "-p-", "--min-rate", "5000", "--max-retries", "0")
        said += nmap(source, targets, "-p", f"22,80,443,{IMPLIED},{PLANTED}")
        found: dict[tuple[str, str, str], set[int]] = {}
        for address in targets:
            lines = re.findall(rf"^Host: {re.escape(address)} .*Ports: (.*)$", said, re.MULTILINE)
            way, name = ("private", private[address]) if address in private else ("public", public[address])
            found[source, name, way] = {int(one) for line in lines for one in re.findall(r"(\d+)/open/", line)}
        return found

    with ThreadPoolExecutor(3) as pool:
        found = {key: ports for part in pool.map(scan, net.hosts) for key, ports in part.items()}
    assert len(found) == 8
    for (source, target, way), ports in found.items():
        if way == "private":
            assert ports == ({22, IMPLIED} if (source, target) == ("app1", "db1") else {22}), (source, target)
        else:
            assert ports <= {22, 80, 443}, (source, target, ports)
            assert 22 in ports


def test_the_planted_listener_would_be_reached_without_the_firewall(net: Net) -> None:
    """So that the scan cannot pass for another reason."""
    assert net.echo("odd1", net.private("db1"), PLANTED) == ""
    try:
        net.root("db1", ["nft", "delete", "table", "inet", "slipway"])
        assert net.echo("odd1", net.private("db1"), PLANTED) == "hello"
    finally:
        net.root("db1", ["systemctl", "reload", "slipway-firewall.service"])


def test_the_wire_carries_no_word_of_it(net: Net) -> None:
    capture = (
        "import socket, sys, time\n"
        "one = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); one.bind((sys.argv[1], 0)); one.settimeout(1)\n"
        "end, data = time.monotonic() + 6, b''\n"
        "print('ready', flush=True)\n"
        "while time.monotonic() < end:\n"
        " try: data += one.recv(65535)\n"
        " except TimeoutError: pass\n"
        f"print(len(data), b'{TEXT}' in data)\n"
    )
    seen = {
        interface: subprocess.Popen(
            ["docker", "exec", net.hosts["app1"].id, "python3", "-c", capture, interface],
            stdout=subprocess.PIPE,
            text=True,
        )
        for interface in ("eth0", "slipway-wg")
    }
    for one in seen.values():
        assert one.stdout
        assert one.stdout.readline().strip() == "ready"
    assert net.echo("app1", net.private("db1"), IMPLIED, TEXT) == TEXT
    said = {name: one.communicate(timeout=30)[0].split() for name, one in seen.items()}
    assert said["slipway-wg"][1] == "True", "the capture inside the tunnel must see it, or the other proves nothing"
    assert int(said["eth0"][0]) > 200
    assert said["eth0"][1] == "False"


def test_it_comes_back_by_itself_after_a_cut_a_crash_and_a_restart(net: Net) -> None:
    app1, db1 = net.hosts["app1"], net.hosts["db1"]
    net.world.driver.cut(db1, app1)
    assert net.echo("app1", net.private("db1"), IMPLIED) == ""
    net.world.driver.heal(db1)
    net.until("app1", "db1", 30)
    net.root("db1", ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT])
    net.until("app1", "db1", 30)
    net.hosts["db1"] = net.world.driver.restart(db1)
    net.until("app1", "db1", 60)
    assert net.echo("odd1", net.private("db1"), PLANTED) == ""


def test_a_new_key_of_one_host_leaves_the_others_connected(net: Net) -> None:
    net.write({})
    before = net.root("db1", f"cat {FOLDER}/peers.conf")
    address = net.private("db1")
    code = f"ping -q -i 0.2 -w 300 {address} > /tmp/ping.txt 2>&1 & echo $! > /tmp/ping.pid"
    net.root("app1", code)
    net.root("odd1", ["rm", f"{FOLDER}/key.conf"])
    good(net.join())
    net.root("app1", "kill -INT $(cat /tmp/ping.pid); sleep 0.5")
    assert " 0% packet loss" in net.root("app1", ["cat", "/tmp/ping.txt"])
    assert net.root("db1", f"cat {FOLDER}/peers.conf") != before
    assert recap(good(net.join()))["changed"] == 0


def test_a_host_that_is_taken_out_goes_from_all_others(net: Net) -> None:
    net.write({}, "odd1")
    good(net.join())
    for name in ("app1", "db1"):
        assert len(net.root(name, ["wg", "show", "slipway-wg", "peers"]).split()) == 1
        assert net.hosts["odd1"].ip not in net.root(name, ["nft", "list", "table", "inet", "slipway"])
    assert net.echo("odd1", net.private("db1"), IMPLIED) == ""
    net.until("app1", "db1", 10)


def test_a_providers_interface_takes_the_tunnels_place(net: Net) -> None:
    name, addresses = (
        f"slipway-{net.world.lab.name}-provider",
        {"app1": "10.99.77.11", "db1": "10.99.77.12", "odd1": "10.99.77.13"},
    )
    subprocess.run(
        ["docker", "network", "create", "--internal", "--subnet", "10.99.77.0/24", name],
        check=True,
        capture_output=True,
    )
    try:
        for host, address in addresses.items():
            subprocess.run(["docker", "network", "connect", "--ip", address, name, net.hosts[host].id], check=True)
        own = {host: {"slipway_private_address": address} for host, address in addresses.items()}
        net.write({"kind": "provider", "subnet": "10.99.77.0/24"}, **own)
        good(net.join())
        assert recap(good(net.join()))["changed"] == 0
        assert "slipway-wg" not in net.root("app1", ["ip", "link"])
        assert net.root("app1", f"ls {FOLDER}").strip() == ""
        assert net.echo("app1", addresses["db1"], IMPLIED) == "hello"
        for source, target, port in (("app1", "db1", PLANTED), ("odd1", "db1", IMPLIED), ("db1", "app1", IMPLIED)):
            assert net.echo(source, addresses[target], port) == ""
    finally:
        for host in net.hosts.values():
            subprocess.run(
                ["docker", "network", "disconnect", "--force", name, host.id], check=False, capture_output=True
            )
        subprocess.run(["docker", "network", "rm", name], check=False, capture_output=True)
