# SPDX-License-Identifier: Apache-2.0
"""The host that the tests of all climbs share, and what they do with it; the fixture is in ``grow_fixture``.

Leave the host as you found it: the next file's climb begins where yours ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.process import run
from tests.integration.fingerprint import differences, fingerprint
from tests.integration.world import ROOT, VENV, Done, World, recap
from tests.load.background import BackgroundLoad
from tests.load.model import Report, ledger_query, parse_ledger, reconcile
from tests.load.runner import Plan
from tests.load.scenario import STALLED_MS
from tests.load.target import Target

RATE = 40.0


@dataclass
class Grow:
    """The host, and what tests of climbs do with it. ``settings``: laid over the inventory until they are taken back."""

    world: World
    settings: dict[str, Any] = field(default_factory=dict)

    def climb(self, name: str, *args: str, good: bool = True) -> Done:
        """Run ``playbooks/grow/<name>.yml``; it must succeed unless ``good`` is False."""
        self.world.write_inventory(**self.settings)
        done = self.world.playbook(f"grow/{name}", *args)
        if good:
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        else:
            assert done.returncode != 0, done.stdout[-6000:]
            assert "Traceback" not in done.stdout + done.stderr
        return done

    def check_touches_nothing(self, name: str, *args: str) -> str:
        """``--check --diff`` of a climb leaves the host as it was, to the byte; what it said."""
        before = fingerprint(self.world)
        done = self.climb(name, "--check", "--diff", *args)
        assert differences(before, fingerprint(self.world)) == {}
        return done.stdout

    def killed(self, name: str, task: str, number: int = 1, *args: str) -> str:
        """Run a climb and kill ansible (SIGKILL, all its processes) as soon as a ``task`` of that name has ended, or the
        ``number``-th of them; what it said. (Ansible names a task when it knows that it was not skipped: at its end.)
        """
        self.world.write_inventory(**self.settings)
        argv = [str(VENV / "ansible-playbook"), "-i", str(self.world.inventory), f"playbooks/grow/{name}.yml", *args]
        said: list[str] = []
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            start_new_session=True, env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("TASK [") and task in line:
                    number -= 1
                    if number == 0:
                        break
            else:
                raise AssertionError(f"no task like {task!r} began:\n{''.join(said)[-6000:]}")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        return "".join(said)

    def killed_each(self, name: str, kills: Sequence[tuple[str, int, str]]) -> None:
        """Begin a climb once for each of ``kills`` and kill it there: (task, its number, the phase its record must then name)."""
        for task, number, phase in kills:
            self.killed(name, task, number)
            left = self.records()[-1]
            assert (left["phases"][-1]["name"], left["result"]) == (phase, ""), task

    def site_changes_nothing(self) -> None:
        """After a climb, site.yml has nothing to do."""
        self.world.write_inventory(**self.settings)
        done = self.world.playbook("site")
        assert done.returncode == 0, done.stdout[-6000:]
        assert recap(done)["changed"] == 0, re.findall(r"TASK \[.*\n(?=changed)", done.stdout)

    def records(self) -> list[dict[str, Any]]:
        """The host's records of climbs, oldest first."""
        text = self.world.root("cat /var/lib/slipway/climbs/[0-9]*.json 2>/dev/null | python3 -c '" + _READ + "'")
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def size(self, ram_mb: int, cores: int = 2) -> None:
        """What the provider would do: another plan for the same server. Nobody restarts a container for it."""
        limit = f"{ram_mb}m"
        run(["docker", "update", "--memory", limit, "--memory-swap", limit, self.world.host.id])
        size = json.loads(self.world.root("cat /etc/slipway-lab.json"))
        text = json.dumps({**size, "ram_mb": ram_mb, "cores": cores})
        self.world.root(["sh", "-c", f"printf '%s\\n' '{text}' > /etc/slipway-lab.json"])


_READ = """import json, sys
text, found, at = sys.stdin.read(), [], 0
while text[at:].strip():
    one, at = json.JSONDecoder().raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
    found.append(one)
print(json.dumps(found))"""


def loaded(grown: Grow) -> BackgroundLoad:
    """Readers and writers from outside who never retry, until they are stopped."""
    return BackgroundLoad(
        Target(f"https://{grown.world.domain}", grown.world.ip, str(grown.world.ca)), Plan(rate=RATE, seconds=None)
    )


def nothing_failed(grown: Grow, report: Report, what: str) -> None:
    """No request failed, none was lost, none stored twice, and none waited for longer than beside a deploy."""
    stored = parse_ledger(grown.world.sql(ledger_query(report.ledger)))
    found = reconcile(report, stored)
    writes = [one.ms for one in report.slowest if one.method == "POST"]
    print(f"{what}: {report.ok} requests, {len(report.failed)} failed, longest {report.slowest[0].ms:.0f} ms, "
          f"longest write {max(writes, default=0):.0f} ms, client's own lag {report.largest_lag_ms:.0f} ms")  # fmt: skip
    assert report.failed == [], report.kinds
    assert report.planned == report.sent == report.ok
    assert found.acknowledged > 100
    assert (found.lost, found.duplicated, found.unanswered) == ([], [], [])
    assert report.slowest[0].ms < STALLED_MS
