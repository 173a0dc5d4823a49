"""Streams on this machine as cameras send them: MJPEG by HTTP, MPEG-TS by UDP and by RTSP."""

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Bytes of a packet of MPEG-TS, and how many of them a datagram takes.
_TS, _TOGETHER = 188, 7


def _datagrams(content: bytes) -> list[bytes]:
    """A transport stream in pieces that fit into a network's packets."""
    return [content[start : start + _TS * _TOGETHER] for start in range(0, len(content), _TS * _TOGETHER)]


@contextmanager
def _served(handle) -> Iterator[int]:
    """Port on which each client is handled by a function of its connection."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    handle(connection)
                except OSError:
                    # The client has seen enough.
                    pass

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    ended.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


@contextmanager
def mjpeg(pictures: Sequence[bytes], rate: float) -> Iterator[str]:
    """URL of a camera that sends JPEG pictures one after the other, so many a second."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        for picture in pictures:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            connection.sendall(head.encode() + picture + b"\r\n")
            time.sleep(1 / rate)

    with _served(handle) as port:
        yield f"http://127.0.0.1:{port}/video.mjpg"


@contextmanager
def udp(content: bytes, seconds: float) -> Iterator[str]:
    """URL to which a transport stream is sent, again and again, each time in so many seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ended = threading.Event()

    def send() -> None:
        pieces = _datagrams(content)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not ended.is_set():
                for piece in pieces:
                    try:
                        sender.sendto(piece, ("127.0.0.1", port))
                    except OSError:
                        # Nobody listens yet.
                        pass
                    time.sleep(seconds / len(pieces))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield f"udp://127.0.0.1:{port}"
    ended.set()
    thread.join(5)


@contextmanager
def rtsp(content: bytes, password: str = "") -> Iterator[str]:
    """URL of a camera that sends a transport stream by RTSP, in the connection itself."""
    description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
    description += "a=rtpmap:33 MP2T/90000\r\na=control:track1\r\n"

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as requests:
            while line := requests.readline():
                method, number = line.split()[0].decode(), "0"
                while header := requests.readline().strip():
                    key, _, value = header.decode().partition(":")
                    number = value.strip() if key.lower() == "cseq" else number
                answer = [f"RTSP/1.0 200 OK\r\nCSeq: {number}"]
                body = ""
                if method == "OPTIONS":
                    answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                elif method == "DESCRIBE":
                    body = description
                    answer.append(f"Content-Type: application/sdp\r\nContent-Length: {len(body)}")
                elif method == "SETUP":
                    answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1")
                connection.sendall(("\r\n".join(answer) + "\r\n\r\n" + body).encode())
                if method == "PLAY":
                    for count, piece in enumerate(_datagrams(content)):
                        packet = struct.pack(">BBHII", 0x80, 33, count, count * 3000, 1) + piece
                        connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                    return

    with _served(handle) as port:
        yield f"rtsp://{'ada:' + password + '@' if password else ''}127.0.0.1:{port}/live"
