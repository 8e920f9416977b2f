# SPDX-License-Identifier: Apache-2.0
"""A role's template gives the text that Ansible's own lookup gives, and a missing one is told by its name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the two could differ in: an include, a block's newline, a backslash, a trailing newline, a value that is no text.
TEMPLATE = """{% if wished %}
first \\d {{ deeper.inner }} {{ items | length }}
{% endif %}
{% include 'part.j2' %}
last {{ later }}
"""
BOOK = """
- name: Compare
  hosts: localhost
  gather_facts: false
  vars:
    wished: true
    later: "{{ deeper.inner ~ '\\\\n' }}"
    items: [1, 2]
    deeper: {inner: "{{ 'x' * 3 }}"}
  tasks:
    - name: Same text
      ansible.builtin.assert:
        that:
          - lookup('slipway.vps.template', 'whole.j2') == lookup('ansible.builtin.template', 'whole.j2')
          - lookup('slipway.vps.template', 'whole.j2') is search('first .d xxx 2')
          - lookup('slipway.vps.template', 'one.j2') == lookup('ansible.builtin.template', 'one.j2')
    - name: Missing one
      ansible.builtin.debug:
        msg: "{{ lookup('slipway.vps.template', 'no_such.j2') }}"
"""


def test_same_text_as_ansibles_own_and_a_missing_one_is_named(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "whole.j2").write_text(TEMPLATE)
    (templates / "part.j2").write_text("part {{ items[1] }}\n\n")
    (templates / "one.j2").write_text("{{ items | to_json }}")
    (tmp_path / "book.yml").write_text(BOOK)
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "localhost,", "-c", "local", str(tmp_path / "book.yml")],
        check=False, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    assert "TASK [Missing one]" in done.stdout, done.stdout + done.stderr
    assert done.returncode != 0
    assert "There is no template no_such.j2" in done.stdout + done.stderr
