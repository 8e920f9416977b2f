# SPDX-License-Identifier: Apache-2.0
"""Bad input ends in one message that says what was found and how to mend it, and changes nothing half-way.

First part: before a host is touched (a bare host, which stays as it was). Second part: on a host that serves, which goes
on serving the release it had.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.world import Done, World, raise_lab, remove_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# Everything that a playbook could have changed by then. Host keys and logs change by themselves.
FINGERPRINT = (
    "{ find /etc /usr/local /opt /root /var/lib/dpkg/status -xdev -type f ! -name '*.slipway-test' -exec sha256sum {} + ;"
    " find / -maxdepth 3 -xdev -path /proc -prune -o -path /sys -prune -o -path /run -prune -o -path /tmp -prune -o -type d -print;"
    " getent passwd; getent group; systemctl list-unit-files --no-pager --no-legend | grep -v transient; } | sort"
)


def state(world: World) -> set[str]:
    """All that a playbook could have changed, a line for each file, folder, user, group and unit."""
    return set(world.root(FINGERPRINT).splitlines())


def said(done: Done) -> str:
    """All that the run printed, with line breaks and indentation made single spaces."""
    return re.sub(r"\s+", " ", done.stdout + "\n" + done.stderr)


def assert_one_message(done: Done, *words: str) -> None:
    """The run failed with one message that has all ``words``, without a traceback and without a second failure."""
    assert done.returncode != 0, done.stdout[-3000:]
    text = said(done)
    assert "Traceback" not in text, text[-3000:]
    assert len(re.findall(r"fatal: \[", done.stdout)) == 1, done.stdout[-4000:]
    for word in words:
        assert word in text, f"{word!r} is not in:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


# -- before a host is touched -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Iterator[World]:
    """A bare Debian host."""
    world = raise_lab("bad-input", image="bare", acme=False)
    yield world
    remove_lab(world)


@pytest.fixture
def untouched(bare: World) -> Iterator[World]:
    """The bare host with its ordinary inventory; fails the test when anything on the host has changed by its end."""
    bare.write_inventory()
    before = state(bare)
    yield bare
    bare.write_inventory()
    assert state(bare) ^ before == set(), "the refused run has changed something on the host"


def connect_with(world: World, **variables: str) -> None:
    """Lay connection variables over those of the inventory."""
    path = world.inventory / "hosts.yml"
    tree = yaml.safe_load(path.read_text())
    tree["all"]["hosts"][world.host.name].update(variables)
    path.write_text(yaml.safe_dump(tree))


def unused_address(world: World) -> str:
    """An address of the lab's network that nobody has."""
    return world.ip.rpartition(".")[0] + ".251"


def test_unreachable_host(untouched: World) -> None:
    connect_with(untouched, ansible_host=unused_address(untouched))
    assert_one_message(untouched.playbook("site"), unused_address(untouched), "To mend it:")


def test_unknown_host_name(untouched: World) -> None:
    connect_with(untouched, ansible_host="no-such-host.invalid")
    assert_one_message(untouched.playbook("site"), "no-such-host.invalid", "To mend it:")


def test_wrong_key(untouched: World, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "wrong")], check=True)
    connect_with(untouched, ansible_ssh_private_key_file=str(tmp_path / "wrong"))
    assert_one_message(untouched.playbook("site"), "wrong", "To mend it:")


def test_changed_host_key(untouched: World, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"{untouched.ip} {' '.join((tmp_path / 'other.pub').read_text().split()[:2])}\n")
    connect_with(untouched, ansible_ssh_common_args=f"-o UserKnownHostsFile={known} -o IdentitiesOnly=yes")
    assert_one_message(untouched.playbook("site"), "host key", "ssh-keygen", "-R", untouched.ip)


@pytest.fixture
def altered(bare: World) -> Iterator[Any]:
    """Changes a file of the bare host for one test, and puts it back before ``untouched`` compares."""
    saved: list[str] = []

    def alter(path: str, expression: str) -> None:
        saved.append(path)
        bare.root(f"cp -a --dereference {path} {path}.slipway-test; sed -i --follow-symlinks '{expression}' {path}")

    yield alter
    for path in saved:
        bare.root(f"cat {path}.slipway-test >$(readlink -f {path}); rm {path}.slipway-test")


def test_unsupported_system(untouched: World, altered: Any) -> None:
    altered(
        "/etc/os-release",
        's/^VERSION_ID=.*/VERSION_ID="11"/; s/^PRETTY_NAME=.*/PRETTY_NAME="Debian GNU\\/Linux 11 (bullseye)"/',
    )
    changed = state(untouched)
    assert_one_message(
        untouched.playbook("site"), "Debian GNU/Linux 11 (bullseye)", "Expected: Debian 13", "re-install"
    )
    assert state(untouched) ^ changed == set()


def test_too_little_ram(untouched: World, altered: Any) -> None:
    altered("/etc/slipway-lab.json", 's/"ram_mb": *[0-9]*/"ram_mb": 512/')
    changed = state(untouched)
    assert_one_message(untouched.playbook("site"), "512 MB of RAM", "take a plan of")
    assert state(untouched) ^ changed == set()


def test_too_little_disk(untouched: World, altered: Any) -> None:
    altered("/etc/slipway-lab.json", 's/"disk_mb": *[0-9]*/"disk_mb": 5120/')
    changed = state(untouched)
    assert_one_message(untouched.playbook("site"), "5120 MB", "10 GB or more")
    assert state(untouched) ^ changed == set()


@pytest.mark.parametrize("port", ["80", "443"])
def test_public_port_taken(untouched: World, port: str) -> None:
    unit = f"squatter-{port}"
    untouched.root(f"systemd-run --quiet --unit={unit} python3 -m http.server {port}")
    untouched.root(f"for i in $(seq 50); do ss -Hltn 'sport = :{port}' | grep -q . && exit 0; sleep 0.1; done; exit 1")
    try:
        assert_one_message(
            untouched.playbook("site"), f"Port {port} of the host is taken by python3", f"sport = :{port}"
        )
    finally:
        untouched.root(f"systemctl stop {unit}")


def test_unknown_and_misspelled_settings_all_in_one_message(untouched: World) -> None:
    apps = copy.deepcopy(untouched.settings["slipway_apps"])
    apps[0]["helth"] = {"path": "/"}
    untouched.write_inventory(slipway_apps=apps, slipway_admin_kyes=["x"], postgres_setings={})
    assert_one_message(
        untouched.playbook("site"),
        "3 things are wrong with the inventory, and nothing has been touched",
        "slipway_admin_kyes: unknown variable. Did you mean 'slipway_admin_keys'?",
        "postgres_setings: unknown variable. Did you mean 'postgres_settings'?",
        "slipway_apps[0].helth: unknown key. Did you mean 'health'?",
    )


def test_misspelled_variable_on_the_command_line(untouched: World) -> None:
    assert_one_message(
        untouched.playbook("site", "-e", "postgres_prot=5433"), "postgres_prot", "Did you mean 'postgres_port'?"
    )


def test_misspelled_group(untouched: World) -> None:
    path = untouched.inventory / "hosts.yml"
    tree = yaml.safe_load(path.read_text())
    tree["all"]["children"]["dbs"] = tree["all"]["children"].pop("db")
    path.write_text(yaml.safe_dump(tree))
    assert_one_message(untouched.playbook("site"), "unknown group 'dbs'. Did you mean 'db'?")


def test_misspelled_postgresql_setting(untouched: World) -> None:
    untouched.write_inventory(postgres_settings={"shared_bufers": "512MB"})
    done = untouched.playbook("site")
    assert_one_message(done, "shared_bufers", "shared_buffers")


# -- on a host that serves ----------------------------------------------------------------------------------------


@pytest.fixture
def serving(converged: World) -> Iterator[World]:
    """The converged host; fails the test when another release serves by its end, or none."""
    before = release(converged)
    yield converged
    converged.write_inventory()
    assert converged.status() == 200
    assert release(converged) == before, "another release serves"


def release(world: World) -> str:
    """The release that serves, by the host's own word."""
    (app,) = json.loads(world.root(["/usr/local/sbin/slipway", "app", "status", "--json"]))["apps"]
    assert app["health"] == "healthy", app
    return str(app["release"])


def with_app(world: World, **changes: Any) -> None:
    """The inventory with keys of the app changed."""
    apps = copy.deepcopy(world.settings["slipway_apps"])
    apps[0].update(changes)
    world.write_inventory(slipway_apps=apps)


def containers(world: World) -> str:
    """Ids of all containers, the stopped ones included."""
    return world.root(["docker", "ps", "--all", "--quiet"])


def test_image_that_does_not_exist(serving: World) -> None:
    with_app(serving, image={"source": "registry", "name": "no-such-registry.invalid/notes", "tag": "9.9.9"})
    before = containers(serving)
    assert_one_message(serving.playbook("deploy"), "no-such-registry.invalid/notes:9.9.9", "To mend it:")
    assert containers(serving) == before


def test_shipped_image_that_is_not_here(serving: World) -> None:
    with_app(serving, image={"source": "ship", "name": "no-such-image", "tag": "9.9.9"})
    assert_one_message(serving.playbook("deploy"), "no-such-image:9.9.9", "To mend it:")


def test_folder_without_a_dockerfile(serving: World, tmp_path: Path) -> None:
    with_app(serving, image={"source": "build", "path": str(tmp_path)})
    assert_one_message(serving.playbook("deploy"), str(tmp_path), "Dockerfile")


def test_health_check_that_never_passes(serving: World) -> None:
    with_app(serving, health={"path": "/no-such-path", "timeout": 25, "successes": 2})
    before = containers(serving)
    done = serving.playbook("deploy")
    assert_one_message(done, "/no-such-path", "404")
    assert "Last lines of its log" in done.stdout
    assert containers(serving) == before, "the colour that failed is gone again"


def test_failing_release_command(serving: World) -> None:
    with_app(serving, release_command=["python", "-c", "print('the migration broke'); raise SystemExit(3)"])
    before = containers(serving)
    assert_one_message(serving.playbook("deploy"), "the migration broke", "3")
    assert containers(serving) == before


def test_snippet_that_does_not_parse(serving: World) -> None:
    configuration = "cat /etc/caddy/Caddyfile /etc/caddy/sites.d/* | sha256sum"
    before = serving.root(configuration)
    started = serving.root("systemctl show -p ActiveEnterTimestampMonotonic caddy.service")
    with_app(serving, caddy_snippet="no_such_directive {\n  at all\n}")
    assert_one_message(serving.playbook("site", "--tags", "caddy"), "no_such_directive", "notes")
    assert serving.root(configuration) == before
    assert serving.root("systemctl show -p ActiveEnterTimestampMonotonic caddy.service") == started
