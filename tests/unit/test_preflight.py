# SPDX-License-Identifier: Apache-2.0
"""What a host must be before anything is changed on it."""

from __future__ import annotations

from typing import Any

import pytest
from slipway.inventory.preflight import Wish, examine, message

NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "os": {"id": "debian", "version_id": "13", "codename": "trixie", "pretty": "Debian GNU/Linux 13 (trixie)"},
    "arch": "x86_64", "ram_mb": 1981, "ram_plan_mb": 2048, "cores": 2, "disk_total_mb": 40000, "disk_free_mb": 30000,
    "virt": "vm", "container": False, "lab": False, "ports": {"22": "sshd"}, "postgres_major": None, "uid": 0, "now": int(NOW),
}  # fmt: skip
APPS = [{"name": "notes", "domains": ["notes.example.com"]}]


def found(wish: Wish | None = None, **changes: Any) -> list[tuple[str, str]]:
    """(level, message) of every finding on a good host with parts changed."""
    return [(one.level, str(one)) for one in examine({**GOOD, **changes}, wish or Wish(APPS), controller_now=NOW)]


def test_good_host_passes_silently() -> None:
    assert found() == []
    assert message([]) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"os": {"id": "debian", "version_id": "12", "pretty": "Debian GNU/Linux 12 (bookworm)"}},
            "re-install the server with Debian 13",
        ),
        ({"os": {"id": "fedora", "version_id": "43", "pretty": "Fedora Linux 43"}}, "The host runs Fedora Linux 43"),
        ({"os": {}}, "an unknown system"),
        ({"arch": "riscv64"}, "riscv64"),
        ({"ram_mb": 460}, "take a plan of"),
        ({"disk_total_mb": 5000}, "10 GB or more"),
        ({"disk_free_mb": 900}, "Only 900 MB of the disk are free"),
        ({"uid": 1000}, "sudo without a password"),
        ({"now": int(NOW) - 600}, "600 s behind"),
        ({"now": int(NOW) + 600}, "600 s ahead of"),
        ({"ports": {"80": "nginx", "443": "nginx"}}, "systemctl disable --now nginx"),
        ({"ports": {"443": "docker-proxy"}}, "docker ps --filter publish=443"),
        ({"ports": {"80": "mystery"}}, "sport = :80"),
    ],
)
def test_host_that_cannot_carry_it_is_refused_with_the_remedy(changes: dict[str, Any], words: str) -> None:
    (only,) = [text for level, text in found(**changes) if level == "error"]
    assert words in only


def test_ports_of_one_program_make_one_message() -> None:
    (only,) = found(ports={"80": "nginx", "443": "nginx"})
    assert "Ports 80 and 443 of the host are taken by nginx" in only[1]


def test_caddys_own_ports_are_fine_and_a_database_host_needs_none() -> None:
    assert found(ports={"80": "caddy", "443": "caddy"}) == []
    assert found(Wish(edge=False, dedicated=True), ports={"80": "nginx"}) == []


def test_a_converged_host_may_have_less_room_left() -> None:
    assert found(disk_free_mb=900, postgres_major=17) == []
    assert found(disk_free_mb=300, postgres_major=17)[0][0] == "error"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"os": {"id": "ubuntu", "version_id": "24.04", "pretty": "Ubuntu 24.04 LTS"}}, "not tested"),
        ({"arch": "aarch64"}, "not tested"),
        ({"container": True}, "OpenVZ"),
    ],
)
def test_what_is_only_untested_is_a_warning(changes: dict[str, Any], words: str) -> None:
    (only,) = found(**changes)
    assert only[0] == "warning"
    assert words in only[1]


def test_lab_containers_are_no_reason_to_warn() -> None:
    assert found(container=True, lab=True) == []


def test_domain_that_leads_elsewhere_is_a_warning() -> None:
    here = {"addresses": ["203.0.113.7"]}
    assert found(Wish(APPS, resolved={"notes.example.com": ["203.0.113.7", "2001:db8::7"]}, **here)) == []
    (only,) = found(Wish(APPS, resolved={"notes.example.com": ["198.51.100.1"]}, **here))
    assert only[0] == "warning"
    assert "points to 198.51.100.1" in only[1]
    (unknown,) = found(Wish(APPS, resolved={"notes.example.com": []}, **here))
    assert "not known to DNS yet" in unknown[1]


def test_own_figures_that_break_a_bound_are_warned_of() -> None:
    levels = {level for level, _ in found(Wish(APPS, overrides={"shared_buffers": "900MB"}, allow_overcommit=True))}
    assert levels == {"warning"}


def test_misspelled_setting_is_an_error_with_a_suggestion() -> None:
    (only,) = found(Wish(APPS, overrides={"shared_bufers": "512MB"}))
    assert only[0] == "error"
    assert "shared_buffers" in only[1]


def test_all_errors_come_in_one_message_and_warnings_do_not_count() -> None:
    findings = examine({**GOOD, "uid": 1, "arch": "riscv64", "container": True}, Wish(APPS), controller_now=NOW)
    text = message(findings)
    assert text.startswith("This host is not ready (2 things), and nothing has been changed:")
    assert text.count("\n  - ") == 2
    assert [finding.level for finding in findings] == ["error", "error", "warning"]
