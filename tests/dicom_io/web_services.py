"""A real HTTP server on a free port that answers as a test wants."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What it answers; ``endless`` goes on with the body until the client leaves."""

    status: int
    body: bytes = b""
    content_type: str = "application/dicom+json"
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False


@dataclass
class WebServer:
    """Where it listens, and all that it was asked."""

    url: str
    requests: list[Request]


@contextmanager
def web_server(answer: Callable[[Request], Answer]) -> Iterator[WebServer]:
    """Serve until the end of the block."""
    asked: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(
                self.command, self.path, dict(self.headers.items()), self.rfile.read(length)
            )
            asked.append(request)
            given = answer(request)
            self.send_response(given.status)
            self.send_header("Content-Type", given.content_type)
            for name, value in given.headers.items():
                self.send_header(name, value)
            if given.endless:
                self.send_header("Connection", "close")
                self.end_headers()
                self._pour(given.body)
                return
            self.send_header("Content-Length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body)

        def _pour(self, body: bytes) -> None:
            try:
                while True:
                    self.wfile.write(body)
            except OSError:
                self.close_connection = True

        do_GET = do_POST = _serve  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield WebServer(f"http://127.0.0.1:{server.server_address[1]}/dicom-web", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
