# SPDX-License-Identifier: Apache-2.0
"""The controller's side of ``slipway.vps.reach``: tries who can log in, by ssh itself. Nothing is sent to the host but a probe."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.vps.plugins.module_utils.slipway.errors import SlipwayError
from ansible_collections.slipway.vps.plugins.module_utils.slipway.host import reach

# Longer than any ConnectTimeout a user may set: only a host that hangs after the connection gets here.
PATIENCE = 60


class ActionModule(ActionBase):
    """Returns ``user`` and ``root``; fails with one message when nobody can log in."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"users", "note"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tries the users in turn until one is let in."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        variables = task_vars or {}
        if self._connection.transport != "ssh":
            user = variables.get("ansible_user") or "root"
            result.update(user=user, root=user == "root", probed=False)
            return result
        users = list(dict.fromkeys(str(user) for user in self._task.args.get("users") or ["root"] if user))
        try:
            user, root, probed = self._first_let_in(users, variables)
        except SlipwayError as error:
            note = str(self._task.args.get("note") or "")
            result.update(failed=True, msg=f"{error} {note}".strip())
        else:
            result.update(user=user, root=root, probed=probed)
        return result

    def _first_let_in(self, users: list[str], variables: dict[str, Any]) -> tuple[str, bool, bool]:
        target = reach.Target(
            str(self._option("host") or variables["inventory_hostname"]), int(self._option("port") or 0)
        )
        refused: list[tuple[str, reach.ReachError]] = []
        queue = list(users)
        for user in queue:
            found = self._probe(target, user)
            if found.verdict is reach.Verdict.OK:
                return user, found.root, True
            if found.error is None:
                raise RuntimeError("a refusal without a reason")
            if found.verdict is reach.Verdict.STOP:
                raise found.error
            refused.append((user, found.error))
            if found.instead and found.instead not in queue:
                queue.append(found.instead)
        if self._option("password"):
            # A password was given: ssh may not ask for it here, Ansible's own connection may use it.
            user = str(variables.get("ansible_user") or "root")
            return user, user == "root", False
        raise reach.summary(target, [user for user, _ in refused], [error for _, error in refused])

    def _probe(self, target: reach.Target, user: str) -> reach.Judgement:
        args = [
            arg
            for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")
            for arg in shlex.split(self._option(name) or "")
        ]
        if self._option("host_key_checking") is False:
            args += ["-o", "StrictHostKeyChecking=no"]
        key = self._option("private_key_file") or ""
        argv = reach.ssh_argv(
            target,
            user,
            executable=self._option("ssh_executable") or "ssh",
            key=str(Path(key).expanduser()) if key else "",
            timeout=int(self._option("timeout") or 15),
            args=args,
        )
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=PATIENCE,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise reach.ReachError(
                f"This machine has no '{argv[0]}'", "OpenSSH's client", "install openssh-client"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise reach.ReachError(
                f"{user}@{target} was let in or is being asked, and then nothing came for {PATIENCE} s",
                "a shell",
                f"try ssh -v {user}@{target.host}",
            ) from error
        return reach.judge(target, user, done.returncode, done.stdout, done.stderr)

    def _option(self, name: str) -> Any:
        return self._connection.get_option(name)
