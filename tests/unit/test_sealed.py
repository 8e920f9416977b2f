# SPDX-License-Identifier: Apache-2.0
"""Sealed files: sealed anew only when they hold something else, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from slipway.host import sealed
from slipway.host.files import FileSpec, inspect, plan

IDENTITY = "AGE-SECRET-KEY-1PLANTED\n"


@pytest.fixture(autouse=True)
def fake_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for systemd-creds: each sealing differs, as there."""
    count = iter(range(100))
    monkeypatch.setattr(sealed, "seal", lambda name, clear: f"{next(count)}:{name}:".encode() + clear[::-1])

    def unseal(name: str, text: bytes) -> bytes | None:
        _, found, body = text.split(b":", 2)
        return body[::-1] if found == name.encode() else None

    monkeypatch.setattr(sealed, "unseal", unseal)


def wish(path: Path, **changes: str) -> FileSpec:
    return FileSpec.parse({"path": str(path), "content": IDENTITY, "sealed": "identity", **changes})


def test_what_is_sealed_already_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "identity.cred"
    path.write_bytes(sealed.seal("identity", IDENTITY.encode()))
    assert sealed.settle(wish(path), inspect(str(path))).content == path.read_bytes()


@pytest.mark.parametrize("changes", [{"content": "AGE-SECRET-KEY-1OTHER\n"}, {"sealed": "another"}])
def test_another_content_or_name_is_sealed_anew(tmp_path: Path, changes: dict[str, str]) -> None:
    path = tmp_path / "identity.cred"
    path.write_bytes(sealed.seal("identity", IDENTITY.encode()))
    spec = sealed.settle(wish(path, **changes), inspect(str(path)))
    assert spec.content is not None
    assert spec.content != path.read_bytes()
    assert sealed.unseal(spec.sealed, spec.content) == changes.get("content", IDENTITY).encode()


def test_neither_the_secret_nor_its_seal_is_in_a_diff(tmp_path: Path) -> None:
    path = tmp_path / "identity.cred"
    spec = sealed.settle(wish(path), inspect(str(path)))
    change = plan(spec, inspect(str(path)), (0, 0))
    assert change
    assert "PLANTED" not in str(change.diff)
    assert "DETNALP" not in str(change.diff)


def test_a_dry_run_seals_nothing(tmp_path: Path) -> None:
    spec = sealed.settle(wish(tmp_path / "new"), inspect(str(tmp_path / "new")), dry_run=True)
    assert spec.content == b"(sealed)\n"
