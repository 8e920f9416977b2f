# SPDX-License-Identifier: Apache-2.0
"""An app's folder as an archive: what belongs into it, and that its hash depends on content alone."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from slipway.deploy import bundle
from slipway.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small application."""
    place = tmp_path / "app"
    for name in (
        "Dockerfile",
        "notes/main.py",
        "notes/__pycache__/main.pyc",
        "docs/a.md",
        "docs/keep.md",
        ".git/HEAD",
        "a b.txt",
    ):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    (place / "link").symlink_to("notes/main.py")
    return place


def names(folder: Path, dockerfile: str = "Dockerfile") -> list[str]:
    """What belongs into the archive."""
    return [name for name, _ in bundle.files(folder, dockerfile)]


def test_everything_but_git_belongs_into_it(folder: Path) -> None:
    assert set(names(folder)) == {
        "Dockerfile", "notes/main.py", "notes/__pycache__/main.pyc", "docs/a.md", "docs/keep.md", "a b.txt", "run.sh", "link",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "out", "still"),
    [
        ("**/__pycache__", {"notes/__pycache__/main.pyc"}, {"notes/main.py"}),
        ("*.md", set(), {"docs/a.md"}),  # * stays within a folder
        ("**/*.md", {"docs/a.md", "docs/keep.md"}, {"notes/main.py"}),
        ("docs\n!docs/keep.md", {"docs/a.md"}, {"docs/keep.md"}),
        ("/docs/", {"docs/a.md", "docs/keep.md"}, {"a b.txt"}),
        ("# a comment\n\na b.txt", {"a b.txt"}, {"docs/a.md"}),
        ("Dockerfile", set(), {"Dockerfile"}),  # the build needs it whatever the file says
        ("not[es]*/m?in.py", set(), {"docs/a.md"}),
        ("note[a-z]/m?in.py", {"notes/main.py"}, {"docs/a.md"}),
        ("*\n!notes", {"run.sh", "a b.txt"}, {"notes/main.py"}),
        ("!.git", set(), {".git/HEAD"}),
    ],
)
def test_dockerignore(folder: Path, text: str, out: set[str], still: set[str]) -> None:
    (folder / ".dockerignore").write_text(text)
    found = set(names(folder))
    assert not found & out
    assert still <= found


def test_the_dockerfiles_own_ignore_file_goes_first(folder: Path) -> None:
    (folder / "Dockerfile.dockerignore").write_text("docs")
    (folder / ".dockerignore").write_text("notes")
    assert "notes/main.py" in names(folder)
    assert "docs/a.md" not in names(folder)


def test_hash_depends_on_content_name_and_executable_bit_only(folder: Path) -> None:
    def digest() -> str:
        return bundle.digest(folder, "Dockerfile", {"A": "1"}, "")

    first = digest()
    os.utime(folder / "run.sh", (1, 1))
    (folder / ".git/HEAD").write_text("another commit")
    assert digest() == first
    (folder / "run.sh").chmod(0o644)
    second = digest()
    (folder / "docs/a.md").write_text("new")
    third = digest()
    (folder / "docs/a.md").rename(folder / "docs/b.md")
    assert len({first, second, third, digest(), bundle.digest(folder, "Dockerfile", {"A": "2"}, "")}) == 5


def test_archive_holds_the_files_and_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    bundle.pack(folder, tmp_path / "1.tar.gz")
    os.utime(folder / "run.sh", (1, 1))
    bundle.pack(folder, tmp_path / "2.tar.gz")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "1.tar.gz") as archive:
        assert archive.getmember("run.sh").mode == 0o755
        assert archive.getmember("link").linkname == "notes/main.py"
        assert archive.extractfile("docs/a.md").read() == b"docs/a.md"  # type: ignore[union-attr]


def test_missing_folder_and_missing_dockerfile_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        names(folder / "nowhere")
    with pytest.raises(InputError, match="has no Containerfile"):
        names(folder, "Containerfile")
