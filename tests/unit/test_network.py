# SPDX-License-Identifier: Apache-2.0
"""The private network: addresses, pairs, peers, and what is refused."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from slipway.errors import InputError, SlipwayError
from slipway.host.facts import kernel_has_wireguard, parse_default_interface, parse_interfaces
from slipway.inventory.network_rules import DOCKER, check_network
from slipway.network import keys
from slipway.network.examine import examine
from slipway.network.plan import Pair, Settings, address_of, admitted, clashes, known_keys, members, pairs, peers

ROOT = Path(__file__).resolve().parents[2]
NAMES = st.text("abcdefghij0123456789", min_size=1, max_size=6)
HOSTS = st.sets(NAMES, max_size=5)
GROUPS = st.fixed_dictionaries(dict.fromkeys(("app", "worker", "db", "redis", "edge", "monitor", "drill"), HOSTS))
WG = Settings()


def fleet(*names: str, **shared: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {"ansible_host": f"203.0.113.{n}", "slipway_private_network": shared} for n, name in enumerate(names, 1)
    }


@given(NAMES, st.integers(8, 29))
def test_an_address_is_in_the_subnet_and_never_one_that_the_network_needs(name: str, prefix: int) -> None:
    subnet = ipaddress.IPv4Network((int(ipaddress.IPv4Address("10.0.0.0")), prefix))
    address = ipaddress.IPv4Address(address_of(name, subnet))
    assert subnet.network_address < address < subnet.broadcast_address


def test_addresses_are_what_they_were() -> None:
    """A host that is converged has this address: another way to work it out would move every network there is."""
    assert [address_of(name, WG.subnet) for name in ("web1", "db1")] == ["10.214.178.55", "10.214.195.244"]


@given(st.sets(NAMES, min_size=2, max_size=6), st.data())
def test_an_address_stays_when_other_hosts_come_and_go(names: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(names)))
    before = {one.name: one for one in members(fleet(*names), WG)}
    after = members(fleet(*(names - {gone})), WG)
    assert {one.name: one.address for one in after} == {n: m.address for n, m in before.items() if n != gone}


@given(GROUPS)
def test_only_clients_of_a_service_reach_it_and_only_on_its_ports(groups: dict[str, set[str]]) -> None:
    ports = {"db": {5432}, "redis": {6500, 6501}}
    for one in pairs(groups, [6500, 6501]):
        assert one.source != one.target
        assert one.source in groups["app"] | groups["worker"]
        assert any(
            one.target in groups[name] and one.source not in groups[name] and one.port in ports[name] for name in ports
        )


@given(GROUPS)
def test_every_client_that_has_no_database_of_its_own_reaches_every_one(groups: dict[str, set[str]]) -> None:
    found = {(one.source, one.target) for one in pairs(groups)}
    assert found == {(a, d) for a in (groups["app"] | groups["worker"]) - groups["db"] for d in groups["db"]}


@given(GROUPS, st.data())
def test_a_host_that_goes_takes_its_own_pairs_along_and_no_others(
    groups: dict[str, set[str]], data: st.DataObject
) -> None:
    gone = data.draw(NAMES)
    if gone in groups["db"] and groups["db"] == {gone}:
        return  # without a database nobody needs one
    left = pairs({name: hosts - {gone} for name, hosts in groups.items()})
    assert left == [one for one in pairs(groups) if gone not in (one.source, one.target)]


def test_one_host_that_is_everything_needs_nobody() -> None:
    assert pairs({name: ["web1"] for name in ("edge", "app", "db", "redis")}, [6500]) == []


def test_the_firewall_gets_addresses_and_the_reason() -> None:
    found = members(fleet("app1", "db1", "odd1"), WG)
    wanted = pairs({"app": ["app1"], "db": ["db1"], "drill": ["odd1"]})
    assert wanted == [Pair("app1", "db1", 5432, "the apps' databases")]
    assert admitted(found, wanted, "db1") == [
        {"source": address_of("app1", WG.subnet), "port": 5432, "why": "app1: the apps' databases"}
    ]
    assert admitted(found, wanted, "app1") == admitted(found, wanted, "odd1") == []


def test_peers_are_the_others_at_their_public_addresses() -> None:
    hosts = fleet("app1", "db1")
    hosts["db1"]["ansible_host"] = "2001:db8::7"
    assert peers(members(hosts, WG), WG, "app1") == [
        {"name": "db1", "address": address_of("db1", WG.subnet), "endpoint": "[2001:db8::7]:51820", "keepalive": 0}
    ]


def test_two_names_with_one_address_are_found() -> None:
    hosts = fleet("a", "b")
    for own in hosts.values():
        own["slipway_private_address"] = "10.214.0.9"
    assert clashes(members(hosts, WG)) == [("10.214.0.9", "a", "b")]


def test_keys_of_peers_are_read_back_from_what_the_role_wrote() -> None:
    text = (
        "ListenPort = 1\n\n[Peer]\n# host: db1\nPublicKey = abc=\nAllowedIPs = 10.0.0.1/32\n\n[Peer]\nPublicKey = x=\n"
    )
    assert known_keys(text) == {"db1": "abc="}


def test_a_new_key_is_roots_alone_and_its_secret_is_in_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    calls: list[tuple[list[str], str | None]] = []

    def run(argv: list[str], *, stdin: str | None = None, check: bool = True) -> Any:
        calls.append((argv, stdin))
        text = "c2VjcmV0\n" if argv[1] == "genkey" else "cHVibGlj\n"
        return type("Done", (), {"stdout": text, "ok": True})()

    monkeypatch.setattr(keys, "run", run)
    path = tmp_path / "private_network" / keys.KEY
    keys.make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert keys.public_half(path) == "cHVibGlj"
    assert calls == [(["wg", "genkey"], None), (["wg", "pubkey"], "c2VjcmV0\n")]
    path.write_text("nothing\n")
    with pytest.raises(SlipwayError, match="holds no key of WireGuard"):
        keys.public_half(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subnet": "10.213.0.0/16"}, "overlaps 10.213.87.0/24: the applications' network"),
        ({"subnet": "8.8.0.0/16"}, "is a public network"),
        ({"subnet": "10.214.0.1/16"}, "is no IPv4 network"),
        ({"subnet": "10.214.0.0/30"}, "2 hosts for the subnet 10.214.0.0/30, which has room for 1"),
        ({"kind": "provider"}, "the host 'app1' has no address in the provider's network"),
    ],
)
def test_a_wrong_network_is_refused(change: dict[str, Any], expected: str) -> None:
    found = " ".join(map(str, check_network(fleet("app1", "db1", **change))))
    assert expected in found


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"ansible_host": "db.example.com"}, "is reached by a name, and a tunnel needs an address"),
        ({"slipway_private_address": "10.9.0.1"}, "10.9.0.1 of the host 'db1' is not in 10.214.0.0/16"),
        ({"slipway_private_address": address_of("app1", WG.subnet)}, "the hosts 'app1' and 'db1' have the same"),
        ({"slipway_private_network": {"mtu": 1300}}, "the host 'db1' has another value than the others"),
    ],
)
def test_a_wrong_host_is_refused(own: dict[str, Any], expected: str) -> None:
    hosts = fleet("app1", "db1")
    assert list(check_network(hosts)) == []
    hosts["db1"].update(own)
    assert expected in " ".join(map(str, check_network(hosts)))


def test_without_the_setting_and_with_one_host_nothing_is_asked() -> None:
    assert list(check_network({"web1": {"ansible_host": "a.example.com"}, "db1": {}})) == []
    assert list(check_network({"web1": {"ansible_host": "a.example.com", "slipway_private_network": {}}})) == []


def test_dockers_networks_are_those_of_its_role() -> None:
    own = yaml.safe_load((ROOT / "roles/docker/defaults/main.yml").read_text())
    bridge = str(ipaddress.ip_interface(own["docker_bridge_address"]).network)
    pools = {pool["base"] for pool in own["docker_address_pools"]}
    assert set(DOCKER) == {bridge, own["docker_app_subnet"], *pools}


def test_a_subnet_that_a_host_uses_already_is_refused_with_its_interface() -> None:
    facts = {"interfaces": {"eth0": ["203.0.113.7/24"], "eth1": ["10.214.3.1/20", "fd00::1/64"]}}
    assert "overlaps 10.214.0.0/20, which the host has on eth1" in str(examine(facts, WG, "10.214.9.9")[0])
    facts["interfaces"]["slipway-wg"] = facts["interfaces"].pop("eth1")
    assert examine(facts, WG, "10.214.9.9") == []


@pytest.mark.parametrize(
    ("raw", "address", "expected"),
    [
        ({}, "10.0.0.2", ""),
        ({"interface": "eth1"}, "10.0.0.2", ""),
        ({"interface": "enp7s0"}, "10.0.0.2", "The host has no interface enp7s0"),
        ({}, "10.0.0.3", "The address 10.0.0.3 is on no interface"),
        ({"interface": "eth0"}, "10.0.0.2", "The address 10.0.0.2 is on eth1"),
        ({}, "203.0.113.7", "eth0 is the way to the internet too"),
    ],
)
def test_the_providers_interface_is_really_there(raw: dict[str, Any], address: str, expected: str) -> None:
    facts = {"interfaces": {"eth0": ["203.0.113.7/24"], "eth1": ["10.0.0.2/16"]}, "default_interface": "eth0"}
    found = examine(facts, Settings.parse({"kind": "provider", "subnet": "10.0.0.0/16", **raw}), address)
    assert [expected in str(one) for one in found] == ([True] if expected else [])


def test_a_subnet_without_room_is_one_message() -> None:
    with pytest.raises(InputError, match="has no room"):
        address_of("web1", ipaddress.IPv4Network("10.0.0.0/31"))


def test_interfaces_and_the_way_out_are_read() -> None:
    text = '[{"ifname":"lo","addr_info":[]},{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24,"scope":"global"},'
    text += '{"local":"fe80::1","prefixlen":64,"scope":"link"}]},{}]'
    assert parse_interfaces(text) == {"eth0": ["192.0.2.1/24"]}
    assert parse_interfaces("") == {}
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    far = "eth1\t00000000\t0102A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n"
    near = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    assert parse_default_interface(head + far + near) == "eth0"
    assert parse_default_interface(head) == ""


@pytest.mark.parametrize("place", ["modules.dep", "modules.builtin", "loaded", ""])
def test_a_kernel_with_wireguard_is_known_by_its_lists(tmp_path: Path, place: str) -> None:
    modules, loaded = tmp_path / "modules", tmp_path / "loaded"
    (modules / "6.1").mkdir(parents=True)
    if place == "loaded":
        (loaded / "wireguard").mkdir(parents=True)
    elif place:
        (modules / "6.1" / place).write_text("kernel/drivers/net/wireguard/wireguard.ko.xz: kernel/x.ko\n")
    assert kernel_has_wireguard("6.1", modules, loaded) == bool(place)


def test_what_comes_by_the_private_network_meets_its_own_rules_before_the_public_ones() -> None:
    """Else SSH's rate and the public ports would be judged first, and 80 and 443 be open there."""
    text = (ROOT / "roles/firewall/templates/firewall.nft.j2").read_text()
    chain = text[text.index("chain input {") : text.index("chain forward {")]
    private, tunnel, public = (
        chain.index(one) for one in ("goto private", "udp dport {{ firewall_tunnel", "{{ public }}tcp")
    )
    assert chain.index("established : accept") < private < chain.index("goto ssh") < tunnel < public
