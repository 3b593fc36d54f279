"""RemoteReranker in a forked process; a real service, for its connections are what matters."""

from __future__ import annotations

import json
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bge_rerank_integrations import RemoteReranker


class TellsConnections(BaseHTTPRequestHandler):
    """Scores every document with the port of the client's end of the connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        result = {"index": 0, "relevance_score": self.client_address[1]}
        content = json.dumps({"results": [result]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.enable_socket
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_a_connection_of_its_own() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), TellsConnections) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with RemoteReranker(f"http://127.0.0.1:{server.server_port}") as reranker:
                port = reranker.rerank("q", ["d"])[0].score
                assert reranker.rerank("q", ["d"])[0].score == port
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    child = os.fork()
                if not child:
                    try:
                        os._exit(int(reranker.rerank("q", ["d"])[0].score == port))
                    finally:
                        os._exit(2)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert reranker.rerank("q", ["d"])[0].score == port
        finally:
            server.shutdown()
            thread.join()
