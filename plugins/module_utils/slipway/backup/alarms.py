# SPDX-License-Identifier: Apache-2.0
"""Telling people: a dead-man ping at start and end, and a webhook and mail when something failed.

The credential ``alarms`` holds where to, as JSON, every part of it optional::

    {"ping": {"backup": "https://hc-ping.com/<uuid>", "drill": "https://hc-ping.com/<uuid>"},
     "webhook": "https://hooks.example.org/...",
     "mail": {"to": ["ops@example.org"], "sender": "slipway@db1.example.org", "host": "smtp.example.org", "port": 587,
              "user": "...", "password": "...", "security": "starttls"}}

An alarm never fails what it tells of: what could not be sent comes back as a complaint, which names the host and never
the rest of a URL, since that is its secret. The ping is what notices that nothing runs at all.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

from .codec import FormatError, decode, parse_json
from .config import credential
from .taking.runs import Run

SECONDS = 10
_SENDMAIL = "/usr/sbin/sendmail"


@dataclass(frozen=True)
class Mail:
    """Where mail goes and by whom. No ``host``: this machine's own sendmail. ``security``: starttls, tls or none."""

    to: tuple[str, ...]
    sender: str
    host: str = ""
    port: int = 587
    user: str = ""
    password: str = field(default="", repr=False)
    security: str = "starttls"

    def __post_init__(self) -> None:
        if not self.to:
            raise FormatError("alarms by mail have no recipient", "an address or more in 'to'")
        if self.security not in ("starttls", "tls", "none"):
            raise FormatError(f"'{self.security}' is no way to secure mail", "starttls, tls or none")
        if self.user and self.security == "none":
            raise FormatError("a mail password would go over the line unprotected", "security starttls or tls")


@dataclass(frozen=True)
class Alarms:
    """Where alarms go. ``ping``: subject (``backup``, ``drill``) to URL."""

    ping: Mapping[str, str] = field(default_factory=dict, repr=False)
    webhook: str = field(default="", repr=False)
    mail: Mail | None = None

    def __post_init__(self) -> None:
        for url in [*self.ping.values(), *([self.webhook] if self.webhook else [])]:
            if urlsplit(url).scheme not in ("https", "http") or not urlsplit(url).hostname:
                raise FormatError("an alarm's URL is none", "https://host/path")


@dataclass(frozen=True)
class Event:
    """What there is to tell. ``outcome``: ``started``, ``good`` or ``failed``; ``details``: plain data, no secrets."""

    subject: str
    host: str
    outcome: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


def load() -> Alarms | None:
    """The alarms of this host, or None where there are none. Raises FormatError."""
    text = credential("alarms")
    return None if text is None else decode(Alarms, parse_json(text, "credential alarms"), "credential alarms")


def started(subject: str, host: str) -> Event:
    """That a run begins."""
    return Event(subject, host, "started", f"{subject} of {host} begins")


def ended(subject: str, done: Run, failure: Exception | None = None) -> Event:
    """How a run of the backup ended; ``failure``: what went wrong after it."""
    if not done.good:
        text = f"The {subject} {done.id} of {done.host} FAILED: {done.reason}"
    else:
        text = (
            f"The {subject} {done.id} of {done.host} is whole: {done.stored_bytes} bytes, {done.duration_ms // 1000} s."
        )
    text = "\n".join([text, *([str(failure)] if failure else []), *done.warnings])
    details = {
        "id": done.id, "started": done.started.isoformat(), "finished": done.finished.isoformat(),
        "reason": done.reason, "warnings": list(done.warnings), "stored_bytes": done.stored_bytes,
    }  # fmt: skip
    return Event(subject, done.host, "good" if done.good and failure is None else "failed", text, details)


def send(alarms: Alarms | None, event: Event) -> list[str]:
    """Tell it wherever it should be told; complaints about what could not be sent. Never raises."""
    if alarms is None:
        return []
    ways: list[tuple[str, Callable[[], None]]] = []
    if url := alarms.ping.get(event.subject):
        ways.append((f"ping to {urlsplit(url).hostname}", lambda: _ping(url, event)))
    if event.outcome == "failed":
        hook, mail = alarms.webhook, alarms.mail
        if hook:
            ways.append((f"webhook to {urlsplit(hook).hostname}", lambda: _post(hook, *body(event))))
        if mail:
            ways.append((f"mail by {mail.host or 'sendmail'}", lambda: _mail(mail, event)))
    complaints = []
    for name, way in ways:
        try:
            way()
        except Exception as error:  # whatever it is, it is not the backup's failure
            complaints.append(f"The alarm by {name} could not be sent: {_why(error)}.")
    return complaints


def body(event: Event) -> tuple[bytes, str]:
    """The webhook's JSON: ``text`` is what Slack, Mattermost and the like show."""
    data = {"text": event.text, "subject": event.subject, "host": event.host, "outcome": event.outcome}
    return json.dumps({**data, **event.details}).encode(), "application/json"


def _ping(url: str, event: Event) -> None:
    suffix = {"started": "/start", "failed": "/fail"}.get(event.outcome, "")
    _post(url.rstrip("/") + suffix, event.text.encode()[:10_000], "text/plain; charset=utf-8")


def _post(url: str, data: bytes, kind: str) -> None:
    request = urllib.request.Request(url, data, {"Content-Type": kind, "User-Agent": "slipway"}, method="POST")  # noqa: S310 - checked in Alarms
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        answer.read(1024)


def message(mail: Mail, event: Event) -> EmailMessage:
    """The mail. Pure."""
    made = EmailMessage()
    made["From"], made["To"] = mail.sender, ", ".join(mail.to)
    made["Subject"] = f"[slipway] {event.subject} of {event.host}: {event.outcome}"
    made.set_content(
        f"{event.text}\n\nLook with: slipway {event.subject} {'list' if event.subject == 'backup' else 'show'}\n"
    )
    return made


def _mail(mail: Mail, event: Event) -> None:
    made = message(mail, event)
    if not mail.host:
        argv = [_SENDMAIL, "-i", "-f", mail.sender, "--", *mail.to]
        subprocess.run(argv, input=made.as_bytes(), check=True, capture_output=True, timeout=SECONDS * 3)
        return
    context = ssl.create_default_context()
    if mail.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=SECONDS, context=context)
    else:
        client = smtplib.SMTP(mail.host, mail.port, timeout=SECONDS)
    with client:
        if mail.security == "starttls":
            client.starttls(context=context)
        if mail.user:
            client.login(mail.user, mail.password)
        client.send_message(made)


def _why(error: Exception) -> str:
    """The reason without anything that could hold a URL."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        return error.reason.strerror or type(error.reason).__name__ if isinstance(error.reason, OSError) else "refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
