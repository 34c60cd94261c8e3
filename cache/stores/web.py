"""Files of web servers by https, never of an address inside the own network."""

import functools
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from haechi.cache.file_state import FileState
from haechi.cache.stores.errors import CHANGED, StoreError, Trouble, of_status
from haechi.cache.stores.location import Location
from haechi.cache.stores.store import CHUNK_BYTES, CONNECT_SECONDS, SILENCE_SECONDS

MAX_REDIRECTS = 5
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
REDIRECTS = (301, 302, 303, 307, 308)
NOTHING_IN_RANGE = 416  # of the first byte: the file is empty


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not private, loopback, link-local, multicast or reserved."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):  # some hold an address of IPv4
        inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in NAT64 else None
        found = inside or found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast


class _Connection(http.client.HTTPSConnection):
    """Connects to an address that was checked, so that a second look-up of the name cannot give another one."""

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [(family, place) for family, _, _, _, place in found]
        if any(not is_public(str(place[0])) for _, place in addresses):
            raise StoreError(Trouble.FORBIDDEN, "its host has an address inside a private network")
        for number, (family, place) in enumerate(addresses, start=1):
            try:
                self.sock = _secure_socket(family, place, self.host)
                return
            except OSError:  # as of IPv6, where a machine has no route to it
                if number == len(addresses):
                    raise


def _secure_socket(family: int, place: Any, host: str) -> ssl.SSLSocket:
    """Connected to an address, with the certificate of `host`."""
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.settimeout(CONNECT_SECONDS)
        plain.connect(place)
        plain.settimeout(SILENCE_SECONDS)
        return tls_context().wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@functools.cache  # it takes 20 ms
def tls_context() -> ssl.SSLContext:
    """Checks certificates and names."""
    return ssl.create_default_context()


class WebServer:
    """Any host."""

    def head(self, location: Location) -> FileState:
        # not HEAD: a presigned URL is signed for one method
        with _answer(location, {"Range": "bytes=0-0"}) as answer:
            return _state(answer)

    def read(self, location: Location, state: FileState, *, start: int) -> Iterator[memoryview]:
        headers = {"If-Match": state.etag} if state.etag and not state.etag.startswith("W/") else {}
        if start:
            headers["Range"] = f"bytes={start}-"
        with _answer(location, headers) as answer:
            skipped = 0 if answer.status == 206 else start  # a server may ignore the range
            if _state(answer).size_bytes != state.size_bytes:
                raise StoreError(Trouble.CHANGED_WHILE_READ, CHANGED)
            if state.etag and (answer.getheader("ETag") or state.etag) != state.etag:
                raise StoreError(Trouble.CHANGED_WHILE_READ, CHANGED)
            while chunk := answer.read(CHUNK_BYTES):
                rest, skipped = chunk[skipped:], max(0, skipped - len(chunk))
                if rest:
                    yield memoryview(rest)

    def pages(self, prefix: str) -> Iterator[list[tuple[str, FileState]]]:
        raise StoreError(Trouble.FETCH_FAILED, "a web server has no listing")


def _state(answer: http.client.HTTPResponse) -> FileState:
    length = (answer.getheader("Content-Range") or "").rpartition("/")[2] or answer.getheader("Content-Length") or ""
    if answer.status == NOTHING_IN_RANGE:
        length = "0"
    if not length.isdecimal():
        raise StoreError(Trouble.FETCH_FAILED, "the server does not say how long the file is")
    try:
        mtime_ns = int(parsedate_to_datetime(answer.getheader("Last-Modified") or "").timestamp()) * 10**9
    except ValueError:
        mtime_ns = 0
    return FileState(size_bytes=int(length), mtime_ns=max(0, mtime_ns), etag=answer.getheader("ETag") or "")


@contextmanager
def _answer(location: Location, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """The answer to GET, after redirects. Raises `StoreError`, without the address."""
    url = f"{location}{'?' + location.query if location.query else ''}"
    try:
        for _ in range(1 + MAX_REDIRECTS):
            parts = urlsplit(url)
            if parts.scheme != "https" or not parts.hostname:
                raise StoreError(Trouble.FORBIDDEN, "the server redirects to an address that is not https")
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
            connection = _Connection(parts.hostname, parts.port, context=tls_context())
            try:
                connection.request("GET", target, headers={"User-Agent": "haechi", **headers})
                answer = connection.getresponse()
                if answer.status in REDIRECTS and (place := answer.getheader("Location")):
                    url = urljoin(url, place)
                    continue
                if answer.status not in (200, 206, NOTHING_IN_RANGE):
                    raise of_status(answer.status)
                yield answer
                return
            finally:
                connection.close()
        raise StoreError(Trouble.FETCH_FAILED, f"more than {MAX_REDIRECTS} redirects")
    except TimeoutError:
        message = f"nothing arrived for {SILENCE_SECONDS:g} s"
        raise StoreError(Trouble.FETCH_TIMEOUT, message, is_temporary=True) from None
    except ssl.SSLCertVerificationError:
        raise StoreError(Trouble.FETCH_FAILED, "the server's certificate cannot be verified") from None
    except socket.gaierror:
        raise StoreError(Trouble.FETCH_FAILED, "the name of its host is not known", is_temporary=True) from None
    except (OSError, http.client.HTTPException):
        raise StoreError(Trouble.FETCH_FAILED, "the connection broke", is_temporary=True) from None
    except ValueError:
        raise StoreError(Trouble.FETCH_FAILED, "its address cannot be used") from None
