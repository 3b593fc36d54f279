"""Record what each library of ``docs/clients.md`` sends: ``python -m serving.record_clients``.

Run it in ``tests`` with the extra ``clients`` installed; ``recordings.json`` then has the bytes of
every library, for tests on machines without them.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.fake_engine import FakeEngine
from serving.live import live_server
from serving.test_clients import CLIENTS, KEY, NAMES, ROWS

RECORDINGS = Path(__file__).with_name("recordings.json")


@contextlib.contextmanager
def recording(server: str) -> Iterator[tuple[str, bytearray]]:
    """A relay before a server, and all bytes that its clients send."""
    host, port = server.removeprefix("http://").split(":")
    sent = bytearray()

    def pump(source: socket.socket, target: socket.socket, copy: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if copy is not None:
                    copy.extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=pump, args=[server, client, None], daemon=True).start()
        pump(client, server, sent)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=serve, args=[client], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", sent


def last_post(sent: bytes) -> dict[str, Any]:
    """The last request with a body: its head without what differs each time, and its body."""
    start = [found.start() for found in re.finditer(rb"POST \S+ HTTP/1\.1\r\n", sent)][-1]
    head, _, rest = sent[start:].partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    is_chunked = any(line.lower() == "transfer-encoding: chunked" for line in lines)
    body = rest.split(b"\r\n")[1] if is_chunked else rest
    # of this request, or of this machine
    differ = re.compile(
        r"(?i)(host|content-length|traceparent|.*(request|trace|idempot|session)[^:]*id[^:]*|"
        r"x-fern-platform|x-stainless-(os|arch|runtime.*)):|.*platform/"
    )
    return {
        "head": [line for line in lines if not differ.match(line)],
        "body": json.loads(body),
    }


def main() -> None:
    """Record every client that is installed here."""
    recordings = json.loads(RECORDINGS.read_text("utf-8")) if RECORDINGS.exists() else {}
    with live_server(dict.fromkeys(NAMES, FakeEngine())) as server:
        for name, path in ROWS:
            if name not in CLIENTS:
                continue
            with recording(server) as (url, sent):
                try:
                    CLIENTS[name][0](url + path)
                except BaseException as error:
                    sys.stderr.write(f"{name}: {type(error).__name__}: {error}"[:300] + "\n")
                    continue
            assert KEY.encode() in sent or b"uthorization" not in sent
            recordings[name] = last_post(bytes(sent))
    RECORDINGS.write_text(json.dumps(recordings, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
