# SPDX-License-Identifier: Apache-2.0
"""Mail over TLS, to a server that speaks it: from the first byte or by STARTTLS, with a login that goes nowhere unprotected."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slipway.backup import alarms
from slipway.backup.alarms import Alarms, Event, Mail

EVENT = Event("backup", "db1", "failed", "The disk is full.")
PASSWORD = "planted-mail-4k8s1d"


class Post:
    """A mail server for one way of TLS. ``heard``: each line, and whether it came through TLS."""

    def __init__(self, certificate: Path, way: str) -> None:
        self.heard: list[tuple[bool, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        post = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    self.talk()
                except OSError:
                    """The other end did not like the certificate, and hung up."""

            def talk(self) -> None:
                plain: Any = self.request
                line = context.wrap_socket(plain, server_side=True) if way == "tls" else plain
                stream = line.makefile("rwb", buffering=0)
                stream.write(b"220 here\r\n")
                inside = False
                while raw := stream.readline():
                    text = raw.decode().strip("\r\n")
                    post.heard.append((isinstance(line, ssl.SSLSocket), text))
                    word = text.upper()
                    if inside:
                        inside = text != "."
                        if not inside:
                            stream.write(b"250 taken\r\n")
                    elif word == "STARTTLS" and way == "starttls":
                        stream.write(b"220 go\r\n")
                        line = context.wrap_socket(plain, server_side=True)
                        stream = line.makefile("rwb", buffering=0)
                    elif word == "STARTTLS":
                        stream.write(b"454 no\r\n")
                    elif word.startswith("EHLO"):
                        offer = b"250-STARTTLS\r\n" if way == "starttls" and line is plain else b""
                        stream.write(b"250-here\r\n" + offer + b"250 AUTH PLAIN\r\n")
                    elif word.startswith("AUTH"):
                        stream.write(b"235 you are\r\n")
                    elif word == "DATA":
                        inside = True
                        stream.write(b"354 go on\r\n")
                    elif word == "QUIT":
                        stream.write(b"221 bye\r\n")
                        return
                    else:
                        stream.write(b"250 well\r\n")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def mail(self, security: str) -> Mail:
        """To this server, with a login."""
        return Mail(("ops@example.org",), "slipway@db1", "127.0.0.1", self.port, "ops", PASSWORD, security)


@pytest.fixture(params=["tls", "starttls", "plain"])
def post(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Post]:
    made = Post(certificate, request.param)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize("post", ["tls", "starttls"], indirect=True)
def test_mail_and_login_go_through_tls(
    post: Post, certificate: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert alarms.send(Alarms(mail=post.mail(request.node.callspec.params["post"])), EVENT) == []
    login = base64.b64encode(f"\0ops\0{PASSWORD}".encode()).decode()
    assert (True, f"AUTH PLAIN {login}") in post.heard
    assert (True, "The disk is full.") in post.heard
    assert {text.split()[0].upper() for secured, text in post.heard if not secured} <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize("post", ["tls", "starttls"], indirect=True)
def test_a_server_with_a_certificate_of_nobody_hears_nothing(post: Post, request: pytest.FixtureRequest) -> None:
    (complaint,) = alarms.send(Alarms(mail=post.mail(request.node.callspec.params["post"])), EVENT)
    assert complaint.startswith("The alarm by mail by 127.0.0.1 could not be sent: ")
    assert PASSWORD not in complaint
    assert not [text for _, text in post.heard if text.upper().startswith(("AUTH", "MAIL", "DATA"))]


@pytest.mark.parametrize("post", ["plain"], indirect=True)
def test_a_server_without_tls_gets_no_login(post: Post) -> None:
    (complaint,) = alarms.send(Alarms(mail=post.mail("starttls")), EVENT)
    assert PASSWORD not in complaint
    assert not [text for _, text in post.heard if text.upper().startswith(("AUTH", "MAIL", "DATA"))]


@pytest.mark.parametrize("post", ["plain"], indirect=True)
def test_mail_goes_unprotected_where_that_was_wished(post: Post) -> None:
    mail = Mail(("ops@example.org",), "slipway@db1", "127.0.0.1", post.port, security="none")
    assert alarms.send(Alarms(mail=mail), EVENT) == []
    said = [text for _, text in post.heard]
    assert "Subject: [slipway] backup of db1: failed" in said
    assert "The disk is full." in said
