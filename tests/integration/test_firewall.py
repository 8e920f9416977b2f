# SPDX-License-Identifier: Apache-2.0
"""What a second host finds open, with a container that publishes a port to everybody running."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.checks import open_ports
from tests.integration.world import World

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
PUBLISHED = 8080
# DNS, DHCP, TFTP, NTP, portmapper, NetBIOS, SNMP, LDAP, IKE, syslog, mDNS, LLMNR, WireGuard, HTTP/3, Docker's VXLAN and more.
USUAL_UDP = "53,67,68,69,111,123,137,138,161,389,443,500,514,546,1900,4500,4789,5353,5355,7946,51820"


@pytest.fixture(scope="module")
def published(converged: World) -> Iterator[World]:
    """The converged host, with a container that listens on 0.0.0.0 and [::] of the host."""
    image = converged.root("docker ps --format '{{.Image}}' | head -n 1").strip()
    assert image, "no container runs on the converged host"
    converged.root(
        f"docker run -d --name published -p 0.0.0.0:{PUBLISHED}:8000 -p '[::]:{PUBLISHED}:8000' --entrypoint python3 {image} -m http.server 8000"
        " --bind 0.0.0.0 --directory /tmp"
    )
    try:
        converged.root(
            f"for i in $(seq 50); do curl -sf -o /dev/null http://127.0.0.1:{PUBLISHED}/ && exit 0; sleep 0.2; done; exit 1"
        )
        yield converged
    finally:
        converged.root("docker rm --force published", check=False)


def scan(world: World, *options: str) -> list[int]:
    """Open ports as the second host sees them."""
    assert world.acme is not None
    argv = ["nmap", "-n", "-Pn", "--open", "--max-retries", "2", "-oG", "-", *options]
    return open_ports(world.root(argv, host=world.acme, timeout=400))


def test_the_container_listens_to_everybody_as_far_as_docker_knows(published: World) -> None:
    listeners = published.root(["ss", "-Hltn"])
    assert f"0.0.0.0:{PUBLISHED}" in listeners
    assert f"[::]:{PUBLISHED}" in listeners


def test_only_22_80_and_443_are_open_of_all_tcp_ports_over_ipv4(published: World) -> None:
    assert scan(published, "-p-", "--min-rate", "8000", published.ip) == [22, 80, 443]


def test_only_22_80_and_443_are_open_of_all_tcp_ports_over_ipv6(published: World) -> None:
    if not published.host.ip6:
        pytest.skip("the lab's network has no IPv6 on this machine")
    assert scan(published, "-6", "-p-", "--min-rate", "8000", published.host.ip6) == [22, 80, 443]


def test_no_usual_udp_port_but_http3_is_open(published: World) -> None:
    assert [port for port in scan(published, "-sU", "-p", USUAL_UDP, published.ip) if port != 443] == []


def test_the_port_would_be_open_without_the_firewall(published: World) -> None:
    """So that the scans above cannot pass for another reason."""
    try:
        published.root(["nft", "delete", "table", "inet", "slipway"])
        assert scan(published, "-p", str(PUBLISHED), published.ip) == [PUBLISHED]
    finally:
        published.root(["systemctl", "reload", "slipway-firewall.service"])
    assert scan(published, "-p", str(PUBLISHED), published.ip) == []


def test_containers_reach_the_outside_and_the_pooler_and_nothing_else_of_the_host(published: World) -> None:
    assert published.acme is not None
    gateway = json.loads(published.root("docker network inspect slipway"))[0]["IPAM"]["Config"][0]["Gateway"]
    published.root("docker network connect slipway published", check=False)

    def reaches(address: str, port: int) -> bool:
        code = f"import socket; socket.create_connection(('{address}', {port}), 3)"
        return "closed" not in published.root(f'docker exec published python3 -c "{code}" 2>/dev/null || echo closed')

    assert reaches(published.acme.ip, 22)
    assert reaches(gateway, 6432)
    assert reaches(published.ip, 443)
    assert not reaches(gateway, 22)
    assert not reaches(gateway, 5432)


def test_rules_outlive_a_restart_of_docker_and_are_loaded_at_boot(published: World) -> None:
    published.root(["systemctl", "restart", "docker.service"])
    assert published.root(["nft", "list", "table", "inet", "slipway"]).count("policy drop") == 2
    assert published.root("systemctl is-enabled slipway-firewall.service").strip() == "enabled"
    assert published.root("systemctl is-enabled nftables.service", check=False).strip() == "disabled"
    before = published.root(["systemctl", "show", "--property=Before", "--value", "slipway-firewall.service"])
    assert "network-pre.target" in before
