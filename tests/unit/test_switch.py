# SPDX-License-Identifier: Apache-2.0
"""The switch's script: one transaction, whatever held before."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from slipway.deploy.switch import Route, render

ROUTES = [Route("10.213.87.1", 18010, "10.213.87.102", 8000), Route("10.213.87.1", 18000, "10.213.87.100", 8000)]


def test_the_script_is_exactly_this() -> None:
    assert render(ROUTES) == (
        "add table ip slipway_switch\n"
        "add map ip slipway_switch backends { type ipv4_addr . inet_service : ipv4_addr . inet_service; }\n"
        "add set ip slipway_switch stable { type ipv4_addr . inet_service; }\n"
        "add ct timeout ip slipway_switch brief { protocol tcp; l3proto ip; policy = { time_wait : 1, close : 1 }; }\n"
        "add chain ip slipway_switch output { type nat hook output priority -105; policy accept; }\n"
        "flush chain ip slipway_switch output\n"
        'add rule ip slipway_switch output ip daddr . tcp dport @stable ct timeout set "brief"\n'
        "add rule ip slipway_switch output meta l4proto tcp dnat ip to ip daddr . tcp dport map @backends\n"
        "flush map ip slipway_switch backends\n"
        "flush set ip slipway_switch stable\n"
        "add element ip slipway_switch backends { 10.213.87.1 . 18000 : 10.213.87.100 . 8000, "
        "10.213.87.1 . 18010 : 10.213.87.102 . 8000 }\n"
        "add element ip slipway_switch stable { 10.213.87.1 . 18000, 10.213.87.1 . 18010 }\n"
    )


def test_without_apps_the_map_is_emptied() -> None:
    assert "add element" not in render([])
    assert "flush map" in render([])


def test_an_address_that_is_none_never_reaches_the_script() -> None:
    with pytest.raises(ValueError, match="flush ruleset"):
        render([Route("10.213.87.1 }; flush ruleset;", 18000, "10.213.87.100", 8000)])


@pytest.mark.skipif(not shutil.which("nft"), reason="nft is not installed here")
def test_nft_accepts_the_script() -> None:
    done = subprocess.run(
        ["nft", "--check", "--file", "-"], input=render(ROUTES), capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft needs root here")
    assert done.returncode == 0, done.stderr
