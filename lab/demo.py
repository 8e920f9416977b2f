# SPDX-License-Identifier: Apache-2.0
"""bin/demo: from a bare lab VPS to the example application over HTTPS and its backup on an S3 server restored, with proof.

Run again it finds what is there, changes nothing, and checks once more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from slipway.backup.verdict import span
from slipway.errors import SlipwayError

from lab import checks, cli, images, s3, services, ui
from lab.driver import Driver, get_driver
from lab.model import DOMAIN, REPO, SERVICES_HOST, Host, HostSpec, Lab, LabError
from lab.recipes import recipe
from lab.stages import PlaybookRun, Stages, clock, play
from lab.summary import Recovery, Result, render

LAB = "demo"
HOST = "web1"
ADMIN = "ops"
SITE = f"notes.{DOMAIN}"
_SITE_PLAYBOOK = "playbooks/site.yml"
_VERSIONS = r"""
. /etc/os-release; echo "system|$PRETTY_NAME"
for p in caddy postgresql-17 pgbouncer docker.io; do dpkg-query -W -f '${Package}|${Version}\n' $p 2>/dev/null || true; done
docker ps --format 'container|{{.Names}} ({{.Status}})' 2>/dev/null || true
"""
_SPANS = ("rto", "rto_target", "rpo_worst", "rpo_target")
_CONTAINER = re.compile(r"^slipway_(\w+)_(blue|green) \((.+)\)$")
_TITLES = {
    "system": "System",
    "caddy": "Caddy",
    "postgresql-17": "PostgreSQL",
    "pgbouncer": "PgBouncer",
    "docker.io": "Docker",
    "container": "Application",
}


class PlaybookFailedError(LabError):
    """A playbook failed; ``excerpt`` is what it said itself."""

    def __init__(self, code: int, log: Path, playbook: str = _SITE_PLAYBOOK) -> None:
        super().__init__(f"{playbook} ended with code {code}", "", f"read above; the whole log is {relative(log)}")
        self.excerpt = last_error(log)


def playbook_environment(lab: Lab) -> dict[str, str]:
    """The environment ansible-playbook gets: the project's settings, this lab's hosts, no colours in the log."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "SLIPWAY_LAB"))}
    if "SLIPWAY_LAB_DIR" in os.environ:
        kept["SLIPWAY_LAB_DIR"] = os.environ["SLIPWAY_LAB_DIR"]
    return {
        **kept,
        "PATH": f"{REPO / '.venv' / 'bin'}{os.pathsep}{kept.get('PATH', '')}",
        "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "SLIPWAY_LAB": lab.name,
    }


def what_runs(listing: str) -> list[tuple[str, str]]:
    """The lines ``key|detail`` of the look at the server, as names and short versions."""
    found = []
    for line in listing.splitlines():
        key, _, detail = line.partition("|")
        if key in _TITLES and detail:
            if key == "container":
                detail = _CONTAINER.sub(r"\1, \2: \3", detail)
            elif key != "system":
                detail = re.split(r"[-+~]", detail)[0]
            found.append((_TITLES[key], detail))
    return found


def last_error(log: Path, lines: int = 12) -> str:
    """What a person needs to see of a failed playbook's log: from the first error on, or its end."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    first = next(
        (n for n, line in enumerate(text) if line.startswith(("[ERROR]", "fatal:", "ERROR!"))), len(text) - lines
    )
    return "\n".join(text[max(first, 0) :][:lines])


def run_playbook(lab: Lab, stages: Stages, playbook: str) -> tuple[PlaybookRun, Path]:
    """Run a playbook on the lab; raises :class:`LabError` with the playbook's own message where it fails."""
    log = lab.folder / f"{Path(playbook).stem}.log"
    ansible = REPO / ".venv" / "bin" / "ansible-playbook"
    argv = [str(ansible), "-i", "inventories/lab", playbook]
    done = play(argv, cwd=REPO, log=log, env=playbook_environment(lab), stages=stages)
    if done.code:
        raise PlaybookFailedError(done.code, log, playbook)
    return done, log


def run_site(lab: Lab, stages: Stages) -> tuple[PlaybookRun, Path]:
    """Converge the lab's host."""
    with stages.stage("Configure it: hardening to HTTPS (site.yml)") as stage:
        done, log = run_playbook(lab, stages, _SITE_PLAYBOOK)
        stage.outcome = f"{done.ok} tasks, {done.changed} changed"
    return done, log


def prove_backup(driver: Driver, host: Host, lab: Lab, stages: Stages) -> Recovery:
    """Take a backup to the S3 server and restore it into a scratch cluster, as a user would; what was measured."""
    with stages.stage("Take a backup to S3 (take_backup.yml)") as stage:
        run_playbook(lab, stages, "playbooks/take_backup.yml")
        newest = json.loads(driver.exec(host, ["slipway", "backup", "list", "--json"]).stdout)["backups"][0]
        tried = json.loads(driver.exec(host, ["slipway", "backup", "verify-setup", "--json"], check=False).stdout)
        stage.outcome = f"{newest['databases']} databases, {newest['bytes'] / 1000:.1f} kB, encrypted"
    with stages.stage("Restore it to prove it (run_drill.yml)") as stage:
        run_playbook(lab, stages, "playbooks/run_drill.yml")
        drills = json.loads(driver.exec(host, ["slipway", "drill", "list", "--json", "--lines", "1"]).stdout)
        about = s3.access(lab)
        found = replace(
            read_drill(drills["drills"][0]), place=f"{about.bucket} at {about.endpoint}", writer=read_tries(tried)
        )
        stage.outcome = f"{found.verdict}: {found.checks} checks, back in {found.rto}"
    return found


def read_tries(tried: dict[str, Any]) -> str:
    """What the key on the server may do with the bucket, each right tried; empty where it may do more than it should."""
    if not tried["good"]:
        return ""
    refused = sum(each["found"] == "refused" for each in tried["tries"])
    return f"can write; {refused} ways to read, list or destroy were tried, all refused"


def read_drill(drill: dict[str, Any]) -> Recovery:
    """What the closing page says of a drill."""
    measured = drill.get("recovery") or {}
    passed = sum(check["status"] == "passed" for check in drill["checks"])
    spans = {name: span(int(measured.get(f"{name}_ms", 0))) for name in _SPANS}
    return Recovery(str(drill["verdict"]), passed, str(measured.get("tier", "")), **spans)


def bring_store(driver: Driver, lab: Lab) -> Future[None]:
    """The S3 server, its image built where it is missing, beside everything else; raises at ``result()``."""

    def bring() -> None:
        spec = s3.spec()
        there = {host.name: host for host in driver.hosts(lab)}
        cli.bring(driver, lab, spec, _quiet, there.get(spec.name))
        s3.refresh(driver, lab, _quiet)

    pool = ThreadPoolExecutor(1, "s3")
    try:
        return pool.submit(bring)
    finally:
        pool.shutdown(wait=False)


def _quiet(_text: str) -> None:
    """What goes on beside a stage is not shown."""


def demo(driver: Driver, stages: Stages) -> Result:
    """The whole demo on the lab ``demo``; raises :class:`SlipwayError` where a stage fails."""
    lab = Lab(LAB)
    with stages.stage("Build the lab's images") as stage:
        built = [name for name in ("bare", "s3", "services", "python") if not images.exists(recipe(name).tag)]
        images.ensure("bare", stages.detail)
        store = bring_store(driver, lab)
        for name in ("services", "python"):
            images.ensure(name, stages.detail)
        stage.outcome = f"{', '.join(built)} from Debian's archive" if built else "all there"
    with stages.stage("Start a bare VPS, a CA and an S3 server") as stage:
        there = {h.name for h in driver.hosts(lab)}
        specs = [HostSpec(name=HOST, image="bare", ram_mb=2048, cores=2, aliases=(SITE,)), services.spec()]
        cli.up(driver, lab, specs, stages.detail)
        host, acme = cli.find(driver, lab, [HOST, SERVICES_HOST])
        stages.detail(
            "waiting for the S3 server" + (", whose image is being built (a minute or two)" if "s3" in built else "")
        )
        store.result()
        stage.outcome = f"{host.ip}, {host.ram_mb} MB, {host.cores} cores" + (
            ", there already" if HOST in there else ""
        )
    done, log = run_site(lab, stages)
    with stages.stage("Prove it from outside") as stage:
        subject = checks.Subject(driver, lab, host, acme, SITE, lab.ca)
        found = checks.all_checks(subject, ADMIN, stages.detail)
        stage.outcome = f"{sum(c.good is True for c in found)} of {len(found)} checks passed"
    recovery = prove_backup(driver, host, lab, stages)
    return Result(
        recovery=recovery,
        lab=lab.name,
        url=f"https://{SITE}/",
        ip=host.ip,
        ca=relative(lab.ca),
        admin=ADMIN,
        services=what_runs(driver.exec(host, ["sh", "-c", _VERSIONS]).stdout),
        checks=found,
        stages=stages.done,
        changed=done.changed,
        log=relative(log),
    )


def relative(path: Path) -> str:
    """``path`` as seen from the checkout, where a user stands."""
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)


def take_down(driver: Driver, *, with_images: bool) -> None:
    """Remove every trace of the demo; with ``with_images`` the lab's images too."""
    say = ui.Narrator()
    cli.down(driver, Lab(LAB), say)
    if with_images:
        for tag in images.remove_all():
            say(f"image {tag} is gone")
    say(
        "nothing of the demo is left"
        + ("" if with_images else " but the images, which make the next one quick (--all removes them)")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/demo", description=__doc__)
    parser.add_argument("--down", action="store_true", help="remove every trace of the demo")
    parser.add_argument("--all", action="store_true", help="with --down: the lab's images too")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit code 0 where everything was proved, 1 on an error or a failed check, 130 on Ctrl-C."""
    args = _parser().parse_args(argv)
    stages = Stages()
    try:
        driver = get_driver()
        if args.down:
            take_down(driver, with_images=args.all)
            return 0
        result = demo(driver, stages)
    except SlipwayError as error:
        if isinstance(error, PlaybookFailedError):
            print("\n" + textwrap.indent(error.excerpt, "    "), file=sys.stderr)
        print(f"\nbin/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        total = clock(sum(s.seconds for s in stages.done))
        print(
            f"\nbin/demo: stopped after {total}. Run it again to go on, or bin/demo --down to clean up.",
            file=sys.stderr,
        )
        return 130
    if args.json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        print(render(result, colour=ui.colourful(sys.stdout)))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
