# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real S3 server that misbehaves on command, and refuses what Backblaze B2 refuses.

It speaks TLS with the server's own certificate (or plain HTTP without one) and passes everything through as it is, the ``Host`` header too, so that
signatures stay valid. What it does wrong is a list of :class:`Fault`; each is for one operation and runs out.

With ``b2=True`` it adds what B2 does and Ceph's gateway does not (the rest is the same there or is done by policies):

- checksum headers (``x-amz-checksum-*``, ``x-amz-sdk-checksum-algorithm``, trailers) are refused with 400 ``InvalidArgument``;
  so is every bulk delete that an SDK sends with one;
- a PUT or part without ``Content-MD5`` is refused with 400 ``InvalidRequest``, as in a bucket with Object Lock;
- a refusal for want of a right reads ``AccessDenied: not entitled``.

What it cannot show of B2: its own listing and billing rules, rate limits per account, and how soon a revoked key stops
to work. Deleting by name hides on both: it is what S3 versioning does.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal["status", "reset", "swallow", "late_error", "delay", "truncate", "cut", "flip", "swap", "skew"]
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect"}
_PIECE = 64 * 1024
_CHECKSUMS = re.compile(r"x-amz-(checksum-.*|sdk-checksum-algorithm|trailer)", re.IGNORECASE)
_DATE = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Fault:
    """One thing to do wrong, ``times`` times, to requests of ``operation`` whose key matches ``key``; a request gets one alone.

    - ``status``: answer ``status`` with ``code`` (and ``Retry-After``), the server is not asked;
    - ``reset``: read ``after`` bytes of the request, then reset the connection;
    - ``swallow``: let the server do its work, then reset instead of answering;
    - ``late_error``: let the server do its work, answer ``status`` all the same;
    - ``delay``: wait ``seconds`` first;
    - ``truncate``: break the download off after ``after`` bytes; ``cut``: the same, as if that were all of it;
    - ``flip``: change the byte at ``after`` of the download, or of the upload;
    - ``swap``: exchange the first two pieces of ``after`` bytes of the download;
    - ``skew``: the client's clock is off by ``seconds``: the request's date is changed, the server itself refuses it.
    """

    kind: Kind
    operation: str = ".*"
    key: str = ""
    times: int = 1
    status: int = 503
    code: str = "ServiceUnavailable"
    retry_after: int = 0
    after: int = 0
    seconds: float = 0.0


@dataclass
class Seen:
    """A request as it came by: operation, key, and the status that the client was given (0: none)."""

    operation: str
    key: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


def operation_of(method: str, path: str) -> tuple[str, str]:
    """The S3 operation of a path-style request, as boto3 calls it, and its key."""
    parts = urlsplit(path)
    asked = parse_qs(parts.query, keep_blank_values=True)
    key = parts.path.lstrip("/").partition("/")[2]
    if key:
        upload = "uploadId" in asked
        names = {
            "GET": "list_parts" if upload else "get_object",
            "HEAD": "head_object",
            "PUT": "upload_part" if upload else "put_object",
            "POST": "complete_multipart_upload" if upload else "create_multipart_upload",
            "DELETE": "abort_multipart_upload" if upload else "delete_object",
        }
        about = {"retention": "object_retention", "legal-hold": "object_legal_hold", "acl": "object_acl"}
        for word, name in about.items():
            if word in asked:
                return f"{method.lower()}_{name}", key
        return names.get(method, method.lower()), key
    if method == "POST" and "delete" in asked:
        return "delete_objects", ""
    if method == "GET":
        for word, name in (("versions", "list_object_versions"), ("uploads", "list_multipart_uploads")):
            if word in asked:
                return name, ""
        if "list-type" in asked:
            return "list_objects_v2", ""
    return f"{method.lower()}_bucket", ""


class FaultProxy:
    """The proxy; a context manager. ``faults`` may be added to at any time, ``seen`` is what came by."""

    def __init__(
        self, upstream: str, ca: Path | None = None, certificate: Path | None = None, private_key: Path | None = None, *,
        bind: str = "127.0.0.1", b2: bool = False,
    ) -> None:  # fmt: skip
        split = urlsplit(upstream)
        self._upstream = (split.hostname or "", split.port or (443 if split.scheme == "https" else 80))
        self._context = ssl.create_default_context(cafile=str(ca)) if split.scheme == "https" else None
        self.b2, self.faults, self.seen = b2, list[Fault](), list[Seen]()
        self._lock = threading.Lock()
        self._server = _Server((bind, 0), _Handler)
        self._server.proxy = self
        if certificate is not None:
            self._server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.context.load_cert_chain(certificate, private_key)
        self.url = f"{'https' if certificate else 'http'}://{bind}:{self._server.server_port}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the real server."""
        host, port = self._upstream
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=120)
        return http.client.HTTPSConnection(host, port, timeout=120, context=self._context)

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, *faults: Fault) -> None:
        """Do these from now on, each until it has run out."""
        with self._lock:
            self.faults += faults

    def reset(self) -> None:
        """Behave again, and forget what was seen."""
        with self._lock:
            self.faults.clear()
            self.seen.clear()

    def take(self, operation: str, key: str) -> Fault | None:
        """The fault that this request gets, the first that is for it: one alone, so that each of several does happen."""
        with self._lock:
            for place, each in enumerate(self.faults):
                if re.fullmatch(each.operation, operation) and re.search(each.key, key):
                    self.faults[place : place + 1] = [replace(each, times=each.times - 1)] if each.times > 1 else []
                    return each
            return None

    def count(self, operation: str) -> int:
        """How many requests of an operation came by."""
        return sum(1 for each in self.seen if each.operation == operation)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: FaultProxy
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake belongs to the connection's own thread, or one silent client would hold up all others."""
        try:
            wrapped = self.context.wrap_socket(request, server_side=True) if self.context else request
        except (OSError, ssl.SSLError):
            return
        super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what this proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 120

    def log_message(self, *_: object) -> None:
        """Silence: what came by is in ``seen``."""

    def _any(self) -> None:
        operation, key = operation_of(self.command, self.path)
        seen = Seen(operation, key, headers={name.lower(): value for name, value in self.headers.items()})
        proxy = self.server.proxy
        proxy.seen.append(seen)
        taken = proxy.take(operation, key)
        faults: dict[Kind, Fault] = {taken.kind: taken} if taken else {}
        self._left = int(self.headers.get("Content-Length") or 0)
        self._chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if fault := faults.get("delay"):
            time.sleep(fault.seconds)
        if fault := faults.get("status"):
            self._drain()
            seen.status = fault.status
            return self._refuse(fault.status, fault.code, "as the fault proxy was told", fault.retry_after)
        if fault := faults.get("reset"):
            self.rfile.read(min(fault.after, self._left))
            return self._cut_off()
        if proxy.b2 and (why := self._unlike_b2(operation)):
            self._drain()
            seen.status = 400
            return self._refuse(400, *why)
        return self._forward(seen, faults)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

    def _unlike_b2(self, operation: str) -> tuple[str, str] | None:
        for name in self.headers:
            if _CHECKSUMS.fullmatch(name):
                return "InvalidArgument", f"Unsupported header '{name.lower()}' received for this API call."
        if operation in ("put_object", "upload_part") and "Content-MD5" not in self.headers:
            return "InvalidRequest", "Content-MD5 HTTP header is required for uploads to a bucket with Object Lock."
        return None

    def _body(self, flip: Fault | None) -> Iterator[bytes]:
        """The request's body to its end, without the framing of chunks: what is left over would be read as the next request."""
        place = 0
        while self._left or self._next_chunk():
            piece = self.rfile.read(min(_PIECE, self._left))
            if not piece:
                raise ConnectionError("the client went away")
            self._left -= len(piece)
            yield _flipped(piece, flip, place)
            place += len(piece)

    def _next_chunk(self) -> bool:
        if not self._chunked:
            return False
        line = self.rfile.readline().strip() or self.rfile.readline().strip()  # the end of the chunk before comes first
        self._left = int(line.partition(b";")[0] or b"0", 16)
        if not self._left:
            self._chunked = False
            while self.rfile.readline().strip():
                pass
        return bool(self._left)

    def _drain(self) -> None:
        for _ in self._body(None):
            pass

    def _forward(self, seen: Seen, faults: dict[Kind, Fault]) -> None:
        upstream = self.server.proxy.connect()
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    upstream.putheader(name, _skewed(name, value, faults.get("skew")))
            whole = b"".join(self._body(None)) if self._chunked else b""
            if whole:
                upstream.putheader("Content-Length", str(len(whole)))
            upstream.endheaders(whole or None)
            up = seen.operation in ("put_object", "upload_part")
            for piece in self._body(faults.get("flip") if up else None):
                upstream.send(piece)
            answer = upstream.getresponse()
            if {"swallow", "late_error"} & faults.keys():
                answer.read()
                if fault := faults.get("late_error"):
                    seen.status = fault.status
                    return self._refuse(fault.status, fault.code, "though it was done", fault.retry_after)
                return self._cut_off()
            seen.status = answer.status  # before the client has its answer, and may look
            self._answer(answer, faults)
        finally:
            upstream.close()

    def _answer(self, answer: http.client.HTTPResponse, faults: dict[Kind, Fault]) -> None:
        whole = int(answer.getheader("Content-Length") or 0) if answer.getheader("Content-Length") else None
        cut, broken = faults.get("cut"), faults.get("truncate")
        body: bytes | None = None
        if whole is None and self.command != "HEAD":
            body = answer.read()
            whole = len(body)
        if answer.status == 403 and self.server.proxy.b2 and body is None and self.command != "HEAD":
            body = answer.read().replace(
                b"<Code>AccessDenied</Code>", b"<Code>AccessDenied</Code><Message>not entitled</Message>"
            )
            whole = len(body)
        if fault := faults.get("swap"):
            body, at = answer.read(), fault.after
            body = body[at : 2 * at] + body[:at] + body[2 * at :]
        told = min(whole or 0, cut.after) if cut else whole
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_HOP, "content-length", "server", "date"):
                self.send_header(name, value)
        if told is not None:
            self.send_header("Content-Length", str(told))
        self.end_headers()
        if self.command == "HEAD":
            return None
        left, place = told or 0, 0
        while left:
            piece = body[place : place + _PIECE] if body is not None else answer.read(min(_PIECE, left))
            piece = piece[:left]
            if not piece:
                return self._cut_off()
            if broken and place + len(piece) > broken.after:
                self.wfile.write(piece[: broken.after - place])
                return self._cut_off()
            self.wfile.write(_flipped(piece, faults.get("flip"), place))
            place, left = place + len(piece), left - len(piece)
        if cut:
            self.close_connection = True
        return None

    def _refuse(self, status: int, code: str, message: str, retry_after: int = 0) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def _cut_off(self) -> None:
        """A reset, not an orderly end."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _flipped(piece: bytes, fault: Fault | None, place: int) -> bytes:
    if fault is None or not place <= fault.after < place + len(piece):
        return piece
    changed = bytearray(piece)
    changed[fault.after - place] ^= 0x01
    return bytes(changed)


def _skewed(name: str, value: str, fault: Fault | None) -> str:
    if fault is None or name.lower() != "x-amz-date":
        return value
    then = datetime.strptime(value, _DATE).replace(tzinfo=UTC)
    return (then + timedelta(seconds=fault.seconds)).strftime(_DATE)
