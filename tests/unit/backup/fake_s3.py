# SPDX-License-Identifier: Apache-2.0
"""A bucket in this process that misbehaves on demand.

Like the real thing: multipart uploads, versions and delete markers, pages of at most 1,000, ranges, ETags. Like B2 where
it differs from AWS: refuses CRC trailers and bodies without Content-MD5, and lets a key lack rights. Unlike both: no
signature is checked, parts may be small, Object Lock is noted but keeps nothing from being deleted, everything is in memory. Like Ceph's
gateway before 19, ``forgets`` makes it drop the lock that an upload in parts is begun with.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import socket
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Fault:
    """What goes wrong the next ``times`` times that ``operation`` is called.

    ``how``: ``reset`` (before anything is done), ``lost`` (done, but no answer), ``cut`` (half of the body, then nothing),
    or a status with an error code: ``503 SlowDown``.
    """

    operation: str
    how: str
    times: int = 1


@dataclass
class Version:
    body: bytes
    etag: str
    version: str
    at: datetime
    marker: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class FakeS3:
    """The server. ``objects``: key -> versions, newest first; ``calls``: every operation asked for; ``faults`` to come."""

    def __init__(self, page: int = 1000) -> None:
        self.objects: dict[str, list[Version]] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes], datetime]] = {}
        self.faults: list[Fault] = []
        self.denied: set[str] = set()
        self.calls: list[str] = []
        self.page, self._count, self.lock = page, 0, threading.RLock()
        self.forgets, self.begun_with = False, dict[str, dict[str, str]]()  # upload to its lock
        self.altered: bytes | None = None  # what a completed upload holds instead of its parts
        handler = type("Handler", (_Handler,), {"fake": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def number(self) -> str:
        self._count += 1
        return f"v{self._count:06}"

    def store(self, key: str, body: bytes, etag: str = "", **headers: str) -> Version:
        with self.lock:
            etag = etag or hashlib.md5(body, usedforsecurity=False).hexdigest()
            made = Version(body, etag, self.number(), datetime.now(UTC), headers=headers)
            self.objects.setdefault(key, []).insert(0, made)
            return made

    def hide(self, key: str) -> None:
        """What a delete by name does: a marker on top."""
        self.objects.setdefault(key, []).insert(0, Version(b"", "", self.number(), datetime.now(UTC), marker=True))


LOCK_MODE, LOCK_UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"


class _Error(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


_OPERATIONS = {
    ("POST", "uploads"): "CreateMultipartUpload", ("PUT", "partNumber"): "UploadPart",
    ("POST", "uploadId"): "CompleteMultipartUpload", ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploads"): "ListMultipartUploads", ("GET", "versions"): "ListObjectVersions",
    ("GET", "list-type"): "ListObjectsV2", ("GET", ""): "GetObject", ("HEAD", ""): "HeadObject",
    ("PUT", "retention"): "PutObjectRetention", ("GET", "retention"): "GetObjectRetention", ("PUT", ""): "PutObject", ("DELETE", ""): "DeleteObject",
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    fake: FakeS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.key = unquote(parts.path).lstrip("/").partition("/")[2]
        mark = next((m for v, m in _OPERATIONS if v == self.command and m and m in self.query), "")
        operation = _OPERATIONS[(self.command, mark)]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.fake.lock:
            self.fake.calls.append(operation)
            fault = next((f for f in self.fake.faults if f.operation == operation and f.times > 0), None)
            if fault:
                fault.times -= 1
        how = fault.how if fault else ""
        try:
            if how == "reset":
                return self._drop()
            if how[:3].isdigit():
                raise _Error(int(how[:3]), how[4:])
            if operation in self.fake.denied:
                raise _Error(403, "AccessDenied")
            self._check(body)
            status, headers, answer = getattr(self, f"_{operation}")(body)
        except _Error as error:
            status, headers, answer = error.status, {}, f"<Error><Code>{error.code}</Code></Error>".encode()
        if how == "lost":
            return self._drop()
        return self._answer(status, headers, answer, cut=how == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _answer(self, status: int, headers: dict[str, str], answer: bytes, *, cut: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        if cut:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _check(self, body: bytes) -> None:
        if any("checksum" in name.lower() or name.lower() == "x-amz-trailer" for name in self.headers):
            raise _Error(400, "InvalidRequest")
        if self.command == "PUT":
            given = self.headers.get("Content-MD5")
            if not given:
                raise _Error(400, "InvalidRequest")
            if base64.b64decode(given) != hashlib.md5(body, usedforsecurity=False).digest():
                raise _Error(400, "BadDigest")

    def _found(self) -> Version:
        versions = self.fake.objects.get(self.key, [])
        asked = self.query.get("versionId")
        found = next((v for v in versions if v.version == asked), None) if asked else next(iter(versions), None)
        if found is None or found.marker:
            raise _Error(404, "NoSuchKey")
        return found

    def _PutObject(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        made = self.fake.store(self.key, body, **self._lock())
        return 200, {"ETag": f'"{made.etag}"', "x-amz-version-id": made.version}, b""

    def _lock(self) -> dict[str, str]:
        return {k.lower(): v for k, v in self.headers.items() if "object-lock" in k.lower()}

    def _PutObjectRetention(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        text, held = body.decode(), self._found().headers.get(LOCK_UNTIL, "")
        if held and datetime.fromisoformat(re.findall("<RetainUntilDate>(.*?)<", text)[0]) < datetime.fromisoformat(
            held
        ):
            raise _Error(403, "AccessDenied")
        for header, tag in ((LOCK_MODE, "Mode"), (LOCK_UNTIL, "RetainUntilDate")):
            self._found().headers[header] = re.findall(f"<{tag}>(.*?)</{tag}>", text)[0]
        return 200, {}, b""

    def _GetObjectRetention(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        held = self._found().headers
        if LOCK_MODE not in held:
            raise _Error(404, "NoSuchObjectLockConfiguration")
        inner = f"<Mode>{held[LOCK_MODE]}</Mode><RetainUntilDate>{held[LOCK_UNTIL]}</RetainUntilDate>"
        return 200, {}, f"<Retention>{inner}</Retention>".encode()

    def _GetObject(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = self._found()
        if self.headers.get("If-Match", f'"{found.etag}"').strip('"') != found.etag:
            raise _Error(412, "PreconditionFailed")
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(span.group(1)) if span else 0
        headers = {"ETag": f'"{found.etag}"', "x-amz-version-id": found.version}
        if span:
            headers["Content-Range"] = f"bytes {start}-{len(found.body) - 1}/{len(found.body)}"
        return (206 if span else 200), headers, found.body[start:]

    def _HeadObject(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = self._found()
        when = found.at.strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"ETag": f'"{found.etag}"', "x-amz-version-id": found.version, "Last-Modified": when}
        return 200, {**headers, "Content-Length": str(len(found.body))}, b""

    def _DeleteObject(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = self.query.get("versionId")
        if asked:
            left = [v for v in self.fake.objects.get(self.key, []) if v.version != asked]
            self.fake.objects[self.key] = left
            if not left:
                del self.fake.objects[self.key]
        else:
            self.fake.hide(self.key)
        return 204, {}, b""

    def _CreateMultipartUpload(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        identifier = self.fake.number()
        self.fake.uploads[identifier] = (self.key, {}, datetime.now(UTC))
        self.fake.begun_with[identifier] = {} if self.fake.forgets else self._lock()
        return 200, {}, f"<R><UploadId>{identifier}</UploadId></R>".encode()

    def _upload(self) -> dict[int, bytes]:
        try:
            return self.fake.uploads[self.query["uploadId"]][1]
        except KeyError:
            raise _Error(404, "NoSuchUpload") from None

    def _UploadPart(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self._upload()[int(self.query["partNumber"])] = body
        return 200, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}, b""

    def _CompleteMultipartUpload(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = self._upload()
        text = html.unescape(body.decode())  # of quotes, which each client writes in its own way
        asked = re.findall(r"<ETag>\"?([0-9a-f]{32})", text)
        numbers = [int(n) for n in re.findall(r"<PartNumber>(\d+)", text)]
        sums = [hashlib.md5(parts.get(n, b"?"), usedforsecurity=False) for n in numbers]
        if numbers != sorted(parts) or asked != [s.hexdigest() for s in sums]:
            raise _Error(400, "InvalidPart")
        joined = hashlib.md5(b"".join(s.digest() for s in sums), usedforsecurity=False).hexdigest()
        whole = b"".join(parts[n] for n in numbers) if self.fake.altered is None else self.fake.altered
        held = self.fake.begun_with.get(self.query["uploadId"], {})
        made = self.fake.store(self.key, whole, f"{joined}-{len(numbers)}", **held)
        del self.fake.uploads[self.query["uploadId"]]
        return 200, {"x-amz-version-id": made.version}, f'<R><ETag>"{made.etag}"</ETag></R>'.encode()

    def _AbortMultipartUpload(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        self._upload()
        del self.fake.uploads[self.query["uploadId"]]
        return 204, {}, b""

    def _paged(self, items: list[tuple[str, str]], after: str, tags: Any) -> tuple[int, dict[str, str], bytes]:
        """``items``: (sort key, xml); the page that follows ``after``."""
        rest = [item for item in sorted(items) if item[0] > after]
        page, more = rest[: self.fake.page], len(rest) > self.fake.page
        following = tags(page[-1][0]) if more else ""
        text = f"<R><IsTruncated>{str(more).lower()}</IsTruncated>{following}{''.join(xml for _, xml in page)}</R>"
        return 200, {}, text.encode()

    def _ListObjectsV2(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        items = [
            (key, f'<Contents><Key>{escape(key)}</Key><Size>{len(v[0].body)}</Size><ETag>"{v[0].etag}"</ETag>'
                  f"<LastModified>{v[0].at.isoformat()}</LastModified></Contents>")
            for key, v in self.fake.objects.items() if key.startswith(self.query.get("prefix", "")) and not v[0].marker
        ]  # fmt: skip
        return self._paged(items, self.query.get("continuation-token", ""),
                           lambda last: f"<NextContinuationToken>{escape(last)}</NextContinuationToken>")  # fmt: skip

    def _ListObjectVersions(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        items = []
        for key, versions in self.fake.objects.items():
            for place, v in enumerate(versions):
                tag = "DeleteMarker" if v.marker else "Version"
                body = "" if v.marker else f'<Size>{len(v.body)}</Size><ETag>"{v.etag}"</ETag>'
                xml = (f"<{tag}><Key>{escape(key)}</Key><VersionId>{v.version}</VersionId><IsLatest>"
                       f"{str(place == 0).lower()}</IsLatest><LastModified>{v.at.isoformat()}</LastModified>{body}</{tag}>")  # fmt: skip
                if key.startswith(self.query.get("prefix", "")):
                    items.append((f"{key}\n{place:06}", xml))
        return self._paged(items, self.query.get("version-id-marker", ""), lambda last: (
            f"<NextKeyMarker>{escape(last.split(chr(10))[0])}</NextKeyMarker>"
            f"<NextVersionIdMarker>{escape(last)}</NextVersionIdMarker>"))  # fmt: skip

    def _ListMultipartUploads(self, _body: bytes) -> tuple[int, dict[str, str], bytes]:
        items = [
            (identifier, f"<Upload><Key>{escape(key)}</Key><UploadId>{identifier}</UploadId>"
                         f"<Initiated>{at.isoformat()}</Initiated></Upload>")
            for identifier, (key, _parts, at) in self.fake.uploads.items() if key.startswith(self.query.get("prefix", ""))
        ]  # fmt: skip
        return self._paged(items, self.query.get("upload-id-marker", ""), lambda last: (
            f"<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>{last}</NextUploadIdMarker>"))  # fmt: skip
