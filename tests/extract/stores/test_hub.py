"""Repositories of the Hugging Face Hub, with a server on this machine that speaks a part of its protocol."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from haechi.cache.errors import HaechiError
from haechi.cache.reader import Cache
from haechi.cache.stores import retry
from haechi.cache.stores.check import refuse_unusable_stores
from haechi.cache.stores.location import Location
from haechi.extract.decoding.files import sha256_of
from haechi.extract.manifest import located, read_manifest
from haechi.extract.pipeline import Extraction

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The files of the data set `name/set`, by path."""
    files: dict[str, bytes] = {}

    def described(path: str) -> dict[str, Any]:
        digest = hashlib.sha256(files[path]).hexdigest()
        lfs = {"oid": digest, "size": len(files[path]), "pointerSize": 100}
        return {"type": "file", "path": path, "size": len(files[path]), "oid": digest[:40], "lfs": lfs}

    class Handler(BaseHTTPRequestHandler):
        def send(self, content: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            if path.startswith("/api/datasets/name/set/tree/"):
                self.send(json.dumps([described(each) for each in sorted(files)]).encode())
            elif path.startswith("/api/datasets/name/set"):
                self.send(json.dumps({"id": "name/set", "sha": COMMIT}).encode())
            elif path.startswith(f"/datasets/name/set/resolve/{COMMIT}/"):
                self.send(files[path.partition(f"{COMMIT}/")[2]])
            else:
                self.send(b"{}", 404, X_Error_Code="RepoNotFound")

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            paths = (
                json.loads(asked)["paths"]
                if asked.startswith("{")
                else [unquote(asked.partition("=")[2].partition("&")[0])]
            )
            self.send(json.dumps([described(path) for path in paths if path in files]).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01,))
        yield files
        server.shutdown()


def test_a_data_set_of_the_hub(
    hub: dict[str, bytes], videos: Path, run: Callable[..., Extraction], tmp_path: Path
) -> None:
    for name in ("harmful/sound.mp4", "safe/one_frame.mp4", "safe/text.mp4", "README.md"):
        source = videos / Path(name).name
        hub[f"clips/{name}"] = source.read_bytes() if source.exists() else b"#"
    manifest = read_manifest(located("hf://datasets/name/set@main/clips"))
    assert [(entry.id, entry.label) for entry in manifest.entries] == [
        ("harmful/sound.mp4", 1),
        ("safe/one_frame.mp4", 0),
        ("safe/text.mp4", 0),
    ]
    cache = Cache.open(run(manifest).cache)
    assert cache.media["sha256"].tolist() == [sha256_of(videos / name) for name in ("sound.mp4", "one_frame.mp4")]
    assert cache.media["etag"].tolist() == cache.media["sha256"].tolist()
    (tmp_path / "m.csv").write_text(
        "id,path\nharmful/sound.mp4,hf://datasets/name/set/clips/harmful/sound.mp4\n"
        "gone.mp4,hf://datasets/name/set/clips/gone.mp4\n"
    )
    done = run(read_manifest(tmp_path / "m.csv"))
    assert (done.num_new, done.num_used, done.failures) == (1, 1, {"not_found": 1})


def test_a_repository_that_is_not_there(hub: dict[str, bytes]) -> None:
    with pytest.raises(HaechiError, match="'hf://datasets/name/other': there is no such repository or revision"):
        refuse_unusable_stores([Location.parse("hf://datasets/name/other/a.mp4")])
