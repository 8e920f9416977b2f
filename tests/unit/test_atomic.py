# SPDX-License-Identifier: Apache-2.0
"""Files replaced in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from slipway import atomic


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_with_exactly_its_mode(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    before = os.umask(0o077)
    try:
        atomic.replace(path, b"new", 0o644, durable=durable)
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o644)
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.replace(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        atomic.replace(tmp_path / "nowhere/x", b"new")
