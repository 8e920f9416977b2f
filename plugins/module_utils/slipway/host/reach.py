# SPDX-License-Identifier: Apache-2.0
"""First contact: who can log in to a host, and if nobody can, what to do about it. Pure; the action plugin runs ssh.

``ssh_argv`` builds the probe, ``judge`` reads what ssh and the host said. The probe tells in one round trip whether the
login works, whether Python is there, and whether the user is root or may become root without a password.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ..errors import SlipwayError

MARK = "slipway-reached"
# Marked lines, since login scripts may print anything around them.
PROBE = (
    f"echo {MARK} uid=$(id -u); command -v python3 >/dev/null || echo {MARK} no-python; "
    f'[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo {MARK} no-sudo'
)


class ReachError(SlipwayError):
    """Nobody can log in, or nobody who could go on from there."""


class Verdict(Enum):
    """``ok``: go on as this user. ``denied``: try the next user. ``stop``: no other user would fare better."""

    OK = "ok"
    DENIED = "denied"
    STOP = "stop"


@dataclass(frozen=True)
class Target:
    """Where ssh connects to, for messages. ``port`` 0 means: whatever ssh's own configuration says."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host} port {self.port}" if self.port else self.host

    @property
    def known_hosts_name(self) -> str:
        """As it stands in ``known_hosts``."""
        return f"[{self.host}]:{self.port}" if self.port not in (0, 22) else self.host


@dataclass(frozen=True)
class Judgement:
    """What one probe says. ``error`` is set unless the verdict is ok; ``instead`` names the user the host asked for."""

    verdict: Verdict
    root: bool = False
    error: ReachError | None = None
    instead: str = ""
    keys: tuple[str, ...] = ()


def ssh_argv(
    target: Target, user: str, *, executable: str = "ssh", key: str = "", timeout: int = 15, args: Sequence[str] = ()
) -> list[str]:
    """The probe as an argument list. ``args`` are the operator's own ssh arguments; ours come first, so ours win."""
    argv = [executable, "-v", "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    argv += ["-o", f"ConnectTimeout={timeout}", "-o", "PreferredAuthentications=publickey", *args]
    if target.port:
        argv += ["-o", f"Port={target.port}"]
    if key:
        argv += ["-o", f'IdentityFile="{key}"']
    return [*argv, "-l", user, "--", target.host, PROBE]


def offered_keys(stderr: str) -> tuple[str, ...]:
    """The keys that ssh offered, from its debug lines: file or agent comment, and fingerprint."""
    keys = re.findall(r"debug1: Offering public key: (.+?) \S+ (SHA256:\S+)", stderr)
    return tuple(dict.fromkeys(f"{name} ({fingerprint})" for name, fingerprint in keys))


def said(stderr: str) -> str:
    """What ssh said itself, without its debug lines and the host's banner; the last line that is not empty."""
    noise = ("debug", "OpenSSH_", "Warning: Permanently added", "Authenticated to", "Transferred:", "Bytes per second")
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith(noise)]
    return lines[-1] if lines else ""


def judge(target: Target, user: str, code: int, stdout: str, stderr: str) -> Judgement:
    """The meaning of one probe's exit code and output."""
    marks = [line.split(MARK, 1)[1].strip() for line in stdout.splitlines() if MARK in line]
    keys = offered_keys(stderr)
    if marks:
        return _judge_login(target, user, marks)
    wish = re.search(r'Please login as the user "([a-z_][a-z0-9_-]*)"', stdout + stderr)
    if wish:
        error = ReachError(f"{target} does not let {user} in and asks for '{wish[1]}'")
        return Judgement(Verdict.DENIED, error=error, instead=wish[1], keys=keys)
    if "password has expired" in stdout + stderr or "Password change required" in stdout + stderr:
        return _stop(
            f"The password of {user} on {target} has expired, and the host lets nobody in before it is changed",
            "a user who can log in by key",
            f"log in once with ssh -t {user}@{target.host}, change the password, and run this again",
        )
    if code != 255:
        return _stop(
            f"{user}@{target} ends every command with code {code}" + (f" ({said(stderr)})" if said(stderr) else ""),
            "a login shell that runs commands",
            f"look with ssh {user}@{target.host}",
        )
    return _judge_failure(target, user, stderr, keys)


def _judge_login(target: Target, user: str, marks: Sequence[str]) -> Judgement:
    root = "uid=0" in marks
    if "no-python" in marks:
        become = "" if root else "sudo "
        return _stop(
            f"{target} has no python3",
            "Debian's python3, which Ansible needs on every host",
            f"ssh {user}@{target.host} '{become}apt-get update && {become}apt-get install -y python3'",
        )
    if not root and "no-sudo" in marks:
        error = ReachError(
            f"{user} can log in to {target} but cannot become root without a password",
            "root, or a user with passwordless sudo",
            f"on the host, as root: echo '{user} ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/90-{user}",
        )
        return Judgement(Verdict.DENIED, error=error)
    return Judgement(Verdict.OK, root=root)


def _stop(found: str, expected: str, remedy: str) -> Judgement:
    return Judgement(Verdict.STOP, error=ReachError(found, expected, remedy))


def _judge_failure(target: Target, user: str, stderr: str, keys: tuple[str, ...]) -> Judgement:
    text = stderr
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return _changed_host_key(target, text)
    if "Host key verification failed" in text:
        return _stop(
            f"{target} shows a host key that this machine does not know, and its settings refuse new ones",
            "a known host key",
            f"type ssh-keyscan {target.host} >> ~/.ssh/known_hosts (after comparing the fingerprint with your provider's console)",
        )
    if "UNPROTECTED PRIVATE KEY FILE" in text:
        name = re.search(r"Permissions \d+ for '(.+?)' are too open", text)
        return _stop(
            "ssh refuses your key, since others can read its file",
            "mode 0600",
            f"chmod 600 {name[1] if name else 'the key file'}",
        )
    if "Permission denied" in text or "Too many authentication failures" in text:
        return _denied(target, user, text, keys)
    for words, found, remedy in _FAILURES:
        if any(word in text for word in words):
            return _stop(f"{target}: {found}", "", remedy.format(host=target.host, port=target.port or 22))
    return _stop(
        f"ssh to {user}@{target} failed: {said(stderr) or 'it said nothing'}", "", f"try ssh -v {user}@{target.host}"
    )


def _denied(target: Target, user: str, text: str, keys: tuple[str, ...]) -> Judgement:
    missing = re.findall(r"no such identity: (\S+?): ", text)
    if "Too many authentication failures" in text:
        found = f"{target} gave up on {user} after {len(keys)} keys"
        remedy = "offer one key alone: set ansible_ssh_private_key_file, and 'IdentitiesOnly yes' in ~/.ssh/config"
    else:
        found = f"{target} accepts none of your keys for {user}"
        remedy = (
            "put your public key there by your provider's console, or name the right key in ansible_ssh_private_key_file; "
            "a key with a passphrase must be in the agent (ssh-add)"
        )
    tried = f"Keys tried: {', '.join(keys)}" if keys else "No key was offered at all"
    if missing and not keys:
        tried += f"; there is no file {missing[0]}"
    error = ReachError(f"{found}. {tried}", "", remedy)
    return Judgement(Verdict.DENIED, error=error, keys=keys)


def _changed_host_key(target: Target, text: str) -> Judgement:
    fingerprint = re.search(r"(SHA256:\S+?)\.?\s", text)
    file = re.search(r"Offending \S+ key in (.+?):\d+", text)
    forget = ["ssh-keygen", *(["-f", file[1]] if file else []), "-R", target.known_hosts_name]
    return _stop(
        f"{target} shows another host key than last time"
        + (f" (now {fingerprint[1]})" if fingerprint else "")
        + ". Either the server was installed anew, or somebody stands between you and it and would see everything you send",
        "the host key this machine remembers",
        f"type {shlex.join(forget)} (but only if you reinstalled the server, or your provider's console shows that same fingerprint)",
    )


# (what ssh says, what it means, what to do); the first that fits counts.
_FAILURES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("Could not resolve hostname", "Name or service not known"),
        "this name has no address",
        "correct ansible_host in the inventory, or the name's DNS record; an IP address works as well",
    ),
    (
        ("Connection refused",),
        "the host is up but refuses connections there",
        "check ansible_port, and in your provider's console that sshd runs; after several failed logins the host also "
        "refuses an address for a while (fail2ban): wait an hour or come from another address",
    ),
    (
        ("timed out", "No route to host", "Network is unreachable", "Connection timeout"),
        "no answer",
        "check in your provider's console that the server runs and that ansible_host is its address; then a firewall of "
        "the provider's that does not let port {port} through",
    ),
    (
        ("Not allowed at this time", "Exceeded MaxStartups"),
        "sshd refuses this address for a moment, after failed logins",
        "wait a minute and try again",
    ),
    (
        ("no matching key exchange", "no matching host key type", "no matching cipher", "no matching MAC"),
        "your ssh and the host's sshd share no algorithm",
        "update your OpenSSH client to 9.0 or newer, or add an older algorithm in hardening_ssh_kex_extra",
    ),
    (
        ("Connection closed by", "Connection reset by", "kex_exchange_identification", "banner exchange"),
        "the connection was closed before the login",
        "check that sshd listens there and not something else; after failed logins sshd refuses an address for some seconds",
    ),
    (
        ("error in libcrypto", "invalid format"),
        "ssh cannot read your private key",
        "check the file that ansible_ssh_private_key_file names",
    ),
)


def summary(target: Target, users: Sequence[str], last: Sequence[ReachError]) -> ReachError:
    """One error for all users who were refused; the reasons are listed once where they are the same."""
    if len(last) == 1:
        return last[0]
    keys = dict.fromkeys(error.found.split(". ", 1)[1] for error in last if ". " in error.found)
    others = [error.found for error in last if ". " not in error.found]
    text = f"{target} let none of these users in: {', '.join(users)}"
    detail = ". ".join([*keys, *others])
    remedy = next((error.remedy for error in last if error.remedy), "")
    return ReachError(
        f"{text}. {detail}" if detail else text, "a login by key as the admin, or as root on a new server", remedy
    )
