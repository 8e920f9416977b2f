# SPDX-License-Identifier: Apache-2.0
"""The role docker on a running host, with containers of a two-megabyte image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.integration.edge import Edge
from tests.integration.world import recap

pytestmark = pytest.mark.lab
pytest_plugins = ["tests.integration.edge_fixture"]

IMAGE = "slipway/tiny:1"
NAMES = ("t-one", "t-two", "t-default")


@pytest.fixture(scope="module")
def image(edge: Edge) -> str:
    """An image with busybox and nothing else, made on the host: the lab has no public registry."""
    edge.world.root(
        f"docker image inspect {IMAGE} >/dev/null 2>&1 && exit 0;"
        "command -v busybox >/dev/null || { apt-get update -qq && apt-get install -yqq busybox-static; } >/dev/null;"
        f"tar -C / -c $(readlink -f /bin/busybox | cut -c2-) --transform 's,.*busybox,bin/busybox,' | docker import - {IMAGE}",
        timeout=180,
    )
    return IMAGE


@pytest.fixture(autouse=True)
def no_leftovers(edge: Edge) -> Iterator[None]:
    """Each test begins and ends without containers of these tests."""
    clean = f"docker rm -f {' '.join(NAMES)} >/dev/null 2>&1"
    edge.world.root(clean, check=False)
    yield
    edge.world.root(clean, check=False)


def serve(edge: Edge, name: str, *options: str) -> None:
    """A container that answers HTTP on 8080."""
    shell = f"mkdir -p /www && echo {name} > /www/index.html && exec /bin/busybox httpd -f -p 8080 -h /www"
    script = shell.replace("mkdir", "/bin/busybox mkdir")
    edge.world.root(["docker", "run", "-d", "--name", name, *options, IMAGE, "/bin/busybox", "sh", "-c", script])


def address(edge: Edge, name: str) -> str:
    """The container's address on its network."""
    shape = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return edge.world.root(["docker", "inspect", "-f", shape, name]).strip()


def fetch(edge: Edge, name: str, url: str) -> str:
    """What a container gets from ``url``; empty when nothing answers."""
    return edge.world.root(
        ["docker", "exec", name, "/bin/busybox", "wget", "-q", "-T", "3", "-O", "-", url], check=False
    ).strip()


def test_a_second_run_changes_nothing(edge: Edge) -> None:
    assert recap(edge.ok())["changed"] == 0


def test_the_engine_runs_with_the_settings_it_was_given(edge: Edge) -> None:
    info = json.loads(edge.world.root(["docker", "info", "-f", "{{json .}}"]))
    assert info["LoggingDriver"] == "journald"
    assert info["LiveRestoreEnabled"] is True
    assert info["Driver"] == "overlay2"
    assert edge.world.root("docker compose version --short").startswith("2.")
    assert edge.world.root("stat -c %a /run/docker.sock").strip() == "660"
    assert edge.world.root("getent group docker").strip().split(":")[3] == ""


def test_a_port_published_without_an_address_is_not_public(edge: Edge, image: str) -> None:
    serve(edge, "t-one", "-p", "18999:8080")
    assert edge.world.root("curl -s --retry 5 --retry-connrefused http://127.0.0.1:18999/").strip() == "t-one"
    listening = edge.world.root("ss -Hltn sport = :18999")
    assert "127.0.0.1:18999" in listening
    assert len(listening.splitlines()) == 1  # on that address and no other


def test_containers_log_to_the_journal_under_their_name(edge: Edge, image: str) -> None:
    edge.world.root(
        ["docker", "run", "--rm", "--name", "t-one", IMAGE, "/bin/busybox", "echo", "said-by-the-container"]
    )
    assert "said-by-the-container" in edge.world.root("journalctl -t t-one -n 20 -o cat --no-pager")


def test_apps_cannot_reach_each_other_but_the_host_reaches_them(edge: Edge, image: str) -> None:
    serve(edge, "t-one", "--network", "slipway")
    serve(edge, "t-two", "--network", "slipway")
    one = address(edge, "t-one")
    assert one.startswith("10.213.87.")
    assert edge.world.root(f"curl -s --retry 5 --retry-connrefused http://{one}:8080/").strip() == "t-one"
    assert fetch(edge, "t-two", f"http://{one}:8080/") == ""
    assert fetch(edge, "t-one", "http://127.0.0.1:8080/") == "t-one"  # so that wget itself is known to work


def test_no_container_reaches_the_proxys_admin_interface_or_metrics(edge: Edge, image: str) -> None:
    serve(edge, "t-one", "--network", "slipway")
    serve(edge, "t-default")
    for name, gateway in (("t-one", "10.213.87.1"), ("t-default", "10.213.86.1")):
        for port in (2019, 2020):
            assert fetch(edge, name, f"http://{gateway}:{port}/metrics") == ""
    # The socket is a file of the host: a container has no way to it.
    assert edge.world.root(["docker", "exec", "t-one", "/bin/busybox", "ls", "/run/caddy"], check=False) == ""


def test_processes_in_containers_gain_no_privileges_and_have_bounded_files(edge: Edge, image: str) -> None:
    said = edge.world.root(
        ["docker", "run", "--rm", IMAGE, "/bin/busybox", "sh", "-c",
         "/bin/busybox grep NoNewPrivs /proc/self/status; ulimit -n"]
    )  # fmt: skip
    # A lab host cannot raise its own limit (no CAP_SYS_RESOURCE), where a VPS can.
    own = int(edge.world.root("prlimit -n -o HARD --noheadings -p $(pidof dockerd)").strip())
    assert said.split() == ["NoNewPrivs:", "1", str(min(65536, own))]


def test_containers_live_through_a_restart_of_the_engine(edge: Edge, image: str) -> None:
    serve(edge, "t-one", "--network", "slipway")
    before = edge.world.root(["docker", "inspect", "-f", "{{.State.Pid}}", "t-one"])
    edge.world.root("systemctl restart docker.service", timeout=90)
    edge.wait_for_docker()
    assert edge.world.root(["docker", "inspect", "-f", "{{.State.Pid}}", "t-one"]) == before
    assert edge.world.root(f"curl -s http://{address(edge, 't-one')}:8080/").strip() == "t-one"


def test_a_network_removed_by_hand_is_back_after_a_run_and_after_a_restart(edge: Edge) -> None:
    edge.world.root("docker network rm slipway")
    done = edge.ok()
    assert recap(done)["changed"] == 1
    assert "10.213.87.0/24" in edge.world.root("docker network inspect slipway")
    edge.world.root("docker network rm slipway")
    edge.world.root("systemctl restart docker.service", timeout=90)
    limit = time.monotonic() + 20
    while "10.213.87.0/24" not in edge.world.root("docker network inspect slipway 2>/dev/null", check=False):
        assert time.monotonic() < limit
        time.sleep(0.5)


def test_a_network_with_other_addresses_is_told_with_its_remedy(edge: Edge) -> None:
    edge.world.root("docker network rm slipway && docker network create --subnet 10.99.7.0/24 slipway")
    try:
        done = edge.converge()
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert "10.99.7.0/24" in said
        assert "docker network rm slipway" in said
        assert "Traceback" not in said
    finally:
        edge.world.root("docker network rm slipway")
        edge.ok()


def test_settings_that_the_engine_refuses_do_not_land(edge: Edge) -> None:
    before = edge.world.root("cat /etc/docker/daemon.json")
    done = edge.converge(docker_daemon_options={"no-such-setting": True})
    assert done.returncode != 0
    assert "no-such-setting" in done.stdout + done.stderr
    assert edge.world.root("cat /etc/docker/daemon.json") == before


def test_the_weekly_cleaning_takes_dangling_images_and_keeps_releases(edge: Edge, image: str) -> None:
    for release, file in (("r1", "hostname"), ("r2", "passwd")):
        edge.world.root(f"tar -C /etc -c {file} | docker import - slipway/notes:{release}")
    edge.world.root("docker tag slipway/tiny:1 slipway/notes:r1")  # the first r1 dangles now
    assert edge.world.root("docker images -qf dangling=true").strip()
    try:
        edge.ok(docker_prune_hours=0)
        edge.world.root("systemctl start slipway-docker-prune.service", timeout=120)
        assert not edge.world.root("docker images -qf dangling=true").strip()
        assert len(edge.world.root("docker images -q slipway/notes").split()) == 2
    finally:
        edge.world.root("docker rmi slipway/notes:r1 slipway/notes:r2", check=False)
        edge.ok()
    assert "slipway-docker-prune.timer" in edge.world.root("systemctl list-timers --no-pager")


def test_a_registry_password_is_readable_by_root_alone_and_never_shown(edge: Edge) -> None:
    planted = "planted-registry-2j8sd"
    registries = [{"host": "registry.example.com", "username": "ci", "password": planted, "ca": "a certificate\n"}]
    try:
        done = edge.ok("-vvv", "--diff", docker_registries=registries)
        assert planted not in done.stdout + done.stderr
        assert edge.world.root("stat -c '%a %U' /root/.docker/config.json").strip() == "600 root"
        assert "registry.example.com" in edge.world.root("cat /root/.docker/config.json")
        assert edge.world.root("cat /etc/docker/certs.d/registry.example.com/ca.crt") == "a certificate\n"
    finally:
        edge.world.root("rm -rf /root/.docker/config.json /etc/docker/certs.d/registry.example.com")
