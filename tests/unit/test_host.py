# SPDX-License-Identifier: Apache-2.0
"""host_info: what is read off a host, from texts as Debian prints them."""

from __future__ import annotations

import pytest
from slipway.host.facts import parse_admins, parse_listeners, parse_open_files, parse_os_release, parse_packages
from slipway.sizing.budget import plan_ram_mb


@pytest.mark.parametrize(
    ("measured", "plan"),
    [
        (1967, 2048),
        (2048, 2048),
        (3915, 4096),
        (7941, 8192),
        (474, 512),
        (64315, 65536),
        (1700, 1700),
        (200000, 200000),
    ],
)
def test_ram_is_rounded_to_the_plan_it_was_sold_as(measured: int, plan: int) -> None:
    assert plan_ram_mb(measured) == plan


def test_os_release_of_debian() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\n'
    expected = {"id": "debian", "version_id": "13", "codename": "trixie", "pretty": "Debian GNU/Linux 13 (trixie)"}
    assert parse_os_release(text) == expected


def test_only_packages_that_are_really_installed_count() -> None:
    status = (
        "Package: caddy\nStatus: install ok installed\nVersion: 2.6.2-12\n\n"
        "Package: redis\nStatus: deinstall ok config-files\nVersion: 5:8.0\n\n"
        "Package: caddy-doc\nStatus: install ok installed\nVersion: 1\n"
    )
    assert parse_packages(status, ["caddy", "redis"]) == {"caddy": "2.6.2-12"}
    assert parse_packages(status) == {"caddy": "2.6.2-12", "caddy-doc": "1"}


def test_listeners_name_the_process_and_other_ports_are_left_out() -> None:
    text = (
        'LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=6),("nginx",pid=8,fd=6))\n'
        'LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=1,fd=3))\n'
        "LISTEN 0 128 *:443 *:*\n"
        'LISTEN 0 128 127.0.0.1:5432 0.0.0.0:* users:(("postgres",pid=9,fd=3))\n'
    )
    assert parse_listeners(text, [22, 80, 443]) == {"80": "nginx", "22": "sshd", "443": "unknown"}


@pytest.mark.parametrize(("hard", "most"), [("20000", 20000), ("unlimited", 2**30)])
def test_the_hard_limit_of_open_files_is_read_and_not_the_soft_one(hard: str, most: int) -> None:
    assert (
        parse_open_files(f"Limit  Soft  Hard  Units\nMax open files            1024                 {hard}   files\n")
        == most
    )


PASSWD = "root:x:0:0:root:/root:/bin/bash\n{name}:x:1000:1000:,,,:/home/{name}:{shell}\n"
GROUP = "root:x:0:\nsudo:x:27:deploy,{members}\nusers:x:100:ops\n"
SHADOW = "root:*:20413:0:99999:7:::\nops:{password}:20413:{least}:{most}:7:::\n"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ["ops"]),
        ({"password": "$y$j9T$abc"}, ["ops"]),
        ({"members": ""}, []),
        ({"members": "opsy"}, []),
        ({"shell": "/bin/sh"}, []),
        ({"most": "60"}, []),
        ({"most": ""}, []),
        ({"least": "7"}, []),
        ({"name": "other"}, []),
    ],
)
def test_an_admin_is_one_whom_nothing_has_to_be_done_for(changes: dict[str, str], found: list[str]) -> None:
    values = {"name": "ops", "shell": "/bin/bash", "members": "ops", "password": "!", "least": "0", "most": "99999"}
    texts = [text.format(**{**values, **changes}) for text in (PASSWD, GROUP, SHADOW)]
    assert parse_admins(*texts) == found


def test_without_the_right_to_look_nobody_is_an_admin() -> None:
    assert parse_admins("", "", "") == []
