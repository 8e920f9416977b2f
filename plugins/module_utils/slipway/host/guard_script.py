# SPDX-License-Identifier: Apache-2.0
"""What the dead-man guard writes to a host: its timer, its boot unit and its restore script. Pure; see :mod:`.guard`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

JOURNAL = "/var/log/slipway/journal.jsonl"


@dataclass(frozen=True)
class Saved:
    """The old state of one path. ``kind`` is absent, file, link or directory; ``copy`` its number under files/."""

    path: str
    kind: str
    copy: int = -1
    mode: int = 0
    uid: int = 0
    gid: int = 0


def timer_argv(name: str, seconds: int, script: Path) -> list[str]:
    """The command that starts the one-shot timer on the host. ``--collect`` leaves no failed unit behind."""
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit=slipway-guard-{name}",
        f"--description=Undo the change to {name} unless it is confirmed",
        f"--on-active={seconds}",
        "--timer-property=AccuracySec=100ms",
        "--property=Type=oneshot",
        "/bin/sh",
        str(script),
        "timer",
    ]


def boot_units(root: Path) -> dict[str, str]:
    """The two units, wanted by target -> text, that restore at boot what was pending at shutdown.

    Files first, before sshd, sysctl and the firewall read theirs; the commands once these run.
    """
    head = (
        "# Written by Slipway while a guarded change waits for its confirmation; removed by the confirmation.\n[Unit]\n"
    )
    early = f"""\
Description=Put back the files of changes that nobody confirmed before the reboot
DefaultDependencies=no
RequiresMountsFor={root}
After=local-fs.target
Before=sysinit.target systemd-sysctl.service network-pre.target slipway-firewall.service ssh.service ssh.socket
Before=shutdown.target
Conflicts=shutdown.target
"""
    late = """\
Description=Finish putting back changes that nobody confirmed before the reboot
After=network.target ssh.service fail2ban.service
"""
    return {
        target: head
        + text
        + f"""
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for s in {root}/*/restore; do [ ! -e "$$s" ] || /bin/sh "$$s" {mode}; done'

[Install]
WantedBy={target}
"""
        for target, text, mode in (("sysinit.target", early, "boot"), ("multi-user.target", late, "late"))
    }


def restore_steps(saved: Sequence[Saved], files: Path) -> list[tuple[str, str]]:
    """(what it does in words, shell command) for each saved path. Files are renamed into place, never written in place."""
    steps: list[tuple[str, str]] = []
    # Deepest first for what must vanish, so that directories are empty when their turn comes.
    gone = sorted((s for s in saved if s.kind == "absent"), key=lambda s: s.path, reverse=True)
    kept = sorted((s for s in saved if s.kind != "absent"), key=lambda s: s.path)
    for item in kept:
        path, temp = shlex.quote(item.path), shlex.quote(item.path + ".slipway-restore")
        if item.kind == "directory":
            command = f"mkdir -p -- {path} && chown {item.uid}:{item.gid} -- {path} && chmod {item.mode:04o} -- {path}"
        else:
            source = shlex.quote(str(files / str(item.copy)))
            command = (
                f"mkdir -p -- {shlex.quote(str(Path(item.path).parent))} && "
                f"cp -a -- {source} {temp} && mv -fT -- {temp} {path}"
            )
        steps.append((f"put back {item.path}", command))
    for item in gone:
        path = shlex.quote(item.path)
        steps.append((f"remove {item.path}", f"if [ -d {path} ]; then rmdir -- {path}; else rm -f -- {path}; fi"))
    return steps


def reloads_systemd(saved: Sequence[Saved]) -> bool:
    """True if a unit file is among what was saved."""
    return any(s.path.startswith(("/etc/systemd/", "/usr/lib/systemd/")) for s in saved)


def restore_script(
    name: str, armed_at: str, saved: Sequence[Saved], commands: Sequence[Sequence[str]], root: Path
) -> str:
    """The self-contained script; its argument is one of these.

    ``timer``: put the files back and run the commands. ``boot``: put the files back. ``late``: run the commands that
    ``boot`` left for when the services are up.
    """
    directory = root / name
    steps = restore_steps(saved, directory / "files")
    if reloads_systemd(saved):
        steps.append(("reload systemd", "systemctl daemon-reload"))
    lines = [
        "#!/bin/sh",
        f"# Written by Slipway: puts the old state of '{name}' back unless the change has been confirmed.",
        "set -u",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "export PATH",
        'by="${1:-timer}"',
        f"dir={shlex.quote(str(directory))}",
        f"exec 9>>{shlex.quote(str(root / '.lock'))}",
        "flock 9",
        'if [ "$by" = late ]; then',
        '  [ -e "$dir/late" ] || exit 0',
        '  failed="$(cat "$dir/late")"',
        "else",
        '  [ -e "$dir/armed" ] || exit 0',
        '  failed=""',
        "fi",
        'fail() { failed="${failed:+$failed, }$1"; }',
        "{",
        'if [ "$by" != late ]; then',
    ]
    lines += [f"  {command} || fail {number}" for number, (_, command) in enumerate(steps)]
    lines += ["fi", 'if [ "$by" = boot ]; then', '  echo "$failed" >"$dir/late"', "else", "  :"]
    # The lock is not handed down: a command that starts a daemon must not keep it for ever.
    lines += [f"  {shlex.join(argv)} 9>&- || fail {len(steps) + number}" for number, argv in enumerate(commands)]
    entry = json.dumps({"who": "guard", "what": "restore", "name": name, "armed_at": armed_at})[:-1]
    lines += [
        "fi",
        '} >>"$dir/log" 2>&1',
        'now="$(date -u +%Y-%m-%dT%H:%M:%SZ)"',
        '[ "$by" = late ] && told=boot || told="$by"',
        """printf '{"restored_at": "%s", "by": "%s", "failed": [%s]}\\n' "$now" "$told" "$failed" >"$dir/restored.json.new\"""",
        'mv -f "$dir/restored.json.new" "$dir/restored.json"',
        '[ "$by" = late ] && rm -f "$dir/late" && exit 0',
        'rm -f "$dir/armed"',
        "sync",
        f"if [ -d {shlex.quote(str(Path(JOURNAL).parent))} ]; then",
        f"""  printf '%s, "at": "%s", "result": "restored", "by": "%s"}}\\n' {shlex.quote(entry)} "$now" "$by" >>{shlex.quote(JOURNAL)}""",
        "fi",
        f'logger -t slipway-guard -p auth.warning "the change to {name} was not confirmed: old state put back ($by)${{failed:+, failed steps: $failed}}"',
        "exit 0",
    ]
    return "\n".join(lines) + "\n"
