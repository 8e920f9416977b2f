# SPDX-License-Identifier: Apache-2.0
"""The lab's pure parts: sizes and names, addresses, recipes, inventories, what it tells Docker."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway.errors import InputError, UnknownNameError

from lab import cli, docker, images, inventory, keys, network, recipes, s3, services
from lab.driver import get_driver
from lab.model import REPO, Host, HostSpec, Lab, LabError, parse_size

WEB = Host(lab="x", name="web1", id="1", image="bare", state="running", ip="10.231.0.10", ip6="fd51:1ab::a")
DB = Host(lab="x", name="db1", id="2", image="bare", state="running", ip="10.231.0.11", ip6="fd51:1ab::b")
ACME = Host(lab="x", name="acme", id="3", image="services", state="running", ip="10.231.0.12")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labs of these tests keep their files apart from the checkout's."""
    monkeypatch.setenv("SLIPWAY_LAB_DIR", str(tmp_path))
    return tmp_path


# -- sizes and names


@pytest.mark.parametrize(
    ("text", "mb"), [("2g", 2048), ("512m", 512), ("1.5G", 1536), ("300", 300), ("1 GiB", 1024), ("2048kb", 2)]
)
def test_sizes_are_read_in_mb(text: str, mb: int) -> None:
    assert parse_size(text) == mb


@pytest.mark.parametrize("text", ["", "two", "0", "-1g", "2x", "2gg", "1k"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="such as 512m or 2g"):
        parse_size(text)


@pytest.mark.parametrize("name", ["", "Web", "1a", "a_b", "a.b", "-a", "a" * 31, "../x", "a b"])
def test_names_that_are_no_host_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no name for a"):
        HostSpec(name=name)
    with pytest.raises(InputError, match="is no name for a"):
        Lab(name)


# -- addresses


@given(st.lists(st.sampled_from([str(c[0]) for c in network.candidates()]), max_size=40))
def test_a_free_subnet_overlaps_nothing_taken(taken: list[str]) -> None:
    for four, _six in islice(network.free_subnets(taken), 3):
        assert not any(four.overlaps(ipaddress.IPv4Network(t)) for t in taken)


def test_a_wider_route_takes_every_subnet_below_it() -> None:
    assert list(network.free_subnets(["10.0.0.0/8"])) == []
    assert next(network.free_subnets(["10.231.0.0/23", "default", "172.17.0.0/16"]))[0].compressed == "10.231.2.0/24"


def test_an_ipv6_neighbour_counts_as_taken() -> None:
    assert str(next(network.free_subnets(["fd51:1ab::/64"]))[0]) == "10.231.1.0/24"


def test_addresses_are_handed_out_lowest_first_until_none_is_left() -> None:
    net = ipaddress.IPv4Network("10.231.7.0/24")
    taken: list[str] = []
    for number in range(10, 255):
        taken.append(str(network.next_address(net, taken)))
        assert taken[-1] == f"10.231.7.{number}"
    with pytest.raises(LabError, match="no free address"):
        network.next_address(net, taken)


def test_the_ipv6_address_ends_like_the_ipv4_one() -> None:
    six = network.matching_ip6(ipaddress.IPv4Address("10.231.7.16"), ipaddress.IPv6Network("fd51:1ab:0:7::/64"))
    assert str(six) == "fd51:1ab:0:7::10"


def test_a_cut_from_one_peer_names_its_addresses_in_both_directions() -> None:
    rules = network.cut_rules("t", ["10.0.0.1", "fd00::1"])
    for line in (
        "ip saddr 10.0.0.1 drop",
        "ip daddr 10.0.0.1 drop",
        "ip6 saddr fd00::1 drop",
        "ip6 daddr fd00::1 drop",
    ):
        assert line in rules
    assert '!= "lo" drop' not in rules


def test_a_cut_from_everything_leaves_loopback() -> None:
    rules = network.cut_rules("t", None)
    assert 'iifname != "lo" drop' in rules
    assert 'oifname != "lo" drop' in rules


# -- recipes and images


def test_a_digest_changes_with_the_packages_and_with_the_parent() -> None:
    one = recipes.Recipe(name="a", packages=("x",), parent="bare")
    assert one.digest == recipes.Recipe(name="a", packages=("x",), parent="bare").digest
    assert one.digest != recipes.Recipe(name="a", packages=("x", "y"), parent="bare").digest
    assert one.digest != recipes.Recipe(name="a", packages=("x",), parent="services").digest


@pytest.mark.parametrize("made", recipes.recipes().values(), ids=lambda r: r.name)
def test_every_recipe_lists_its_packages_once_and_sorted(made: recipes.Recipe) -> None:
    assert list(made.packages) == sorted(set(made.packages))


@pytest.mark.parametrize("made", [r for r in recipes.recipes().values() if r.host], ids=lambda r: r.name)
def test_hosts_of_one_image_share_neither_keys_nor_machine_id(made: recipes.Recipe) -> None:
    assert "rm -f /etc/ssh/ssh_host_*" in made.setup
    assert any("machine-id" in line for line in made.setup)


def test_the_image_rung0_holds_every_package_of_the_roles() -> None:
    """Asked of Ansible, since roles compute their lists from their switches."""
    later = [REPO / "roles/private_network", REPO / "roles/redis"]  # a host of rung 0 gets none of their packages
    roles = [path.parents[1] for path in sorted(REPO.glob("roles/*/defaults/main.yml")) if path.parents[1] not in later]
    listed = "+".join(f"({role.name}_packages | default([]))" for role in roles)
    files = [str(f) for role in roles for f in (role / "defaults/main.yml", role / "vars/main.yml") if f.exists()]
    facts = {"ansible_facts": {"slipway_host": {"container": True, "packages": {}}}}
    argv = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local"]
    argv += ["-m", "ansible.builtin.debug", "-a", f"msg='PACKAGES {{{{ ({listed}) | join(' ') }}}} END'"]
    argv += [word for f in files for word in ("-e", f"@{f}")] + ["-e", json.dumps(facts)]
    env = {**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "COLUMNS": "100000"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd=REPO)
    found = re.search(r"PACKAGES (.+?) END", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    held = {*recipes.package_list("bare"), *recipes.package_list("rung0")}
    assert set(found[1].split()) - held == set()


def test_an_unknown_image_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="write bare instead"):
        recipes.recipe("baer")


def test_debian_s_own_sources_become_the_images_sources() -> None:
    text = (
        "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
        "\n\nTypes: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\n"
        "Types: deb\nURIs: https://vendor.example/apt\nSuites: stable-vendor\n"
    )
    assert images.sources(text) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


def test_one_line_sources_are_read_and_a_named_mirror_wins() -> None:
    text = (
        "# deb http://old.example/debian trixie main\n"
        "deb [arch=amd64] http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/security trixie-security main\n"
    )
    assert images.sources(text)[0] == "deb http://mirror.example/debian trixie main"
    assert images.sources(text, "http://mine.example/debian")[0] == "deb http://mine.example/debian trixie main"


@pytest.mark.parametrize("text", ["", "deb cdrom:[x]/ trixie main", "deb http://vendor.example/apt stable-x main"])
def test_without_a_debian_mirror_the_default_is_left_to_mmdebstrap(text: str) -> None:
    assert images.sources(text) == []


def test_proxies_reach_the_hosts_unless_they_are_on_loopback() -> None:
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::https::Proxy "http://127.0.0.1:3128";\n'
        'Acquire::Retries "3";\n'
    )
    assert images.apt_settings(dump) == ['Acquire::http::Proxy "http://proxy.example:3128";']


def test_the_bootstrap_command_is_an_argv_list() -> None:
    made = recipes.Recipe(name="a", packages=("p", "q"), variant="minbase", setup=("true",))
    assert images.mmdebstrap_argv(made, "/t.tar", ["deb m trixie main"], ['A "b";']) == [
        "mmdebstrap", "--quiet", "--variant=minbase", "--include=p,q", '--aptopt=A "b";',
        "--customize-hook=chroot \"$1\" sh -ec 'true'", "trixie", "/t.tar", "deb m trixie main",
    ]  # fmt: skip


def test_what_was_built_on_an_image_is_found_by_its_layers() -> None:
    found = [
        {"Id": "base", "RootFS": {"Layers": ["a"]}},
        {"Id": "app", "RootFS": {"Layers": ["a", "b"]}},
        {"Id": "stranger", "RootFS": {"Layers": ["x", "a", "b"]}},
    ]
    assert images.built_on(["a"], found) == ["app"]


# -- what Docker is told


def test_only_the_control_groups_of_the_containers_that_went_are_removed(tmp_path: Path) -> None:
    gone, used, other = ("a" * 64, "b" * 64, "c" * 64)
    for name in (gone, used, other):
        (tmp_path / "memory" / "docker" / name).mkdir(parents=True)
    (tmp_path / "memory" / "docker" / used / "child").mkdir()
    docker.remove_cgroups([gone, used, "../docker", "ls:", ""], root=tmp_path)
    assert sorted(p.name for p in (tmp_path / "memory" / "docker").iterdir()) == [used, other]


def test_on_cgroup_v1_the_machine_s_tree_is_shared() -> None:
    options, command = docker.machine_options("1", ["SYS_MODULE", "SYS_RESOURCE"])
    assert options[options.index("--cgroupns") + 1] == "host"
    assert "/sys/fs/cgroup:/sys/fs/cgroup:rw" in options
    assert "SYS_RESOURCE" in options
    assert command[-1] == "mount --make-rshared / && exec /lib/systemd/systemd"


def test_on_cgroup_v2_the_host_has_a_tree_of_its_own() -> None:
    options, command = docker.machine_options("2", ["SYS_MODULE"])
    assert options[options.index("--cgroupns") + 1] == "private"
    assert "/sys/fs/cgroup:/sys/fs/cgroup:rw" not in options
    assert "SYS_RESOURCE" not in options
    assert command[-1].endswith("exec /lib/systemd/systemd")


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_host_never_gets_all_rights_nor_the_machine_s_modules(version: str) -> None:
    options, _ = docker.machine_options(version, ["SYS_MODULE"])
    assert "--privileged" not in options
    assert options[options.index("--cap-drop") + 1] == "SYS_MODULE"


@pytest.mark.parametrize(
    ("version", "held", "dropped"),
    [
        ("20.10.24+dfsg1", 0x1FFFFFFFFFF, ["SYS_MODULE"]),
        ("20.10.24+dfsg1", 0x1FFFEFFFFFF, ["SYS_MODULE", "SYS_RESOURCE"]),
        ("26.1.5+dfsg1", 0x1FFFFFFFFFF, ["SYS_MODULE"]),
        ("26.1.5+dfsg1", 0x1FFFEFEFFFF, []),
    ],
)
def test_a_host_goes_without_modules_and_without_what_the_machine_lacks(
    version: str, held: int, dropped: list[str]
) -> None:
    assert docker.dropped_capabilities(version, f"Name:\tx\nCapBnd:\t{held:016x}\nSeccomp:\t0\n") == dropped


def test_a_new_host_is_given_its_key_and_nominal_size(own_folder: Path) -> None:
    lab = Lab("x")
    keys.ensure_lab_key(lab)
    host_keys = keys.new_host_keys(lab, "web1")
    blob = keys.seed(lab, HostSpec(name="web1", ram_mb=512, cores=1, disk_mb=100), host_keys)
    with tarfile.open(fileobj=BytesIO(blob)) as tar:
        modes = {m.name: m.mode for m in tar.getmembers()}
        size = tar.extractfile("etc/slipway-lab.json")
        assert size is not None
        assert json.load(size) == {"ram_mb": 512, "cores": 1, "disk_mb": 100}
    assert modes["root/.ssh"] == 0o700
    assert modes["root/.ssh/authorized_keys"] == 0o600
    assert modes["etc/ssh/ssh_host_ed25519_key"] == 0o600


def test_known_hosts_name_a_host_by_address_and_name(own_folder: Path) -> None:
    lab = Lab("x")
    keys.ensure_lab_key(lab)
    keys.new_host_keys(lab, "web1")
    keys.write_ssh_files(lab, [WEB])
    for name in ("10.231.0.10", "fd51:1ab::a", "web1", "web1.lab.test"):
        found = subprocess.run(["ssh-keygen", "-F", name, "-f", str(lab.known_hosts)], capture_output=True, check=False)
        assert found.returncode == 0, name
    assert lab.key.stat().st_mode & 0o077 == 0


# -- inventory


def test_one_host_is_in_every_group_of_rung_0() -> None:
    tree = inventory.build(Lab("x"), [WEB], {})
    assert {g: tree[g]["hosts"] for g in inventory.RUNG0_GROUPS} == {g: ["web1"] for g in inventory.RUNG0_GROUPS}


def test_the_services_host_is_no_part_of_the_system() -> None:
    tree = inventory.build(Lab("x"), [WEB, ACME], {})
    assert list(tree["_meta"]["hostvars"]) == ["web1"]
    assert tree["all"]["vars"]["lab_acme_directory"] == services.ACME_DIRECTORY


def test_the_s3_server_is_no_part_of_the_system_either() -> None:
    store = Host(lab="x", name="s3", id="4", image="s3", state="running", ip="10.231.0.13")
    assert list(inventory.build(Lab("x"), [WEB, store], {})["_meta"]["hostvars"]) == ["web1"]


def test_groups_can_be_chosen() -> None:
    tree = inventory.build(Lab("x"), [WEB, DB], inventory.parse_groups(["app=web1", "db=db1"]))
    assert tree["app"] == {"hosts": ["web1"]}
    assert tree["db"] == {"hosts": ["db1"]}
    assert "edge" not in tree
    with pytest.raises(InputError, match="is no group"):
        inventory.parse_groups(["db"])


def test_host_keys_are_checked_and_the_user_may_be_left_out() -> None:
    found = inventory.host_vars(Lab("x"), WEB, "")
    assert "ansible_user" not in found
    assert "UserKnownHostsFile" in found["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=no" not in found["ansible_ssh_common_args"]


def test_the_inventory_can_be_written_as_a_file() -> None:
    tree = inventory.as_yaml_tree(inventory.build(Lab("x"), [WEB], {}))
    assert tree["all"]["hosts"]["web1"]["ansible_host"] == "10.231.0.10"
    assert tree["all"]["children"]["db"] == {"hosts": {"web1": None}}


# -- services


def test_certificates_are_collected_each_once() -> None:
    one, two = (f"-----BEGIN CERTIFICATE-----\n{x}\n-----END CERTIFICATE-----\n" for x in ("AA", "BB"))
    assert services.merge_certificates("", one) == one
    assert services.merge_certificates(one, two + one) == one + two
    assert services.merge_certificates(one + two, one) == one + two


def test_a_name_moves_to_its_new_host() -> None:
    known = services.merge_names("", {"b.test": WEB, "a.test": WEB})
    assert known == "a.test 10.231.0.10 fd51:1ab::a\nb.test 10.231.0.10 fd51:1ab::a\n"
    assert "b.test 10.231.0.11" in services.merge_names(known, {"b.test": DB})


# -- the command


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nonsense"], "invalid choice"),
        (["up", "Web"], "is no name for a host"),
        (["up", "web1", "--memory", "much"], "is no size"),
        (["list", "--name", "A"], "is no name for a lab"),
        (["list", "--driver", "qemu"], "QEMU machines are not there yet"),
    ],
)
def test_bad_input_ends_with_one_message(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_without_an_engine_the_message_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(["list"]) == 1
    assert "run bin/setup" in capsys.readouterr().err


def test_only_the_docker_driver_is_there() -> None:
    assert get_driver().name == "docker"
    with pytest.raises(LabError, match="no lab driver 'vmware'"):
        get_driver("vmware")


# -- the S3 server


def test_the_s3_certificate_is_good_for_a_proxy_on_this_machine() -> None:
    host = Host(lab="x", name="s3", id="4", image="s3", state="running", ip="10.231.7.13", ip6="fd51:1ab:0:7::d")
    assert s3.addresses(host) == ["10.231.7.13", "fd51:1ab:0:7::d", "10.231.7.1"]


def test_a_lab_without_an_s3_server_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB_DIR", str(tmp_path))
    with pytest.raises(LabError, match=r"no S3 server(.|\n)*bin/lab up s3:s3 --name x"):
        s3.access(Lab("x"))


def test_what_clients_need_is_kept_for_their_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB_DIR", str(tmp_path))
    (tmp_path / "x" / "s3").mkdir(parents=True)
    held = {"endpoint": s3.ENDPOINT, "address": "https://10.231.7.13", "region": "lab", "bucket": "backups"}
    path = tmp_path / "x" / "s3" / "access.json"
    s3._keep(path, json.dumps({**held, "keys": {"writer": {"key_id": "k", "secret": "hidden"}}}).encode())
    found = s3.access(Lab("x"))
    assert (found.bucket, found.keys["writer"]["key_id"], path.stat().st_mode & 0o777) == ("backups", "k", 0o600)
    assert "hidden" not in repr(found)
