# SPDX-License-Identifier: Apache-2.0
"""managed_files: all or nothing, true in check mode, and no secret in a diff."""

from __future__ import annotations

import getpass
import grp
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from slipway.errors import InputError
from slipway.host.files import Change, FileSpec, Found, RejectedError, Transaction, inspect, owner_ids, plan, run_all

ME = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


def spec(path: Path, **raw: Any) -> FileSpec:
    return FileSpec.parse({"path": str(path), **ME, **raw})


def changes_for(*specs: FileSpec) -> list[Change]:
    return [change for one in specs if (change := plan(one, inspect(one.path), owner_ids(one)))]


def apply(*specs: FileSpec) -> list[Change]:
    changes = changes_for(*specs)
    transaction = Transaction(changes)
    transaction.stage()
    transaction.land()
    transaction.commit()
    return changes


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_folders_and_links_land_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    wished = [
        spec(tmp_path / "etc" / "app.conf", content="a=1\n", mode="0600"),
        spec(tmp_path / "etc" / "conf.d", state="directory", mode="0750"),
        spec(tmp_path / "etc" / "link", state="link", target="app.conf"),
    ]
    assert len(apply(*wished)) == 3
    assert (tmp_path / "etc" / "app.conf").read_text() == "a=1\n"
    assert mode_of(tmp_path / "etc" / "app.conf") == 0o600
    assert mode_of(tmp_path / "etc" / "conf.d") == 0o750
    assert (tmp_path / "etc" / "link").read_text() == "a=1\n"
    assert changes_for(*wished) == []


def test_a_changed_mode_alone_is_noticed_and_keeps_the_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("kept\n")
    path.chmod(0o644)
    apply(spec(path, mode="0600"))
    assert (path.read_text(), mode_of(path)) == ("kept\n", 0o600)


def test_absent_removes_a_whole_folder_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    apply(spec(tmp_path / "old", state="absent"))
    assert list(tmp_path.iterdir()) == []


def test_force_false_leaves_an_existing_file_alone_and_makes_a_missing_one(tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.write_text("mine\n")
    apply(spec(there, content="theirs\n", force=False), spec(missing, content="made\n", force=False))
    assert (there.read_text(), missing.read_text()) == ("mine\n", "made\n")


def test_a_refusing_validator_keeps_every_file_as_it_was_and_names_the_real_path(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("before\n")
    transaction = Transaction(
        changes_for(
            spec(good, content="after\n"),
            spec(
                bad, content="x\n", validate=["python3", "-c", "import sys; sys.exit('refused ' + sys.argv[1])", "%s"]
            ),
        )
    )
    with pytest.raises(RejectedError) as caught:
        transaction.stage()
    transaction.roll_back()
    assert f"refused {bad}" in str(caught.value)
    assert good.read_text() == "before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good"]


def test_a_failing_apply_command_puts_back_files_folders_links_and_removals(tmp_path: Path) -> None:
    changed, removed, link = tmp_path / "changed", tmp_path / "removed", tmp_path / "link"
    changed.write_text("before\n")
    changed.chmod(0o640)
    removed.mkdir()
    (removed / "inside").write_text("precious\n")
    link.symlink_to("changed")
    transaction = Transaction(
        changes_for(
            spec(changed, content="after\n", mode="0600"),
            spec(removed, state="absent"),
            spec(link, state="link", target="elsewhere"),
            spec(tmp_path / "new" / "deep" / "file", content="n\n"),
            spec(tmp_path / "newdir", state="directory"),
        )
    )
    transaction.stage()
    transaction.land()
    assert changed.read_text() == "after\n"
    with pytest.raises(RejectedError, match="Verification failed"):
        run_all([["false"]], "Verification")
    transaction.roll_back()
    assert (changed.read_text(), mode_of(changed)) == ("before\n", 0o640)
    assert (removed / "inside").read_text() == "precious\n"
    assert os.readlink(link) == "changed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed", "link", "removed"]


def test_the_diff_of_a_secret_shows_that_it_changed_and_never_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("PASSWORD=old-hunter2\n")
    (change,) = changes_for(spec(path, content="PASSWORD=new-hunter3\n", secret=True))
    assert "hunter" not in str(change.diff)
    assert change.before != change.after


def test_an_unknown_owner_is_a_planned_change_but_cannot_be_landed(tmp_path: Path) -> None:
    wished = FileSpec.parse({"path": str(tmp_path / "f"), "content": "x", "owner": "nobody-of-that-name"})
    (change,) = changes_for(wished)
    assert "nobody-of-that-name" in change.after
    transaction = Transaction([change])
    with pytest.raises(InputError, match="nobody-of-that-name"):
        transaction.stage()
    transaction.roll_back()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_removed_to_make_room_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        changes_for(spec(tmp_path / "d", content="x"))


def test_a_link_in_the_way_of_a_file_is_replaced_and_its_target_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("other's\n")
    (tmp_path / "f").symlink_to(target)
    apply(spec(tmp_path / "f", content="ours\n"))
    assert not (tmp_path / "f").is_symlink()
    assert target.read_text() == "other's\n"


@pytest.mark.parametrize(
    "raw", [{"path": "relative", "content": "x"}, {"path": "/", "state": "absent"}, {"path": "/x", "state": "link"}]
)
def test_paths_that_cannot_be_managed_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        FileSpec.parse(raw)


def test_what_a_killed_run_left_staged_is_overwritten_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".f.slipway-new").write_text("half")
    apply(spec(tmp_path / "f", content="whole\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_binary_content_found_does_not_break_the_diff() -> None:
    change = plan(FileSpec("/x", content=b"text", mode=0o644), Found("file", b"\xff\xfe", 0o644, 0, 0), (0, 0))
    assert change is not None
    assert "binary" in change.before
