"""Serve WSGI applications on sockets that are bound already, in threads of their own."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

#: A WSGI application (PEP 3333).
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class QuietHandler(WSGIRequestHandler):
    """Speaks HTTP/1.1, logs nothing: requests can hold what must not be in a log."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Drop the line."""


def serve(
    application: Application,
    bound: socket.socket,
    context: ssl.SSLContext | None = None,
    handler: type[WSGIRequestHandler] = QuietHandler,
) -> BaseWSGIServer:
    """Serve an application on a bound socket, with TLS where a context is given; return the server."""
    server = make_server(
        bound.getsockname()[0],
        bound.getsockname()[1],
        application,
        threaded=True,
        request_handler=handler,
        ssl_context=context,
        fd=os.dup(bound.fileno()),
    )
    server.daemon_threads = True  # type: ignore[attr-defined]
    bound.close()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
    return server


def close(service: socket.socket | BaseWSGIServer) -> None:
    """Stop a server, or whoever receives from a socket, and close it."""
    if isinstance(service, socket.socket):
        with contextlib.suppress(OSError):
            service.shutdown(socket.SHUT_RDWR)  # wakes a thread in recvfrom; close alone does not
        service.close()
    else:
        service.shutdown()
        service.server_close()


def serve_files(directory: Path, prefix: str) -> Application:
    """Return an application that serves the files of one directory under a path."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        name = environ["PATH_INFO"].removeprefix(prefix).removeprefix("./")
        path = directory / name
        if "/" in name or not path.is_file():
            return Response("", 404)(environ, start_response)
        return Response(path.read_bytes(), mimetype="application/octet-stream")(environ, start_response)

    return application
