"""What video_publisher_node plays: files, folders, boxes beside them, the made-up scene."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.geometry import Box
from siam_tracker_ros.nodes.synthetic_scene import SyntheticScene
from siam_tracker_ros.nodes.video_sources import SourceError, open_source, read_boxes
from siam_tracker_ros.tracking import ColourFinder

ORANGE_RGB = (230, 120, 30)


def test_a_folder_with_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for name, shade in (("0002.png", 20), ("0001.png", 10), ("0003.png", 30)):
        cv2.imwrite(str(folder / name), np.full((8, 10, 3), shade, np.uint8))
    (tmp_path / "clip.txt").write_text("0,0,4,4\n1.5, 2, 3, 4\n")
    views = list(open_source(str(folder)).views())
    assert [int(v.pixels[0, 0, 0]) for v in views] == [10, 20, 30]
    assert [v.index for v in views] == [0, 1, 2]
    assert views[0].box == Box(1.5, 1.5, 4.0, 4.0)
    assert views[1].box == Box.from_xywh(1.5, 2.0, 3.0, 4.0)
    assert (views[2].known, views[2].box) == (False, None)


def test_the_otb_layout(tmp_path: Path) -> None:
    (tmp_path / "seq" / "img").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "seq" / "img" / "0001.jpg"), np.zeros((8, 10, 3), np.uint8))
    (tmp_path / "seq" / "groundtruth_rect.txt").write_text("1\t2\t3\t4\n")
    (view,) = open_source(str(tmp_path / "seq")).views()
    assert view.box == Box.from_xywh(0, 1, 3, 4)  # OTB counts from 1


def test_a_video_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 48))
    for i in range(4):
        writer.write(np.full((48, 64, 3), 50 * i, np.uint8))
    writer.release()
    (tmp_path / "clip.txt").write_text("1,1,10,10\n\n0,0,0,0\nnan,nan,nan,nan\n2,2,10,10\n")
    source = open_source(str(path))
    assert source.rate == 25.0 and not source.live
    for _ in range(2):  # it can be played again
        views = list(source.views())
        assert len(views) == 4
        assert [v.known for v in views] == [True] * 4
        assert [v.box is not None for v in views] == [True, False, False, True]
        assert abs(int(views[2].pixels.mean()) - 100) < 5


def test_boxes_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(SourceError, match="line 2: x,y,w,h are needed"):
        read_boxes(path)


@pytest.mark.parametrize("name", ["none.mp4", "empty", "text.mp4", "camera:97"])
def test_sources_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match=r"no video file|no pictures|cannot be opened"):
        open_source(name if name.startswith("camera") else str(tmp_path / name))


def test_the_scene_is_the_same_for_the_same_seed() -> None:
    first, second = (SyntheticScene(seed=4).view(30) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.box == second.box
    assert not np.array_equal(first.pixels, SyntheticScene(seed=5).view(30).pixels)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (320, 240)])
def test_the_scenes_ground_truth_is_where_the_thing_is(size: tuple[int, int]) -> None:
    scene = SyntheticScene(*size, frames=600)
    find = ColourFinder(ORANGE_RGB)
    sizes, centres = [], []
    for index in range(0, 600, 37):
        view = scene.view(index)
        assert view.pixels.shape == (size[1], size[0], 3) and view.known
        seen = find(view.pixels[..., ::-1], (1.0, 1.0))
        assert view.box is not None and seen.box.iou(view.box) > 0.9 and seen.score > 0.95
        sizes.append(view.box.w)
        centres.append(view.box.cx)
    assert max(sizes) / min(sizes) > 1.5
    assert max(centres) - min(centres) > size[0] / 3


def test_the_thing_can_be_out_of_sight() -> None:
    scene = SyntheticScene(frames=5, absent=(2, 4))
    views = list(scene.views())
    assert [v.box is not None for v in views] == [True, True, False, False, True]
    hidden = ColourFinder(ORANGE_RGB)(views[2].pixels[..., ::-1], (1.0, 1.0))
    assert hidden.score == 0.0
    assert len(list(itertools.islice(SyntheticScene(frames=0).views(), 700))) == 700
