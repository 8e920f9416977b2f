# SPDX-License-Identifier: Apache-2.0
"""The demo's closing page: what runs, how to open it, what was proved, how long it took. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lab.checks import Check
from lab.stages import Stage, clock
from lab.ui import paint


@dataclass(frozen=True)
class Recovery:
    """A backup restored: its verdict, checks that passed, and measured times beside the tier's, as people say them."""

    verdict: str
    checks: int
    tier: str
    rto: str
    rto_target: str
    rpo_worst: str
    rpo_target: str
    place: str = ""
    """Where the backup lies."""
    writer: str = ""
    """What the server's own key may do there, as tried; empty where that is more than it should be."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """All the demo has to tell."""

    lab: str
    url: str
    ip: str
    ca: str
    admin: str
    services: Sequence[tuple[str, str]]
    """What runs, and its version or a word on it."""
    checks: Sequence[Check]
    stages: Sequence[Stage]
    changed: int
    log: str
    recovery: Recovery | None = None

    @property
    def good(self) -> bool:
        """Whether every check was asked and passed."""
        proved = self.recovery is None or (self.recovery.verdict == "proved" and bool(self.recovery.writer))
        return bool(self.checks) and all(c.good for c in self.checks) and proved

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(s.seconds for s in self.stages)

    def domain(self) -> str:
        """The name in the URL."""
        return self.url.split("/")[2]

    def curl(self) -> str:
        """The command that opens the page from this machine."""
        return f"curl --cacert {self.ca} --resolve {self.domain()}:443:{self.ip} {self.url}"

    def to_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return {
            "good": self.good,
            "lab": self.lab,
            "url": self.url,
            "ip": self.ip,
            "ca": self.ca,
            "curl": self.curl(),
            "runs": [{"name": n, "detail": d} for n, d in self.services],
            "checks": [c.to_dict() for c in self.checks],
            "stages": [{"title": s.title, "seconds": round(s.seconds, 1), "outcome": s.outcome} for s in self.stages],
            "seconds": round(self.seconds, 1),
            "recovery": asdict(self.recovery) if self.recovery else None,
            "changed": self.changed,
            "log": self.log,
        }


def render(result: Result, *, colour: bool = False) -> str:
    """The page, for a terminal 80 wide or more."""

    def strong(text: str) -> str:
        return paint(text, "bold", on=colour)

    def faint(text: str) -> str:
        return paint(text, "dim", on=colour)

    marks = {
        True: paint("✓", "green", on=colour),
        False: paint("✗", "red", on=colour),
        None: paint("?", "yellow", on=colour),
    }
    proved = sum(c.good is True for c in result.checks)
    headline = "A bare Debian server now serves the example application."
    if not result.good:
        headline = f"It runs, but {len(result.checks) - proved} of {len(result.checks)} checks did not pass."
        if result.checks and proved == len(result.checks):
            headline = "It runs, but the backup was not proved."
            if result.recovery and result.recovery.verdict == "proved":
                headline = "It runs, but the server's key may do more with its backups than write them."
    lines = ["", f"  {strong(headline)}", "", f"  {strong('Open it')}", f"    {paint(result.url, 'cyan', on=colour)}"]
    lines += [
        f"    {faint('from this machine')}  {result.curl()}",
        f"    {faint('in a browser')}       add the line  {result.ip} {result.domain()}  to /etc/hosts and trust {result.ca}",
        "",
        f"  {strong('What runs')}",
    ]
    width = max((len(name) for name, _ in result.services), default=0)
    lines += [f"    {name:<{width}}  {faint(detail)}" for name, detail in result.services]
    lines += ["", f"  {strong('What was proved, from outside')}  {faint(f'{proved} of {len(result.checks)}')}"]
    width = max((len(c.title) for c in result.checks), default=0)
    lines += [f"    {marks[c.good]} {c.title:<{width}}  {faint(c.measured)}" for c in result.checks]
    if found := result.recovery:
        mark = marks[found.verdict == "proved"]
        lines += [
            "",
            f"  {strong('A backup was taken and restored')}  {faint(f'into a scratch cluster, {found.checks} checks')}",
            f"    {mark} {found.verdict:<14}  {faint('compared with what was there when it was taken')}",
            *(
                [f"      {'lies in':<14}  {found.place}  {faint('encrypted before it left the server')}"]
                if found.place and found.writer
                else []
            ),
            f"    {marks[bool(found.writer)]} {'key on server':<14}  {faint(found.writer or 'may do more than write')}",
            f"      {'back in (RTO)':<14}  {found.rto}  {faint(f'measured; the tier {found.tier} allows {found.rto_target}')}",
            f"      {'at risk (RPO)':<14}  {found.rpo_worst}  {faint(f'at worst; the tier allows {found.rpo_target}')}",
        ]
    lines += ["", f"  {strong('How long it took')}  {faint(clock(result.seconds))}"]
    width = max((len(s.title) for s in result.stages), default=0)
    lines += [f"    {s.title:<{width}}  {clock(s.seconds):>12}  {faint(s.outcome)}".rstrip() for s in result.stages]
    lines += [
        "",
        f"  {strong('Next')}",
        f"    bin/demo                                  again: quick, and {'0' if result.changed == 0 else 'then 0'} changed",
        f"    bin/lab ssh --name {result.lab} --user {result.admin} web1      look around on the server",
        f"    less {result.log}",
        "    bin/demo --down                           remove every trace",
        "",
    ]
    return "\n".join(lines)
