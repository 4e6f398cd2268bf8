"""First on a notebook kernel's path: Python there can connect to this machine alone."""

import socket

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
LOCAL = ("127.0.0.1", "::1", "localhost", None)


def connect_locally(self, address):
    if isinstance(address, tuple) and address[0] not in LOCAL:
        raise OSError(f"the tests have no network: {address}")
    return connect(self, address)


def look_up_locally(host, *args, **kwargs):
    if host not in LOCAL:
        raise OSError(f"the tests have no network: {host}")
    return getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.getaddrinfo = connect_locally, look_up_locally
