# SPDX-License-Identifier: Apache-2.0
"""Receives alarms on a lab host as their services would: pings and a webhook over HTTP, mail over SMTP.

Runs there with Python alone: ``python3 alarm_sink.py FILE HTTP_PORT SMTP_PORT``. Each thing received is a line of JSON in the file.
"""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

_WRITING = threading.Lock()


def note(kind: str, where: str, text: str) -> None:
    """Add a line to the file."""
    with _WRITING, Path(sys.argv[1]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "where": where, "text": text}) + "\n")


class Web(BaseHTTPRequestHandler):
    """Answers 200 to every POST."""

    def do_POST(self) -> None:
        """A ping, or what a chat would show."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        note("web", self.path, body.decode(errors="replace"))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as smtplib speaks."""

    def handle(self) -> None:
        """One conversation."""
        self.wfile.write(b"220 sink\r\n")
        to = ""
        while line := self.rfile.readline():
            verb = line.split(b":")[0].split()[0].upper() if line.split() else b""
            if verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            if verb == b"RCPT":
                to = line.partition(b"<")[2].partition(b">")[0].decode()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                note("mail", to, _letter(self.rfile))
            self.wfile.write(b"250 fine\r\n")


def _letter(file: IO[bytes]) -> str:
    """What comes up to the line with a dot alone: its subject and its text."""
    lines = []
    while (line := file.readline()) not in (b".\r\n", b""):
        lines.append(line)
    letter = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
    return f"{letter['subject']}\n{letter.get_content()}"


def main() -> None:
    """Serve both until the end."""
    web = ThreadingHTTPServer(("", int(sys.argv[2])), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with socketserver.ThreadingTCPServer(("", int(sys.argv[3])), Mail) as mail:
        mail.serve_forever()


if __name__ == "__main__":
    main()
