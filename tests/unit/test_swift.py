# SPDX-License-Identifier: Apache-2.0
"""A module run by the library on the host does what it does the ordinary way, and goes that way where it must."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.slipway.vps.plugins.plugin_utils import swift
from ansible_collections.slipway.vps.plugins.vars import warm

ROOT = Path(__file__).resolve().parents[2]
# As on the host: Ansible's own library is not to be had there.
BOOT = """
import sys
sys.meta_path.insert(0, type("None of Ansible", (), {"find_spec": staticmethod(lambda name, *_: exec("raise ImportError(name)") if name.partition(".")[0] == "ansible" else None)}))
sys.path.insert(0, sys.argv[1])
from slipway.adapters import serve
serve()
"""
SWIFT = sorted(path.stem for path in (ROOT / "plugins/action").glob("*.py") if "import SwiftModule" in path.read_text())


def carried_out(name: str, arguments: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """The result of a module as the host would give it."""
    asked = swift.request(name, arguments, check_mode=check_mode)
    assert asked is not None
    done = subprocess.run(
        [sys.executable, "-I", "-c", BOOT, str(ROOT / "plugins/module_utils")],
        input=asked[0], capture_output=True, text=True, check=False,
    )  # fmt: skip
    return swift.result_of(name, {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}, asked[1])


def wish(path: Path, content: str = "one\n", **more: Any) -> dict[str, Any]:
    """One file of managed_files, of whoever runs the test."""
    group = grp.getgrgid(os.getgid()).gr_name
    return {"files": [{"path": str(path), "content": content, "owner": getpass.getuser(), "group": group, **more}]}


def test_a_file_lands_once_and_check_mode_only_tells(tmp_path: Path) -> None:
    path = tmp_path / "file"
    told = carried_out("managed_files", wish(path), check_mode=True)
    assert told["changed"]
    assert not path.exists()
    done = carried_out("managed_files", wish(path))
    assert done["changed_paths"] == [str(path)]
    assert path.read_text() == "one\n"
    assert done["diff"] == told["diff"]
    assert not carried_out("managed_files", wish(path))["changed"]


def test_an_error_is_the_one_message_that_the_module_gives(tmp_path: Path) -> None:
    refused = carried_out("managed_files", wish(tmp_path / "file", validate=["false", "%s"]))
    assert refused["failed"]
    assert "was refused by false" in refused["msg"]
    assert refused["problem"]["expected"]
    assert not (tmp_path / "file").exists()


def test_the_systems_own_error_is_a_message_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = carried_out("managed_files", wish(tmp_path / "file" / "below"))
    assert failed["failed"]
    assert "file" in failed["msg"]
    assert "Traceback" not in failed["msg"]


def test_a_secret_is_in_no_result(tmp_path: Path) -> None:
    done = carried_out("managed_files", wish(tmp_path / "file", "planted-7f3k\n", secret=True))
    assert done["changed"]
    assert "planted-7f3k" not in json.dumps(done)
    hidden = swift.result_of("x", {"stdout": json.dumps({"msg": "with planted-7f3k in it"})}, {"planted-7f3k"})
    assert "planted-7f3k" not in hidden["msg"]


def test_what_the_spec_hides_is_hidden_in_results() -> None:
    asked = swift.request(
        "pgbouncer_probe", {"listen": ["::1"], "databases": [{"name": "a", "password": "planted-9x"}]}, check_mode=False
    )
    assert asked is not None
    assert asked[1] == {"planted-9x"}


@pytest.mark.parametrize("name", SWIFT)
def test_each_needs_nothing_of_ansible_on_the_host(name: str) -> None:
    found = swift.adapter(name)
    assert found is not None, f"{name} has no SPEC"
    probe = BOOT.replace("import serve\nserve()", "import load\nassert callable(load('probed', sys.stdin.read()))")
    subprocess.run(
        [sys.executable, "-I", "-c", probe, str(ROOT / "plugins/module_utils")], input=found[0], text=True, check=True
    )


def test_wrong_parameters_are_left_to_ansibles_own_words() -> None:
    assert swift.request("managed_files", {"files": [], "flies": 1}, check_mode=False) is None
    assert swift.request("managed_files", {}, check_mode=False) is None
    assert swift.request("guard_confirm", {"name": "x"}, check_mode=False) is None


@pytest.mark.parametrize("stdout", ["", "no JSON", '["a list"]'])
def test_no_result_is_told_in_words(stdout: str) -> None:
    told = swift.result_of(
        "units", {"rc": 1, "stdout": stdout, "stderr": "Traceback ...\nValueError: of a kind"}, set()
    )
    assert told["failed"]
    assert told["msg"].endswith("no result: ValueError: of a kind")


def test_a_result_follows_whatever_a_login_says() -> None:
    assert swift.result_of("units", {"stdout": 'Welcome!\n{"changed": false}\n'}, set()) == {"changed": False}


class Host:
    """An action as far as the way is chosen by it; ``sent`` holds what was sent."""

    def __init__(self, answer: dict[str, Any], transport: str = "ssh", pipelining: bool = True) -> None:
        self.sent: list[tuple[str, str]] = []
        self._answer, self._pipelining = answer, pipelining
        self._connection = SimpleNamespace(transport=transport)
        self._task = SimpleNamespace(check_mode=False)

    def _is_pipelining_enabled(self, _style: str) -> bool:
        return self._pipelining

    def _compute_environment_string(self) -> str:
        return ""

    def _low_level_execute_command(self, words: str, in_data: bytes) -> dict[str, Any]:
        self.sent.append((words, in_data.decode()))
        return self._answer

    def run(self, version: str | None, name: str = "slipway.vps.units") -> dict[str, Any] | None:
        """Whether it goes swiftly: the result, or None."""
        facts = {} if version is None else {"slipway_agent": version}
        action: Any = self
        return swift.SwiftAction._swiftly(action, name, {"units": []}, {"ansible_facts": facts})


GOOD = {"rc": 0, "stdout": '{"changed": false}', "stderr": ""}


def test_it_runs_by_exactly_this_library_and_nothing_is_in_the_arguments() -> None:
    host = Host(GOOD)
    assert host.run(swift.own_version()) == {"changed": False}
    words, sent = host.sent[0]
    assert f"/usr/lib/slipway/{swift.own_version()}" in words
    assert json.loads(sent)["name"] == "units"
    assert "units" not in words.replace("slipway", "")


def test_another_library_or_none_goes_the_ordinary_way_without_asking() -> None:
    for version in ("0123456789ab", ""):
        host = Host(GOOD)
        assert host.run(version) is None
        assert not host.sent


def test_a_host_that_was_not_looked_at_is_asked_and_may_have_none() -> None:
    host = Host({"rc": swift.ABSENT, "stdout": "", "stderr": ""})
    assert host.run(None) is None
    assert len(host.sent) == 1


def test_other_connections_and_other_modules_go_the_ordinary_way() -> None:
    for host, name in (
        (Host(GOOD, transport="local"), "slipway.vps.units"),
        (Host(GOOD, pipelining=False), "slipway.vps.units"),
        (Host(GOOD), "ansible.builtin.command"),
    ):
        assert host.run(swift.own_version(), name) is None
        assert not host.sent


def test_the_words_end_with_that_code_where_the_library_is_missing() -> None:
    done = subprocess.run(["sh", "-c", swift.command("no-such-version")], capture_output=True, check=False)
    assert done.returncode == swift.ABSENT
    assert not done.stdout
    assert not done.stderr


def test_files_of_variables_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = DataLoader()
    monkeypatch.setattr(warm, "_DONE", set())
    assert warm.VarsModule().get_vars(loader, str(ROOT), []) == {}
    monkeypatch.setattr(loader, "get_text_file_contents", lambda *_: pytest.fail("read again"))
    for path in (
        ROOT / "playbooks/vars/roles.yml",
        ROOT / "collections/ansible_collections/slipway/vps/playbooks/vars/prices.yml",
    ):
        # As ansible-core reads what vars_files names.
        assert loader.load_from_file(str(path), unsafe=True, cache="vaulted", trusted_as_template=True)
