# SPDX-License-Identifier: Apache-2.0
"""Which hosts may do what: one for all, or the database on its own."""

from __future__ import annotations

import itertools

from slipway.inventory.shape_rules import apart, check_database_host, check_shape


def groups(edge: str, app: str, db: str) -> dict[str, list[str]]:
    return {"edge": edge.split(), "app": app.split(), "db": db.split()}


def test_two_shapes_go_together_and_no_other() -> None:
    names = ("", "a", "b", "a b")
    fine = set()
    for edge, app, db in itertools.product(names, repeat=3):
        if not list(check_shape(groups(edge, app, db))):
            fine.add((edge, app, db))
    same = {(one, one, one) for one in names}
    assert fine == same | {("a", "a", "b"), ("b", "b", "a")}


def test_the_message_names_the_hosts_and_the_way_out() -> None:
    (problem,) = check_shape(groups("a", "b", "b"))
    assert "edge: a, app: b, db: b" in str(problem)
    assert "docs/database_host.md" in str(problem)


def test_a_database_apart_needs_a_network() -> None:
    shape = groups("a", "a", "b")
    assert apart(shape)
    assert not apart(groups("a", "a", "a"))
    (problem,) = check_database_host(shape, None)
    assert "slipway_private_network" in str(problem)
    assert list(check_database_host(shape, {"kind": "wireguard"})) == []
    assert list(check_database_host(groups("a", "a", "a"), None)) == []
