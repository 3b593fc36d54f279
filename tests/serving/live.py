"""A server on a real socket of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bge_rerank_integrations.serving.app import create_app
from bge_rerank_integrations.serving.http_server import make_server
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import Engine, loads


@contextmanager
def live_server(
    engine: Engine | Mapping[str, Engine],
    settings: ServerSettings | None = None,
    **options: Any,
) -> Iterator[str]:
    """Run a server in a thread.

    :param options: more arguments of its HTTP server.
    :returns: its URL.
    """
    # asyncio switches off Nagle's algorithm, 40 ms here, only where the protocol is named
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        settings = settings or ServerSettings()
        app = create_app(loads(engine), settings)
        server = make_server(app, settings, **options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not (server.started and app.state.service.is_ready):
                assert thread.is_alive()
                time.sleep(0.005)
            host, port = listening.getsockname()
            yield f"{'https' if 'ssl_certfile' in options else 'http'}://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join()
