# SPDX-License-Identifier: Apache-2.0
"""A host's own certificate: made once, made anew where it no longer stands for the wish, trusted alone."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from slipway.host import certificate
from slipway.host.certificate import Certificate, alternative, converge, lacking

NAMES = ("db1", "10.214.7.9", "fd00::7")


@pytest.fixture
def wish(tmp_path: Path) -> Certificate:
    """A certificate in a folder of its own, of whoever runs the tests."""
    owner, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
    return Certificate(tmp_path / "server.key", tmp_path / "server.crt", "db1", NAMES, owner, group)


def verified(authority: Path, path: Path) -> bool:
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(authority), str(path)]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def test_it_is_made_once_and_its_own_key_is_all_that_is_trusted(wish: Certificate, tmp_path: Path) -> None:
    reason, text = converge(wish)
    assert reason == "there is no server.key"
    assert text == wish.path.read_text()
    assert wish.key.stat().st_mode & 0o777 == 0o600
    assert converge(wish) == ("", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]
    assert verified(wish.path, wish.path)

    # Its key signs a certificate for another name: nobody who trusts the first one takes it.
    forged, request = tmp_path / "forged.crt", tmp_path / "forged.csr"
    other = tmp_path / "other.key"
    for argv in (
        ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=postgres",
         "-keyout", other, "-out", request],
        ["x509", "-req", "-in", request, "-CA", wish.path, "-CAkey", wish.key, "-days", "9", "-out", forged],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True)
    assert not verified(wish.path, forged)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"common_name": "db2"}, "stands for DNS:db1, IP:10.214.7.9, IP:fd00::7, db1"),
        ({"names": (*NAMES, "10.0.0.1")}, "stands for"),
        ({"names": NAMES[:2]}, ""),
    ],
)
def test_it_is_made_anew_where_it_does_not_stand_for_a_name(
    wish: Certificate, change: dict[str, object], why: str
) -> None:
    _, first = converge(wish)
    other = replace(wish, **change)  # type: ignore[arg-type]
    assert why in lacking(other)
    assert bool(why) == bool(lacking(other))
    assert converge(other, dry_run=True)[1] == ("" if why else first)
    assert wish.path.read_text() == first
    assert (converge(other)[1] != first) == bool(why)
    assert lacking(other) == ""


def test_a_pair_that_is_none_or_soon_ends_is_made_anew(wish: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    converge(wish)
    key = wish.key.read_text()
    wish.path.unlink()
    converge(wish)
    wish.key.write_text(key)
    assert lacking(wish) == "server.key belongs to another certificate"
    wish.path.write_text("nothing of the kind\n")
    assert lacking(wish) == "server.crt cannot be read"
    monkeypatch.setattr(certificate, "DAYS", 20)
    converge(wish)
    assert lacking(wish) == "server.crt ends within 30 days"


def test_alternative_names_tell_addresses_from_names() -> None:
    assert [alternative(name) for name in ("db1", "10.0.0.1", "FD00:0::1")] == ["DNS:db1", "IP:10.0.0.1", "IP:fd00::1"]
