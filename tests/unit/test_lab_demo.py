# SPDX-License-Identifier: Apache-2.0
"""The demo's pure parts: reading what other programs print, and the closing page."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab import checks, demo, inventory, stages, summary, ui
from lab.checks import Check
from lab.model import Host, Lab, LabError
from lab.process import Completed
from lab.stages import PlaybookRun, Stage, Stages


def result(*found: Check, changed: int = 0) -> summary.Result:
    """A result with these checks."""
    return summary.Result(
        lab="demo", url="https://notes.lab.test/", ip="10.231.0.10", ca=".lab/demo/ca.pem", admin="ops",
        services=[("Caddy", "2.6.2")], checks=found, stages=[Stage("Start", 61.2, "10.231.0.10")], changed=changed,
        log=".lab/demo/site.log",
    )  # fmt: skip


GOOD = Check("It answers", True, "12 ms")
BAD = Check("Open ports", False, "22, 80, 443, 5432")
UNASKED = Check("UDP", None, "nmap failed")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s")]
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert stages.clock(seconds) == text


def test_tasks_recaps_and_errors_are_read_from_a_playbook_s_output() -> None:
    run = PlaybookRun(code=0)
    lines = [
        "PLAY [Converge] ****", "TASK [postgres : Install packages] ****", "TASK [slipway.vps.app : Validating arguments against arg spec 'main' - x] ***", "ok: [web1]", "TASK [Look] *****",
        "RUNNING HANDLER [caddy : Reload] ***", "[ERROR]: Task failed: no disk", "fatal: [web1]: FAILED! => no disk",
        "web1                       : ok=30   changed=4    unreachable=0    failed=1    skipped=2    rescued=0    ignored=0",
        "web2                       : ok=2    changed=1    unreachable=1    failed=0    skipped=2    rescued=0    ignored=0",
    ]  # fmt: skip
    tasks = [task for line in lines if (task := stages.read_line(run, line))]
    assert tasks == ["postgres: Install packages", "app: Check its arguments", "Look", "caddy: Reload"]
    assert (run.ok, run.changed, run.failed) == (32, 5, 2)
    assert len(run.errors) == 2


def test_a_playbook_s_output_and_exit_code_are_kept(tmp_path: Path) -> None:
    script = "import sys; print('TASK [a : B] ***'); print('oops', file=sys.stderr); sys.exit(3)"
    log, stream = tmp_path / "log", io.StringIO()
    run = stages.play([sys.executable, "-c", script], cwd=tmp_path, log=log, env=os.environ, stages=Stages(stream))
    assert run.code == 3
    assert "oops" in log.read_text()
    assert "      a\n" in stream.getvalue()


def test_a_program_that_is_not_there_ends_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="run bin/setup"):
        stages.play([str(tmp_path / "none")], cwd=tmp_path, log=tmp_path / "log", env={}, stages=Stages(io.StringIO()))


def test_a_stage_that_fails_is_marked_and_still_timed() -> None:
    stream = io.StringIO()
    told = Stages(stream)
    with pytest.raises(LabError), told.stage("Break"):
        raise LabError("broken")
    assert "✗ Break" in stream.getvalue()
    assert [s.title for s in told.done] == ["Break"]
    assert "\033" not in stream.getvalue()


def test_the_failed_task_is_shown_and_not_the_log_s_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("TASK [a]\nok\n[ERROR]: port 80 is taken\nOrigin: x\n" + "noise\n" * 50)
    assert demo.last_error(log).startswith("[ERROR]: port 80 is taken")
    log.write_text("".join(f"line {n}\n" for n in range(50)))
    assert demo.last_error(log).endswith("line 49")


def test_headers_and_body_are_told_apart_interim_answers_passed_over() -> None:
    headers, body = checks.split_answer(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/2 200\r\nX-Frame-Options: DENY\r\n\r\na\r\n\r\nb"
    )
    assert headers == {"x-frame-options": "DENY"}
    assert body == "a\n\nb"


def test_only_open_ports_are_counted() -> None:
    line = "Host: 10.0.0.1 ()\tPorts: 22/open/tcp//ssh///, 80/open/tcp//http///, 25/filtered/tcp//smtp///, 53/open|filtered/udp//x//"
    assert checks.open_ports(line) == [22, 80]
    assert checks.open_ports("# Nmap done") == []


def test_findings_of_ssh_audit_are_counted_over_all_kinds() -> None:
    report = {
        "kex": [{"algorithm": "a", "notes": {"fail": ["x"], "warn": ["y", "z"]}}],
        "key": [{"algorithm": "b", "notes": {"info": ["fine"]}}],
        "mac": [{"algorithm": "c", "notes": {"warn": ["w"]}}],
    }
    assert checks.audit_findings(json.dumps(report)) == (1, 3)


def test_versions_are_said_short() -> None:
    listing = "system|Debian GNU/Linux 13 (trixie)\ncaddy|2.6.2-12+deb13u1\npostgresql-17|17.12-0+deb13u1\nunknown|1\n"
    listing += "container|slipway_notes_blue (Up 2 minutes (healthy))\n"
    assert demo.what_runs(listing) == [
        ("System", "Debian GNU/Linux 13 (trixie)"),
        ("Caddy", "2.6.2"),
        ("PostgreSQL", "17.12"),
        ("Application", "notes, blue: Up 2 minutes (healthy)"),
    ]


def test_playbooks_run_with_the_project_s_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    monkeypatch.setenv("SLIPWAY_LAB", "other")
    found = demo.playbook_environment(Lab("demo"))
    assert "ANSIBLE_HOST_KEY_CHECKING" not in found
    assert found["SLIPWAY_LAB"] == "demo"
    assert found["ANSIBLE_CONFIG"].endswith("ansible.cfg")


def test_the_page_shows_how_to_open_it_and_every_figure() -> None:
    page = summary.render(result(GOOD))
    assert "curl --cacert .lab/demo/ca.pem --resolve notes.lab.test:443:10.231.0.10 https://notes.lab.test/" in page
    assert "✓ It answers  12 ms" in page
    assert "1 min 01 s" in page
    assert "\033" not in page


@pytest.mark.parametrize("found", [(GOOD, BAD), (GOOD, UNASKED), ()])
def test_what_failed_or_could_not_be_asked_is_no_success(found: tuple[Check, ...]) -> None:
    assert not result(*found).good
    assert "did not pass" in summary.render(result(*found))


def test_the_summary_can_be_had_as_json() -> None:
    data = json.loads(json.dumps(result(GOOD, BAD, changed=3).to_dict()))
    assert data["good"] is False
    assert data["changed"] == 3
    assert [c["good"] for c in data["checks"]] == [True, False]


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert ui.colourful(Terminal())
    assert not ui.colourful(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not ui.colourful(Terminal())


@pytest.mark.parametrize(
    ("done", "good"),
    [
        (Completed(1, b"", b"error:0A00042E:SSL routines::tlsv1 alert protocol version"), True),
        (Completed(0, b"New, TLSv1.0, Cipher is AES256-SHA"), False),
        (Completed(1, b"", b"connect: Connection refused"), None),
    ],
)
def test_only_the_server_s_own_refusal_of_old_tls_counts(done: Completed, good: bool | None) -> None:
    assert checks.judge_old_tls(done).good is good


MEASURED = {
    "tier": "startup",
    "rto_ms": 2249,
    "rto_target_ms": 14_400_000,
    "rpo_worst_ms": 43_200_420,
    "rpo_target_ms": 86_400_000,
}
DRILLED = {"verdict": "proved", "recovery": MEASURED, "checks": [{"status": "passed"}, {"status": "not applicable"}]}


def test_the_page_shows_measured_rto_and_rpo() -> None:
    tried = {
        "good": True,
        "tries": [{"what": "write an object", "found": "allowed"}, {"what": "list", "found": "refused"}],
    }
    found = replace(demo.read_drill(DRILLED), place="backups at https://s3.lab.test", writer=demo.read_tries(tried))
    shown = replace(result(GOOD), recovery=found)
    text = summary.render(shown)
    assert "2.2 s" in text
    assert "4 h" in text
    assert "12 h" in text
    assert shown.good
    assert shown.to_dict()["recovery"]["verdict"] == "proved"
    assert "backups at https://s3.lab.test" in text
    assert "can write; 1 ways to read" in text


def test_a_key_on_the_server_that_may_do_too_much_is_no_success() -> None:
    found = replace(demo.read_drill(DRILLED), place="here", writer=demo.read_tries({"good": False, "tries": []}))
    shown = replace(result(GOOD), recovery=found)
    assert not shown.good
    assert "may do more with its backups than write them" in summary.render(shown)


def test_a_backup_that_was_not_proved_is_no_success() -> None:
    found = demo.read_drill({"verdict": "failed", "recovery": None, "checks": []})
    assert not replace(result(GOOD), recovery=found).good


def test_backups_go_to_the_lab_s_bucket_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB_DIR", str(tmp_path))
    lab, store = Lab("x"), Host(lab="x", name="s3", id="4", image="s3", state="running", ip="10.231.0.13")
    web = Host(lab="x", name="web1", id="1", image="bare", state="running", ip="10.231.0.10")
    folder = {"path": "/var/backups/slipway"}
    assert inventory.lab_vars(lab, [web])["lab_backup_store"] == folder
    assert inventory.lab_vars(lab, [web, store])["lab_backup_store"] == folder  # not set up yet
    (lab.folder / "s3").mkdir(parents=True)
    secret = {"writer": {"key_id": "w", "secret": "hidden"}}
    told = {"endpoint": "https://s3.lab.test", "address": "https://10.231.0.13", "region": "lab", "bucket": "backups"}
    (lab.folder / "s3/access.json").write_text(json.dumps({**told, "keys": secret}))
    found = inventory.lab_vars(lab, [web, store])
    assert found["lab_backup_store"] == {
        "endpoint": "https://10.231.0.13", "region": "lab", "bucket": "backups", "ca_file": str(lab.folder / "s3/ca.pem"),
    }  # fmt: skip
    assert "hidden" not in json.dumps(found)
