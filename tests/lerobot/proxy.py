"""A network between two programs of this machine, as bad as a test wants it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Passes bytes on between whoever connects to `port` and a server; each direction in a thread of its own.

    Attributes:
        port: Where to connect to.
        delay_s: How much later every piece arrives [s].

    Args:
        server_port: Of the server, on this machine.
    """

    def __init__(self, server_port: int) -> None:
        self.delay_s = 0.0
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection, and every new one, until `mend`."""
        self._is_cut = True
        self._drop()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def close(self) -> None:
        """Drop everything for good."""
        self._is_cut = True
        _close(self._listener)
        self._drop()

    def _drop(self) -> None:
        while self._sockets:
            _close(self._sockets.pop())

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self._connect(self._listener.accept()[0])

    def _connect(self, client: socket.socket) -> None:
        try:
            if self._is_cut:
                raise OSError("the wire is cut")
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            _close(client)
            return
        self._sockets += [client, server]
        for ends in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                time.sleep(self.delay_s)
                target.sendall(piece)
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
