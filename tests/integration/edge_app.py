# SPDX-License-Identifier: Apache-2.0
"""A small application behind the proxy under test: runs on the host with Python alone."""

import http.server
import sys
import time


class App(http.server.BaseHTTPRequestHandler):
    """Says what it was asked; streams; sets headers that the proxy should or should not replace."""

    protocol_version = "HTTP/1.1"

    def _say(self, text, **headers):
        body = text.encode()
        self.send_response(200)
        for name, value in {"Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                self.wfile.write(b"7\r\nline %d\n\r\n" % number)
                self.wfile.flush()
                time.sleep(1)
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/own-headers":
            self._say("own", X_Frame_Options="DENY", X_Powered_By="secret", Access_Control_Allow_Origin="*",
                      Strict_Transport_Security="max-age=1")  # fmt: skip
        elif self.path == "/large":
            self._say("x" * 100_000)
        else:
            self._say(f"{self.path} {self.headers.get('X-Forwarded-Proto')} {self.headers.get('X-Forwarded-For')}")

    def do_POST(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            self._say(f"got {len(self.rfile.read(int(self.headers.get('Content-Length') or 0)))}")
            return
        total, size = 0, -1
        while size:
            size = int(self.rfile.readline().strip() or b"0", 16)
            total += len(self.rfile.read(size))
            self.rfile.readline()
        self._say(f"got {total}")


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
