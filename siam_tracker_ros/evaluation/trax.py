"""TraX, the protocol by which the VOT toolkit drives a tracker: the tracker's side of it.

A message is a line ``@@TRAX:name "argument" "key=value"``; other lines are no messages. The tracker
introduces itself (``hello``), is given an object and images (``initialize``, ``frame``), and answers
each image with a region (``state``), until one side says ``quit``. Version 4 gives the object and
its first image in two messages; versions 1 to 3 give both in ``initialize``. Both are understood.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from siam_tracker_ros.evaluation.frames import Frame
from siam_tracker_ros.evaluation.protocol import Answer, FrameTracker, Xywh

PREFIX = "@@TRAX:"
VERSION = 4
MOST_BYTES = 256 * 2**20
"""Of a line, and of a picture: more is refused before it is stored."""

_KEY = re.compile(r"[0-9A-Za-z._]{1,64}")
_CHANNELS = {"rgb": 3, "gray8": 1, "gray16": 1}


class TraxError(RuntimeError):
    """The other side said something that cannot be understood, or that cannot be done."""


@dataclass(frozen=True)
class Message:
    """One message: its name, its arguments, and its named properties."""

    name: str
    arguments: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return the message as it is sent, with its end of line."""
        words = [*self.arguments, *(f"{k}={v}" for k, v in self.properties.items())]
        return " ".join([f"{PREFIX}{self.name}", *(f'"{_escaped(w)}"' for w in words)]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def parse_message(line: str) -> Message | None:
    """Return the message in a line; None if the line holds none.

    Raises:
        TraxError: if it begins as a message and goes on as none.
    """
    line = line.rstrip("\r\n")
    if not line.startswith(PREFIX):
        return None
    name, _, rest = line[len(PREFIX) :].partition(" ")
    arguments, properties = [], {}
    for word in _words(rest):
        key, equals, value = word.partition("=")
        # An '=' may also end a picture in base64, which has no such key before it.
        if equals and _KEY.fullmatch(key):
            properties[key] = value
        else:
            arguments.append(word)
    return Message(name.lower(), tuple(arguments), properties)


# Written so that a picture of many megabytes is one step, and nothing is tried twice.
_WORD = re.compile(r' *(?:"([^"\\]*(?:\\.[^"\\]*)*)"|(?=[^" ])([^" \\]*(?:\\.[^" \\]*)*))(?= |$)')


def _words(text: str) -> list[str]:
    words, at = [], 0
    text = text.rstrip(" ")
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            raise TraxError(f"not a TraX message from {text[at : at + 40]!r} on")
        raw = found[1] if found[1] is not None else found[2]
        if "\\" in raw:
            raw = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], raw)
        words.append(raw)
        at = found.end()
    return words


def parse_region(text: str) -> Xywh:
    """Return x,y,w,h of a rectangle (four numbers), or around a polygon (six or more).

    Raises:
        TraxError: if it is neither, or has no extent.
    """
    try:
        numbers = [float(v) for v in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        x, y, w, h = numbers
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        x, y = min(numbers[0::2]), min(numbers[1::2])
        w, h = max(numbers[0::2]) - x, max(numbers[1::2]) - y
    else:
        raise TraxError(f"a rectangle or a polygon is wanted, got {text[:60]!r}")
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
        raise TraxError(f"a region with an extent is wanted, got {text[:60]!r}")
    return x, y, w, h


def read_image(uri: str) -> Frame:
    """Return uint8 [H,W,3] BGR of a picture given by path, as raw memory, or as a file's bytes.

    Raises:
        TraxError: if it is none of these, too large, or cannot be decoded.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "image":
        return _memory_image(rest)
    if colon and scheme == "data":
        # "data:image/png;BASE64"; the specification also has "data:image/png;base64;BASE64"
        kind, _, text = rest.partition(";")
        text = text.removeprefix("base64;").removeprefix("base64,")
        return _decoded(_from_base64(text), f"a picture of type {kind[:30]!r}")
    if colon and scheme == "file":
        rest = rest.removeprefix("//")
    elif colon and re.fullmatch(r"[a-z+.-]{2,}", scheme):
        raise TraxError(f"pictures are taken from paths and from memory, not from {scheme}:")
    else:
        rest = uri
    path = Path(rest)
    if not path.is_file():
        raise TraxError(f"no such picture: {path}")
    if path.stat().st_size > MOST_BYTES:
        raise TraxError(f"{path}: larger than {MOST_BYTES} bytes")
    return _decoded(path.read_bytes(), str(path))


def _decoded(data: bytes, what: str) -> Frame:
    frame = None
    if data:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise TraxError(f"{what}: cannot be decoded as a picture")
    return np.asarray(frame, dtype=np.uint8)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise TraxError(f"a picture in base64 is wanted: {error}") from None


def _memory_image(text: str) -> Frame:
    """Decode ``WIDTH;HEIGHT;FORMAT;BASE64``."""
    parts = text.split(";", 3)
    if len(parts) != 4 or not (parts[0].isdigit() and parts[1].isdigit()):
        raise TraxError(f"image:WIDTH;HEIGHT;FORMAT;DATA is wanted, got {text[:40]!r}")
    if parts[2] not in _CHANNELS:
        raise TraxError(f"a picture in {', '.join(_CHANNELS)} is wanted, got {parts[2][:20]!r}")
    width, height = int(parts[0]), int(parts[1])
    channels, kind = _CHANNELS[parts[2]], np.dtype("<u2" if parts[2] == "gray16" else "u1")
    size = width * height * channels * kind.itemsize
    data = _from_base64(parts[3])
    if size == 0 or len(data) != size:
        raise TraxError(
            f"a picture of {width}x{height} {parts[2]} has {size} bytes, got {len(data)}"
        )
    pixels = np.frombuffer(data, kind).reshape(height, width, channels)
    if channels == 3:
        return np.ascontiguousarray(pixels[:, :, ::-1])
    gray = (pixels >> 8) if kind.itemsize == 2 else pixels
    return np.asarray(np.repeat(gray.astype(np.uint8), 3, axis=2))


class TraxServer:
    """Answers one client's messages with a tracker, until it quits.

    Args:
        reading: where the client's messages come from.
        writing: where the answers go.
        tracker: what tracks.
        name: what the tracker is called.
    """

    def __init__(
        self, reading: BinaryIO, writing: BinaryIO, tracker: FrameTracker, name: str
    ) -> None:
        self._reading, self._writing = reading, writing
        self._tracker, self._name = tracker, name

    def serve(self) -> int:
        """Introduce the tracker and answer until the client quits; returns the frames tracked.

        Raises:
            TraxError: if a message cannot be understood or followed; the client is told why.
        """
        properties = {
            "trax.version": str(VERSION),
            "trax.name": self._name,
            "trax.family": "siam_tracker_ros",
            "trax.image": "path;memory;buffer;",
            "trax.region": "rectangle;polygon;",
            "trax.channels": "color;",
        }
        self._send(Message("hello", (), properties))
        try:
            return self._answer_all()
        except TraxError as error:
            self._send(Message("quit", (), {"trax.reason": str(error)}))
            raise

    def _answer_all(self) -> int:
        frames = 0
        selected: Xywh | None = None  # given, but its image is still to come
        tracking = False
        while True:
            message = self._receive()
            if message is None or message.name == "quit":
                return frames
            given = message.arguments
            if message.name == "initialize" and not given:
                selected, tracking = None, False
            elif message.name == "initialize" and len(given) == 1:
                if selected is not None or tracking:
                    raise TraxError("one object can be followed at a time")
                selected = parse_region(given[0])
            elif message.name == "initialize" and len(given) == 2:
                answer = self._start(given[0], parse_region(given[1]))
                tracking, frames = True, frames + 1
                self._reply(answer)
            elif message.name == "frame" and len(given) == 1 and (tracking or selected):
                if selected is not None:
                    answer = self._start(given[0], selected)
                    selected, tracking = None, True
                else:
                    answer = self._tracker.track(read_image(given[0]))
                frames += 1
                self._reply(answer)
            elif message.name == "frame" and len(given) == 1:
                raise TraxError("a frame came before an object was given")
            else:
                raise TraxError(
                    f"{message.name!r} with {len(given)} arguments is no message to a tracker"
                )

    def _start(self, uri: str, box: Xywh) -> Answer:
        frame = read_image(uri)
        try:
            return self._tracker.start(frame, box)
        except ValueError as error:  # a selection that the tracker refuses
            raise TraxError(f"cannot start at {box}: {error}") from error

    def _reply(self, answer: Answer) -> None:
        region = ",".join(f"{v:.4f}" for v in answer.box)
        properties = {}
        if math.isfinite(answer.score):
            properties["confidence"] = f"{answer.score:.6f}"
        self._send(Message("state", (region,), properties))

    def _send(self, message: Message) -> None:
        self._writing.write(message.line().encode("utf-8"))
        self._writing.flush()

    def _receive(self) -> Message | None:
        while True:
            line = self._reading.readline(MOST_BYTES)
            if not line:
                return None
            if len(line) == MOST_BYTES:
                raise TraxError(f"a line is longer than {MOST_BYTES} bytes")
            message = parse_message(line.decode("utf-8", errors="replace"))
            if message is not None:
                return message


def client_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return where the client's messages come from and where answers go.

    That is the port of this machine that ``TRAX_SOCKET`` names, else standard input and output;
    what this process prints from then on goes to standard error, so that it ends in no message.

    Raises:
        TraxError: if there is no client at that port.
    """
    port = os.environ.get("TRAX_SOCKET")
    if port:
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise TraxError(f"TRAX_SOCKET is {port!r}, a port number is wanted")
        try:
            link = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
        except OSError as error:
            raise TraxError(f"no TraX client at port {port} (TRAX_SOCKET): {error}") from None
        link.settimeout(None)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link.makefile("rb"), link.makefile("wb")
    writing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, writing
