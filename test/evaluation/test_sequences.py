from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation.frames import ClipError, PictureFrames, open_frames
from siam_tracker_ros.evaluation.sequences import (
    SequenceError,
    read_boxes,
    read_sequence,
    read_sequences,
)
from siam_tracker_ros.evaluation.video import VideoFile


def make_clip(path: Path, frames: int = 4) -> Path:
    with VideoFile(path, 64, 48, 25.0) as video:
        for index in range(frames):
            video.write(np.full((48, 64, 3), 40 * index, np.uint8))
    return path


def make_otb(folder: Path, numbers: list[int], truth: str) -> Path:
    (folder / "img").mkdir(parents=True)
    for number in numbers:
        picture = np.full((48, 64, 3), number, np.uint8)
        cv2.imwrite(str(folder / "img" / f"{number}.png"), picture)
    (folder / "groundtruth_rect.txt").write_text(truth)
    return folder


def test_clip_with_annotation(tmp_path: Path):
    make_clip(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("1,2,30,20\n" * 4)
    sequence = read_sequence(tmp_path / "a.mp4")
    assert (sequence.name, len(sequence), sequence.first_box) == ("a", 4, (1, 2, 30, 20))
    frames = list(sequence)
    assert len(frames) == 4 and frames[0].shape == (48, 64, 3)
    assert len(list(sequence)) == 4, "a second pass starts from the first frame"
    assert sequence.frames.fps == pytest.approx(25.0)


def test_otb_layout_is_one_based_on_disk_and_in_the_order_of_numbers(tmp_path: Path):
    make_otb(tmp_path / "Toy", [1, 2, 10], "1\t1 10,10\n2 2\t10 10\n3,3,10,10\n")
    sequence = read_sequence(tmp_path / "Toy")
    assert sequence.first_box == (0, 0, 10, 10)
    assert sequence.boxes[2].tolist() == [2, 2, 10, 10]
    assert [int(f[0, 0, 0]) for f in sequence] == [1, 2, 10]


def test_a_folder_may_mix_both_layouts(tmp_path: Path):
    make_clip(tmp_path / "b.mp4")
    (tmp_path / "b.txt").write_text("0,0,9,9\n" * 4)
    make_otb(tmp_path / "A", [1], "1,1,5,5\n")
    (tmp_path / "notes.txt").write_text("no sequence")
    assert [s.name for s in read_sequences(tmp_path)] == ["A", "b"]
    assert [s.name for s in read_sequences(tmp_path, ["b"])] == ["b"]
    with pytest.raises(SequenceError, match=r"no sequence 'c'; there are A, b"):
        read_sequences(tmp_path, ["c"])


def test_absent_targets(tmp_path: Path):
    file = tmp_path / "t.txt"
    file.write_text("0,0,9,9\nnan,nan,nan,nan\n1,1,0,0\n")
    boxes = read_boxes(file)
    assert np.isnan(boxes[1]).all()
    make_clip(tmp_path / "t.mp4", 3)
    assert read_sequence(tmp_path / "t.mp4").present.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0,9,9\n1,2,3\n", r"t.txt:2: four numbers .* got '1,2,3'"),
        ("0,0,9,9\n1,2,3,x\n", r"t.txt:2: .*'1,2,3,x'"),
        ("0,0,9,9\n\n1,2,3,4\n", r"t.txt:2: "),
        ("0,0,inf,9\n", r"t.txt:1: "),
        ("nan,nan,nan,nan\n0,0,9,9\n", r"t.txt:1: the first frame's box"),
        ("0,0,0,9\n", r"t.txt:1: the first frame's box"),
        ("", r"t.txt: no boxes"),
    ],
)
def test_a_wrong_annotation_is_named_with_its_line(tmp_path: Path, text: str, message: str):
    file = tmp_path / "t.txt"
    file.write_text(text)
    with pytest.raises(SequenceError, match=message):
        read_boxes(file)


@pytest.mark.parametrize("boxes", [3, 5])
def test_another_number_of_boxes_than_frames_is_refused(tmp_path: Path, boxes: int):
    make_clip(tmp_path / "a.mp4", 4)
    (tmp_path / "a.txt").write_text("0,0,9,9\n" * boxes)
    with pytest.raises(SequenceError, match=rf"a.txt: {boxes} boxes, but .*a.mp4 has"):
        list(read_sequence(tmp_path / "a.mp4"))


def test_missing_and_broken_files(tmp_path: Path):
    with pytest.raises(ClipError, match=r"no such clip: .*none.mp4"):
        open_frames(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ClipError, match=r"text.mp4: not a video"):
        list(open_frames(tmp_path / "text.mp4"))
    make_clip(tmp_path / "a.mp4")
    with pytest.raises(SequenceError, match=r"no such annotation: .*a.txt"):
        read_sequence(tmp_path / "a.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipError, match="no pictures"):
        PictureFrames(tmp_path / "empty")
    with pytest.raises(SequenceError, match="no sequences"):
        read_sequences(tmp_path / "empty")
    with pytest.raises(SequenceError, match="no such folder"):
        read_sequences(tmp_path / "nowhere")
    (tmp_path / "empty" / "1.png").write_text("no picture")
    with pytest.raises(ClipError, match=r"1.png: cannot be decoded"):
        list(PictureFrames(tmp_path / "empty"))
    (tmp_path / "noimg").mkdir()
    (tmp_path / "noimg" / "groundtruth_rect.txt").write_text("1,1,5,5\n")
    with pytest.raises(SequenceError, match=r"img/"):
        read_sequence(tmp_path / "noimg")


def test_fingerprint_follows_boxes_and_clip(tmp_path: Path):
    make_clip(tmp_path / "a.mp4", 4)
    (tmp_path / "a.txt").write_text("0,0,9,9\n" * 4)
    first = read_sequence(tmp_path / "a.mp4").fingerprint()
    assert read_sequence(tmp_path / "a.mp4").fingerprint() == first
    (tmp_path / "a.txt").write_text("0,0,9,8\n" * 4)
    assert read_sequence(tmp_path / "a.mp4").fingerprint() != first


@pytest.mark.data
def test_the_development_sequences(data_root: Path):
    sequences = read_sequences(data_root / "sequences")
    assert len(sequences) == 24
    smallest = min(sequences, key=len)
    assert sum(1 for _ in smallest) == len(smallest)
