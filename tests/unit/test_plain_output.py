# SPDX-License-Identifier: Apache-2.0
"""A failure is told once, with its message and what its program wrote; nothing hidden comes to light."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


WORDS = "Found a long thing that would not fit on one line of eighty columns. Expected: another. To mend it: type this."
TASKS = {
    "message": f'ansible.builtin.fail: {{msg: "{WORDS}"}}',
    "stdout": "ansible.builtin.shell: 'echo its-own-words; exit 3'",
    "stderr": "ansible.builtin.shell: 'echo its-own-words >&2; exit 3'",
    "loop": "{ansible.builtin.command: 'test {{ item }} = b', loop: [a, b]}",
    "hidden": "{ansible.builtin.command: 'sh -c \"printf plan; echo ted; exit 1\"', no_log: true}",
    "whole": "ansible.builtin.command: 'false'",
}


def run(folder: Path, *names: str, options: Sequence[str] = ()) -> dict[str, str]:
    """The output of plays of one task each, a host for each, all in one run."""
    book = folder / "book.yml"
    # The spare one has nothing to do: a play that loses all of its hosts would be the last.
    book.write_text("".join(
        f"- name: Play {name}\n  hosts: {name},spare\n  connection: local\n  gather_facts: false\n  tasks:\n"
        f"    - when: inventory_hostname != 'spare'\n      block:\n        - {TASKS[name]}\n"
        for name in names
    ))  # fmt: skip
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", ",".join([*names, "spare"]), "-e", "ansible_python_interpreter={{ ansible_playbook_python }}",
         str(book), *options],
        check=False, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    _, *parts = re.split(r"Play (\w+)", said.partition("PLAY RECAP")[0])
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    assert sorted(found) == sorted(names), said
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The output of every task but the one for which more was asked."""
    return run(tmp_path_factory.mktemp("plain"), *(name for name in TASKS if name != "whole"))


def test_message_is_told_once_and_unbroken(told: dict[str, str]) -> None:
    assert told["message"].count(WORDS) == 1
    assert "Origin:" not in told["message"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_program_wrote_is_told(told: dict[str, str], stream: str) -> None:
    assert told[stream].count("its-own-words") == 1
    assert "non-zero return code" in told[stream]


def test_failed_item_is_named(told: dict[str, str]) -> None:
    assert "FAILED! (item=a)" in told["loop"]
    assert "FAILED! (item=b)" not in told["loop"]


def test_hidden_output_stays_hidden(told: dict[str, str]) -> None:
    assert "fatal: [hidden]: FAILED!" in told["hidden"]
    assert "planted" not in "".join(told.values())


def test_verbose_output_is_the_whole(tmp_path: Path) -> None:
    assert "rc: 1" in run(tmp_path, "whole", options=["-v"])["whole"]
