# SPDX-License-Identifier: Apache-2.0
"""A failure is told once, with its message and what its program wrote; nothing hidden comes to light."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, task: str, *options: str) -> str:
    """The output of a play with one task on this machine."""
    book = tmp_path / "book.yml"
    book.write_text(f"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n    - {task}\n")
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "localhost,", "-e", "ansible_python_interpreter={{ ansible_playbook_python }}",
         str(book), *options],
        check=False, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_message_is_told_once_and_unbroken(tmp_path: Path) -> None:
    words = (
        "Found a long thing that would not fit on one line of eighty columns. Expected: another. To mend it: type this."
    )
    text = run(tmp_path, f'ansible.builtin.fail: {{msg: "{words}"}}')
    assert text.count(words) == 1
    assert "Origin:" not in text


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_what_a_program_wrote_is_told(tmp_path: Path, stream: str) -> None:
    text = run(tmp_path, f"ansible.builtin.shell: 'echo its-own-words {stream}; exit 3'")
    assert text.count("its-own-words") == 1
    assert "non-zero return code" in text


def test_failed_item_is_named(tmp_path: Path) -> None:
    text = run(tmp_path, "{ansible.builtin.command: 'test {{ item }} = b', loop: [a, b]}")
    assert "FAILED! (item=a)" in text
    assert "FAILED! (item=b)" not in text


def test_hidden_output_stays_hidden(tmp_path: Path) -> None:
    text = run(tmp_path, "{ansible.builtin.command: 'sh -c \"printf plan; echo ted; exit 1\"', no_log: true}")
    assert "fatal: [localhost]: FAILED!" in text
    assert "planted" not in text


def test_verbose_output_is_the_whole(tmp_path: Path) -> None:
    assert "rc: 1" in run(tmp_path, "ansible.builtin.command: 'false'", "-v")
