# SPDX-License-Identifier: Apache-2.0
"""The lab on a real engine: hosts that boot, are cut off, killed and restarted, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, services
from lab.docker import DockerDriver
from lab.model import Host, HostSpec, Lab, LabError
from lab.process import run

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "it-lab"


def quiet(_text: str) -> None:
    """The lab's progress is of no interest here."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab with two small hosts."""
    found, driver = Lab(NAME), DockerDriver()
    cli.down(driver, found, quiet)
    specs = [HostSpec(name=n, ram_mb=512, cores=1, aliases=(f"{n}.example.test",)) for n in ("one", "two")]
    cli.up(driver, found, specs, quiet)
    yield found
    cli.down(driver, found, quiet)


@pytest.fixture
def driver() -> DockerDriver:
    """The driver under test."""
    return DockerDriver()


@pytest.fixture
def hosts(lab: Lab, driver: DockerDriver) -> Iterator[tuple[Host, Host]]:
    """Both hosts, up and not cut off, before and after the test."""
    one, two = cli.up(driver, lab, [HostSpec(name="one"), HostSpec(name="two")], quiet)
    yield one, two
    for host in driver.hosts(lab):
        if host.running:
            driver.heal(host)


def ssh(lab: Lab, host: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A command over real SSH with the lab's key."""
    argv = ["ssh", "-F", str(lab.ssh_config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", *options, host, command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def reaches(driver: DockerDriver, host: Host, address: str) -> bool:
    """Whether ``host`` gets through to sshd at ``address``."""
    script = f"exec 3<>/dev/tcp/{address}/22"
    return driver.exec(host, ["timeout", "2", "bash", "-c", script], check=False).code == 0


def test_a_host_boots_completely_and_lets_root_in_by_key_alone(lab: Lab, hosts: tuple[Host, Host]) -> None:
    assert ssh(lab, "one", "systemctl is-system-running --wait; systemctl --failed --no-legend").stdout == "running\n"
    refused = ssh(lab, "one", "true", "-o", "PubkeyAuthentication=no", "-o", "PasswordAuthentication=yes")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_hosts_have_host_keys_and_machine_ids_of_their_own(driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    for path in ("/etc/ssh/ssh_host_ed25519_key.pub", "/etc/machine-id"):
        assert driver.read_file(hosts[0], path) != driver.read_file(hosts[1], path)


def test_a_changed_host_key_is_refused(lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    good = lab.known_hosts.read_text()
    other = driver.read_file(hosts[1], "/etc/ssh/ssh_host_ed25519_key.pub").decode().split()[1]
    mine = driver.read_file(hosts[0], "/etc/ssh/ssh_host_ed25519_key.pub").decode().split()[1]
    try:
        lab.known_hosts.write_text(good.replace(mine, other))
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ssh(lab, "one", "true", "-o", "LogLevel=INFO").stderr
    finally:
        lab.known_hosts.write_text(good)


def test_a_host_tells_its_nominal_size_and_is_held_to_its_memory(
    driver: DockerDriver, hosts: tuple[Host, Host]
) -> None:
    assert json.loads(driver.read_file(hosts[0], "/etc/slipway-lab.json"))["ram_mb"] == 512
    limit = run(["docker", "inspect", "--format", "{{.HostConfig.Memory}}", hosts[0].id]).stdout
    assert int(limit) == 512 * 2**20


def test_hosts_find_each_other_by_every_name_over_both_families(driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    for name in ("two", "two.lab.test", "two.example.test", two.ip, *([two.ip6] if two.ip6 else [])):
        assert reaches(driver, one, name), name


def test_a_pair_is_cut_in_both_directions_and_nothing_else_is(
    lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]
) -> None:
    one, two = hosts
    driver.cut(one, two)
    assert not reaches(driver, one, two.ip)
    assert not reaches(driver, two, one.ip)
    if two.ip6:
        assert not reaches(driver, one, two.ip6)
    assert ssh(lab, "one", "getent hosts two").returncode == 0, "names must still resolve"
    driver.cut(one, two)  # a second time is no error
    driver.heal(one)
    assert reaches(driver, one, two.ip)
    assert reaches(driver, two, one.ip)


def test_a_host_cut_off_from_everything_is_reached_by_exec_alone(
    lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]
) -> None:
    driver.cut(hosts[0], None)
    assert ssh(lab, "one", "true").returncode == 255
    assert driver.exec(hosts[0], ["hostname"]).stdout == "one\n"
    driver.heal(hosts[0])
    driver.heal(hosts[0])  # nothing left to heal is no error
    assert ssh(lab, "one", "true").returncode == 0


def test_a_killed_host_keeps_its_disk_address_and_identity(
    lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]
) -> None:
    driver.exec(hosts[0], ["sh", "-c", "echo kept >/root/kept; echo lost >/run/lost; sync"])
    driver.kill(hosts[0])
    (dead,) = (h for h in driver.hosts(lab) if h.name == "one")
    assert dead.state == "stopped"
    with pytest.raises(LabError, match="does not run"):
        driver.cut(dead, None)
    alive = driver.start(dead)
    assert (alive.ip, alive.state) == (hosts[0].ip, "running")
    assert ssh(lab, "one", "cat /root/kept; ls /run/lost").stdout == "kept\n"


def test_a_restart_is_orderly_and_quick(lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    marker = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=/bin/sh -c 'echo orderly >/root/stopped'\n"
    driver.put_file(hosts[0], "/etc/systemd/system/marker.service", marker.encode())
    driver.exec(hosts[0], ["systemctl", "start", "marker.service"])
    started = time.monotonic()
    driver.restart(hosts[0])
    assert time.monotonic() - started < 20
    assert ssh(lab, "one", "cat /root/stopped").stdout == "orderly\n"


def test_files_go_in_and_out_unchanged(driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    blob = bytes(range(256)) * 10
    driver.put_file(hosts[0], "/root/blob", blob, mode=0o640)
    assert driver.read_file(hosts[0], "/root/blob") == blob
    assert driver.exec(hosts[0], ["stat", "-c", "%a %U", "/root/blob"]).stdout == "640 root\n"
    with pytest.raises(LabError, match="No such file"):
        driver.read_file(hosts[0], "/nonexistent")


def test_up_again_changes_nothing(lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    before = [h.id for h in driver.hosts(lab)]
    cli.up(driver, lab, [HostSpec(name="one"), HostSpec(name="two")], quiet)
    assert [h.id for h in driver.hosts(lab)] == before


def test_two_labs_stand_side_by_side_and_cannot_reach_each_other(
    driver: DockerDriver, hosts: tuple[Host, Host]
) -> None:
    other = Lab(f"{NAME}-b")
    try:
        (stranger,) = cli.up(driver, other, [HostSpec(name="one", ram_mb=256, cores=1)], quiet)
        assert stranger.ip != hosts[0].ip
        assert not reaches(driver, stranger, hosts[0].ip)
    finally:
        cli.down(driver, other, quiet)
    networks = run(["docker", "network", "ls", "--format", "{{.Name}}"]).stdout.split()
    assert f"slipway-{other.name}" not in networks
    assert not other.folder.exists()


def test_ansible_reaches_the_lab_s_inventory(lab: Lab, hosts: tuple[Host, Host]) -> None:
    argv = [
        str(ROOT / ".venv/bin/ansible"),
        "all",
        "-i",
        "inventories/lab",
        "-m",
        "slipway.vps.host_info",
        "-e",
        "ansible_user=root",
    ]
    env = {**os.environ, "SLIPWAY_LAB": NAME, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == 2


def test_the_services_host_issues_and_stores(lab: Lab, driver: DockerDriver, hosts: tuple[Host, Host]) -> None:
    """The authority answers over a certificate that ca.pem vouches for, knows the hosts' names, and survives a restart."""
    (acme,) = cli.up(driver, lab, [services.spec()], quiet)
    try:
        driver.put_file(hosts[0], "/root/ca.pem", lab.ca.read_bytes())
        for url in (services.ACME_DIRECTORY, f"https://{services.REGISTRY}/v2/"):
            assert driver.exec(hosts[0], ["curl", "-sf", "--cacert", "/root/ca.pem", url]).code == 0
        services.name_hosts(driver, acme, {"shop.example.test": hosts[0]})
        acme = driver.restart(acme)
        services.refresh(driver, lab, quiet)
        asked = ["python3", "-c", _ASK, "shop.example.test"]
        assert driver.exec(acme, asked).stdout.strip() == hosts[0].ip
        assert driver.exec(acme, ["python3", "-c", _ASK, "unknown.example.test"]).stdout.strip() == "none"
    finally:
        driver.destroy(acme)


# A DNS question for an A record to the authority's own name server, by hand: the host has no resolver tools.
_ASK = """
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in sys.argv[1].split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(struct.pack(">6H", 7, 256, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1), ("127.0.0.1", 8053))
answer = s.recv(512)
at = 12 + len(name) + 4
at += (2 if answer[at] >= 192 else len(name)) + 10  # the record's name, type, class, TTL, length
print(socket.inet_ntoa(answer[at:at + 4]) if struct.unpack(">H", answer[6:8])[0] else "none")
"""
