"""Real S3 servers (SeaweedFS, moto, rclone), and a proxy in front of one that is slow or fails."""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from haechi.cache.child_process import PR_SET_PDEATHSIG

KEY_ID, SECRET = "KEYIDOFTHETESTS", "SECRETOFTHETESTS"
READER_ID, READER_SECRET = "READERIDOFTHETESTS", "READERSECRETOFTHETESTS"  # may read the bucket `open`, and not list it
BUCKETS = ("videos", "open")


def _program(name: str) -> str | None:
    """Where a program is, of this environment or of the system."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


WEED, RCLONE = _program("weed"), _program("rclone")
# moto needs packages of other versions than ours: it is tested where it is installed in an environment of its own.
MOTO = os.environ.get("MOTO_SERVER") or _program("moto_server")

PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
START_SECONDS = 180  # on a busy machine


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Start a server with empty `BUCKETS`; yields its S3 address."""
    assert WEED is not None
    identities = [
        {"name": "owner", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_ID, "secretKey": READER_SECRET}],
            "actions": ["Read:open"],
        },
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = {name: free_port() for part in PORTS for name in (part, f"{part}.grpc")}
    command = [WEED, f"-logdir={folder}", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false"]
    command += ["-master.volumeSizeLimitMB=32", "-volume.max=8", *(f"-{name}={port}" for name, port in ports.items())]
    with _running(command, folder) as process:
        for bucket in BUCKETS:
            _until_ready(f"http://127.0.0.1:{ports['filer.port']}/buckets/{bucket}/", "POST", process)
        address = f"http://127.0.0.1:{ports['s3.port']}"
        _until_ready(address, "GET", process)
        yield address


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[str]:
    """As `seaweedfs`. It takes all credentials."""
    assert MOTO is not None
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with _running([MOTO, "-H", "127.0.0.1", "-p", str(port)], folder) as process:
        _until_ready(address, "GET", process)
        for bucket in BUCKETS:
            _until_ready(f"{address}/{bucket}", "PUT", process)
        yield address


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """As `seaweedfs`. Its server ignores If-None-Match."""
    assert RCLONE is not None
    address = f"127.0.0.1:{free_port()}"
    for bucket in BUCKETS:
        (folder / "data" / bucket).mkdir(parents=True)
    command = [RCLONE, "serve", "s3", "--config=", f"--auth-key={KEY_ID},{SECRET}", f"--addr={address}"]
    with _running([*command, str(folder / "data")], folder) as process:
        _until_ready(f"http://{address}", "GET", process)
        yield f"http://{address}"


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server until the block ends."""
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_end_with_parent) as process,  # noqa: S603 (ours)
    ):
        try:
            yield process
        finally:
            process.kill()


def _end_with_parent() -> None:
    """In the server's process: it ends if the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _until_ready(url: str, method: str, process: "subprocess.Popen[bytes]") -> None:
    """Repeat a request until the server answers, whatever the answer."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            request = urllib.request.Request(url, method=method)  # noqa: S310 (of our own server)
            urllib.request.urlopen(request, timeout=5).read()  # noqa: S310
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        assert process.poll() is None, "the server ended while it started"
        assert time.monotonic() < until, "the server does not answer"
        time.sleep(0.05)


@dataclass(kw_only=True)
class Fault:
    """What the proxy does instead of passing on a request."""

    status: int = 0
    """Answer with this status; 0: pass the request on."""
    body: str = ""
    cut_bytes: int | None = None
    """End the connection after this many bytes of the body."""
    hang_seconds: float = 0.0
    is_lost: bool = False
    """Pass the request on, and end the connection instead of answering."""


@dataclass(kw_only=True)
class Proxy:
    """Passes requests on to a server. Signatures stay valid: they are made for the proxy's address, as it says."""

    target: str
    """Host and port."""
    plan: Callable[[str, str, int], Fault | None] = lambda method, path, number: None
    """(method, path, how often this pair was requested before) -> the fault; None: none."""
    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0
    """Of all connections together; 0: no limit."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)
    _free_at: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Yields the proxy's address."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                proxy.answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        with self._lock:
            number = self.requests.count((handler.command, path))
            self.requests.append((handler.command, path))
        time.sleep(self.latency_seconds)
        fault = self.plan(handler.command, path, number) or Fault()
        time.sleep(fault.hang_seconds)
        if fault.status:
            body = fault.body.encode() if handler.command != "HEAD" else b""
            handler.send_response(fault.status)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        connection = http.client.HTTPConnection(self.target, timeout=60)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            connection.putheader(name, value)
        connection.endheaders(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)))
        answer = connection.getresponse()
        if fault.is_lost:
            answer.read()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                handler.send_header(name, value)
        if answer.headers.get("Content-Length") is None:
            handler.close_connection = True
            handler.send_header("Connection", "close")
        handler.end_headers()
        sent = 0
        with contextlib.suppress(OSError):
            while handler.command != "HEAD" and (piece := answer.read(1 << 16)):
                if fault.cut_bytes is not None and sent + len(piece) > fault.cut_bytes:
                    handler.wfile.write(piece[: fault.cut_bytes - sent])
                    handler.wfile.flush()
                    handler.close_connection = True
                    handler.connection.shutdown(socket.SHUT_RDWR)
                    break
                self._wait_for(len(piece))
                handler.wfile.write(piece)
                sent += len(piece)
        connection.close()

    def _wait_for(self, num_bytes: int) -> None:
        if not self.bytes_per_second:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + num_bytes / self.bytes_per_second
            pause = self._free_at - now
        time.sleep(pause)
