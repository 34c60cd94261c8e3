"""Files of web servers, with a server on this machine whose names count as public ones."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from haechi.cache.manifest_file import ManifestError
from haechi.cache.reader import Cache, shard_paths
from haechi.cache.stores import retry, web
from haechi.cache.stores.errors import StoreError, Trouble
from haechi.cache.stores.location import Location
from haechi.cache.stores.web import WebServer, is_public
from haechi.extract.manifest import located, read_manifest
from haechi.extract.pipeline import Extraction
from haechi.extract.stores.states import current_states

# A certificate of our own for media.test and other.test, with its key, for this test alone:
# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=media.test
#   -addext subjectAltName=DNS:media.test,DNS:other.test
CERTIFICATE = Path(__file__).with_name("media.test.pem")


@dataclass(kw_only=True)
class Site:
    """A server: path -> bytes, or the address to which it redirects. It answers GET alone, as for presigned URLs."""

    port: int = 0
    files: dict[str, bytes | str] = field(default_factory=dict)
    etag: str = '"1"'
    has_ranges: bool = True
    cut_bytes: int | None = None
    """The first answer with the whole file ends after this many bytes."""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(f"{self.command} {self.headers['Host'].partition(':')[0]}{self.path}")
            found = served.files.get(self.path)
            if found is None or isinstance(found, str):
                self.send_response(404 if found is None else 302)
                self.send_header("Location", found or "")
                self.end_headers()
                return
            start, stop = 0, len(found)
            if served.has_ranges and (asked := self.headers["Range"]):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(stop, int(last) + 1) if last else stop
                self.send_response(206 if found else 416)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(found)}" if found else "bytes */0")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", served.etag)
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 11:00:00 GMT")
            self.end_headers()
            with contextlib.suppress(OSError):  # who asks for the length does not wait for the rest
                self.wfile.write(found[start:stop][: served.cut_bytes])
            if stop - start > 1:
                served.cut_bytes = None

        def log_message(self, format: str, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        served.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        addresses = {"media.test": "127.0.0.1", "other.test": "127.0.0.1", "inside.test": "10.1.2.3"}

        def look_up(host: str, port: int, **options: Any) -> list[Any]:
            if host not in addresses:
                raise socket.gaierror(-2, "not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], port))]

        monkeypatch.setattr(web.socket, "getaddrinfo", look_up)
        monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
        monkeypatch.setattr(web, "tls_context", lambda: ssl.create_default_context(cafile=str(CERTIFICATE)))
        monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01, 0.01))
        yield served
        server.shutdown()


def at(site: Site, path: str, *, host: str = "media.test") -> Location:
    return Location.parse(f"https://{host}:{site.port}{path}", allow_https=True)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
    ],
)
def test_public_addresses(address: str, *, expected: bool) -> None:
    assert is_public(address) == expected


def test_an_address_inside_is_refused_before_anything_is_sent() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"):
        with pytest.raises(StoreError) as caught:
            WebServer().head(Location.parse(f"https://{host}:1/a.mp4", allow_https=True))
        assert (caught.value.reason, caught.value.is_temporary) == (Trouble.FORBIDDEN, False), host


def test_redirects_are_followed_to_public_addresses_alone(site: Site) -> None:
    here, there = f"https://media.test:{site.port}", f"https://other.test:{site.port}"
    site.files = {
        "/a.mp4": f"{there}/b.mp4?signature=x",
        "/b.mp4?signature=x": b"video",
        "/relative": "/b.mp4?signature=x",
        "/inside": f"https://inside.test:{site.port}/b.mp4",
        "/plain": f"http://media.test:{site.port}/b.mp4",
        "/file": "file:///etc/passwd",
        "/circle": f"{here}/circle",
    }
    for path in ("/a.mp4", "/relative", "/b.mp4?signature=x"):
        state = WebServer().head(at(site, path))
        assert (state.size_bytes, state.etag) == (5, '"1"')
        assert b"".join(WebServer().read(at(site, path), state, start=0)) == b"video"
    assert "GET other.test/b.mp4?signature=x" in site.requests
    for path, reason in {"/inside": "forbidden", "/plain": "forbidden", "/file": "forbidden"}.items():
        with pytest.raises(StoreError) as caught:
            WebServer().head(at(site, path))
        assert (caught.value.reason, caught.value.is_temporary) == (reason, False), path
    with pytest.raises(StoreError, match="more than 5 redirects"):
        WebServer().head(at(site, "/circle"))


def test_another_address_of_the_host_is_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the first one is of IPv6, and this machine has no route to it."""
    site.files["/a.mp4"] = b"video"
    look_up = socket.getaddrinfo

    def both(host: str, port: int, **options: Any) -> list[Any]:
        (alive,) = look_up(host, port, **options)
        return [(*alive[:4], ("127.0.0.1", 1)), alive]

    monkeypatch.setattr(web.socket, "getaddrinfo", both)
    assert WebServer().head(at(site, "/a.mp4")).size_bytes == 5


def test_certificates_are_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/a.mp4"] = b"video"
    monkeypatch.setattr(web, "tls_context", ssl.create_default_context)
    with pytest.raises(StoreError, match="certificate cannot be verified"):
        WebServer().head(at(site, "/a.mp4"))


@pytest.mark.parametrize("has_ranges", [True, False])
def test_reading_from_the_middle(site: Site, *, has_ranges: bool) -> None:
    site.files["/a.mp4"], site.has_ranges = bytes(range(256)) * 8192, has_ranges
    state = WebServer().head(at(site, "/a.mp4"))
    rest = b"".join(WebServer().read(at(site, "/a.mp4"), state, start=1_500_000))
    assert rest == (bytes(range(256)) * 8192)[1_500_000:]
    site.etag = '"2"'
    with pytest.raises(StoreError) as caught:
        b"".join(WebServer().read(at(site, "/a.mp4"), state, start=0))
    assert caught.value.reason is Trouble.CHANGED_WHILE_READ


def test_presigned_urls_leave_no_signature(
    site: Site, videos: Path, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    content = (videos / "sound.mp4").read_bytes()
    site.files["/sound.mp4?X-Amz-Signature=SECRETSIGNATURE"] = content
    site.cut_bytes = len(content) // 2
    site.files["/text.mp4?sig=SECRETSIGNATURE"] = b"this is no video" * 100
    site.files["/empty.mp4?sig=SECRETSIGNATURE"] = b""
    rows = [
        f"https://media.test:{site.port}/sound.mp4?X-Amz-Signature=SECRETSIGNATURE",
        f"https://media.test:{site.port}/text.mp4?sig=SECRETSIGNATURE",
        f"https://media.test:{site.port}/empty.mp4?sig=SECRETSIGNATURE",
        f"https://media.test:{site.port}/gone.mp4?sig=SECRETSIGNATURE",
        f"https://inside.test:{site.port}/a.mp4?sig=SECRETSIGNATURE",
        f"https://unknown.test:{site.port}/a.mp4?sig=SECRETSIGNATURE",
    ]
    (tmp_path / "m.csv").write_text("\n".join(["path", *rows]) + "\n")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "m.csv")
    assert "6 locations that cannot be read" in str(caught.value)
    manifest = read_manifest(tmp_path / "m.csv", allow_https=True)
    done = run(manifest)
    cache = Cache.open(done.cache)
    assert cache.media["id"].tolist() == [f"https://media.test:{site.port}/sound.mp4"]
    assert [row.reason for row in cache.failures] == [
        "not_media",
        "empty_file",
        "not_found",
        "forbidden",
        "fetch_failed",
    ]
    assert all(b"SECRETSIGNATURE" not in shard.read_bytes() for shard in shard_paths(done.cache))
    assert "SECRETSIGNATURE" not in f"{caught.value} {manifest} {done} {cache.failures}"
    assert run(manifest).num_new == 0


def test_states_of_files_that_differ_in_their_queries_alone(site: Site) -> None:
    site.files = {"/video?id=1": b"first", "/video?id=2": b"second one"}
    first, second = (at(site, f"/video?id={number}") for number in (1, 2))
    found = current_states([first, second, first])
    assert {file: state.size_bytes for file, state in found.items() if state} == {first: 5, second: 10}


def test_a_web_server_is_no_folder() -> None:
    with pytest.raises(ManifestError, match="'https://host/videos': a web server has no listing"):
        located("https://host/videos?sig=SECRET")
