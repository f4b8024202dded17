"""The tracker's side of TraX, against messages as libtrax 4.0.2 sends them."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation import Answer
from siam_tracker_ros.evaluation.trax import (
    Message,
    TraxError,
    TraxServer,
    client_streams,
    parse_message,
    parse_region,
    read_image,
)

REPOSITORY = Path(__file__).parents[2]


class FollowsByOne:
    """Answers the selection moved by a pixel a frame; the score is the picture's mean."""

    def start(self, frame, box):
        if box[2] > 1000:
            raise ValueError("larger than the picture")
        self.box = box
        return Answer(box, float(frame.mean()) / 1000)

    def track(self, frame):
        x, y, w, h = self.box
        self.box = (x + 1, y, w, h)
        return Answer(self.box, float(frame.mean()) / 1000, "TRACKING")


def serve(*lines: str) -> list[Message]:
    """What the tracker sends to a client that says ``lines``."""
    reading = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    writing = io.BytesIO()
    with contextlib.suppress(TraxError):
        TraxServer(reading, writing, FollowsByOne(), 'my "own"').serve()
    sent = [parse_message(line) for line in writing.getvalue().decode().splitlines()]
    assert all(m is not None for m in sent)
    return [m for m in sent if m is not None]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "a picture.png"
    cv2.imwrite(str(file), np.full((20, 30, 3), 100, np.uint8))
    return file


def test_messages_go_there_and_back():
    message = Message("state", ("1,2,3,4", 'a "b" \\ c\nd'), {"key.x_1": "with = and \\"})
    line = message.line()
    assert line.startswith('@@TRAX:state "1,2,3,4" "a \\"b\\"') and line.count("\n") == 1
    assert parse_message(line) == message
    assert parse_message("a tracker's own words\n") is None
    assert parse_message("@@TRAX:quit \n") == Message("quit")
    # unquoted words, and base64 whose padding is no property
    assert parse_message("@@TRAX:frame file:///a\\ b.jpg x=y\r\n") == Message(
        "frame", ("file:///a b.jpg",), {"x": "y"}
    )
    assert parse_message('@@TRAX:frame "image:1;1;rgb;AA=="').arguments == ("image:1;1;rgb;AA==",)
    for wrong in ('"open end', '"a"b', 'a  "b', "a" * 60 + '"', "ends in \\"):
        with pytest.raises(TraxError, match="not a TraX message from"):
            parse_message(f"@@TRAX:frame {wrong}")


def test_regions():
    assert parse_region("1.5,2,3,4") == (1.5, 2, 3, 4)
    assert parse_region("1,2,5,8,3,1") == (1, 1, 4, 7), "the box around a polygon"
    for wrong in ("1,2,3", "1,2,3,4,5", "m0,0,3,3,1,2", "1,2,0,4", "nan,2,3,4", ""):
        with pytest.raises(TraxError, match="is wanted, got"):
            parse_region(wrong)


def test_pictures_by_path_and_from_memory(picture: Path):
    frame = read_image(f"file://{picture}")
    assert frame.shape == (20, 30, 3) and read_image(str(picture)).shape == (20, 30, 3)
    encoded = base64.b64encode(picture.read_bytes()).decode()
    assert (read_image(f"data:image/png;{encoded}") == frame).all()
    assert (read_image(f"data:image/png;base64;{encoded}") == frame).all()
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    memory = read_image(f"image:3;2;rgb;{base64.b64encode(rgb.tobytes()).decode()}")
    assert (memory == rgb[:, :, ::-1]).all(), "BGR here"
    gray = read_image(f"image:2;1;gray8;{base64.b64encode(bytes([7, 9])).decode()}")
    assert gray.tolist() == [[[7] * 3, [9] * 3]]
    deep = np.array([[0x0102, 0xFF00]], "<u2").tobytes()
    assert read_image(f"image:2;1;gray16;{base64.b64encode(deep).decode()}")[0, :, 0].tolist() == [
        1,
        255,
    ]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///nowhere.jpg", "no such picture: /nowhere.jpg"),
        ("http://example.com/a.jpg", "not from http:"),
        ("image:99999;99999;rgb;AAAA", "has 29999400003 bytes, got 3"),
        ("image:0;2;rgb;", "has 0 bytes"),
        ("image:2;2;rgba;AAAA", "rgb, gray8, gray16 is wanted, got 'rgba'"),
        ("image:-2;2;rgb;AAAA", "WIDTH;HEIGHT;FORMAT;DATA is wanted"),
        ("image:1;1;rgb;A", "base64 is wanted"),
        ("data:image/png;AAAA", "cannot be decoded"),
        ("data:image/png;", "cannot be decoded"),
    ],
)
def test_pictures_that_are_refused(uri: str, message: str):
    with pytest.raises(TraxError, match=message):
        read_image(uri)


def test_a_session_of_version_4(picture: Path):
    hello, first, second, again = serve(
        '@@TRAX:initialize "5.0000,6.0000,7.0000,8.0000" ',
        f'@@TRAX:frame "file://{picture}" ',
        "the toolkit's own words",
        f'@@TRAX:frame "file://{picture}" ',
        "@@TRAX:initialize ",
        '@@TRAX:initialize "1,2,6,3,4,9" "object.id=7" ',
        f'@@TRAX:frame "file://{picture}" ',
        "@@TRAX:quit ",
        "@@TRAX:frame after the end",
    )
    assert (hello.name, hello.properties["trax.version"]) == ("hello", "4")
    assert hello.properties["trax.name"] == 'my "own"'
    assert "memory" in hello.properties["trax.image"]
    assert "polygon" in hello.properties["trax.region"]
    assert first == Message("state", ("5.0000,6.0000,7.0000,8.0000",), {"confidence": "0.100000"})
    assert second.arguments == ("6.0000,6.0000,7.0000,8.0000",)
    assert again.arguments == ("1.0000,2.0000,5.0000,7.0000",)


def test_a_session_of_version_1(picture: Path):
    states = serve(
        f'@@TRAX:initialize "file://{picture}" "5,6,7,8"',
        f'@@TRAX:frame "file://{picture}"',
        f'@@TRAX:initialize "file://{picture}" "1,2,7,8"',
    )[1:]
    assert [m.arguments[0][:6] for m in states] == ["5.0000", "6.0000", "1.0000"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (['@@TRAX:frame "file://PICTURE"'], "a frame came before an object was given"),
        (['@@TRAX:initialize "1,2,3,4"', '@@TRAX:initialize "1,2,3,4"'], "one object"),
        (['@@TRAX:initialize "1,2,3,4"', '@@TRAX:frame "file:///gone.png"'], "no such picture"),
        (['@@TRAX:initialize "PICTURE" "1,2,9999,4"'], "cannot start at .*larger than the picture"),
        (["@@TRAX:dance"], "'dance' with 0 arguments"),
    ],
)
def test_what_cannot_be_done_is_told_to_the_client(picture: Path, lines: list[str], reason: str):
    hello, *_, last = serve(*(line.replace("PICTURE", str(picture)) for line in lines))
    assert (hello.name, last.name) == ("hello", "quit")
    assert re.search(reason, last.properties["trax.reason"])


def test_over_the_socket_that_the_toolkit_gives(picture: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("TRAX_SOCKET", str(server.getsockname()[1]))

        def track() -> None:
            with_client = client_streams()
            TraxServer(*with_client, FollowsByOne(), "toy").serve()

        thread = threading.Thread(target=track, daemon=True)
        thread.start()
        link, _ = server.accept()
        with link, link.makefile("rw", encoding="utf-8") as client:
            assert parse_message(client.readline()).name == "hello"
            client.write(f'@@TRAX:initialize "file://{picture}" "5,6,7,8"\n')
            client.flush()
            assert parse_message(client.readline()).name == "state"
            client.write("@@TRAX:quit \n")
            client.flush()
            thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(TraxError, match="no TraX client at port"):
        client_streams()
    monkeypatch.setenv("TRAX_SOCKET", "soon")
    with pytest.raises(TraxError, match="a port number is wanted"):
        client_streams()


def test_over_standard_streams_what_is_printed_is_no_message(picture: Path):
    code = (
        "from siam_tracker_ros.evaluation.trax import TraxServer, client_streams\n"
        "from siam_tracker_ros.evaluation.peers import StaticBox\n"
        "streams = client_streams()\n"
        "print('@@TRAX:quit from a library')\n"
        "print(TraxServer(*streams, StaticBox(), 'toy').serve(), 'frames')\n"
    )
    lines = f'@@TRAX:initialize "5,6,7,8"\n@@TRAX:frame "file://{picture}"\n@@TRAX:quit\n'
    environment = {k: v for k, v in os.environ.items() if k != "TRAX_SOCKET"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=lines,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    hello, state = (parse_message(line) for line in done.stdout.splitlines())
    assert (hello.name, state.arguments) == ("hello", ("5.0000,6.0000,7.0000,8.0000",))
    assert "from a library" in done.stderr and "1 frames" in done.stderr
