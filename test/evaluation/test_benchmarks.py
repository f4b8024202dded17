"""Each benchmark's reader on a small imitation of its published layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from siam_tracker_ros.evaluation.benchmark_tables import LASOT_TEST, UAV123_PARTS
from siam_tracker_ros.evaluation.benchmarks import Benchmark, detect_protocol, read_benchmark
from siam_tracker_ros.evaluation.frames import ClipError
from siam_tracker_ros.evaluation.sequences import SequenceError, read_sequence


def pictures(folder: Path, names: list[str]) -> None:
    """Write pictures of 32x24 whose grey is the number in their name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        number = int(Path(name).stem) % 256
        cv2.imwrite(str(folder / name), np.full((24, 32, 3), number, np.uint8))


def text(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def only(found: Benchmark):
    (sequence,) = found.sequences
    return sequence


def shades(sequence) -> list[int]:
    # JPEG keeps a flat grey to within a step
    return [int(frame[0, 0, 0]) for frame in sequence]


# --- OTB ------------------------------------------------------------------------------------------


def test_otb_separators_targets_and_parts_of_a_folder(tmp_path: Path):
    pictures(tmp_path / "Car4" / "img", ["0001.jpg", "0002.jpg", "0003.jpg"])
    text(tmp_path / "Car4" / "groundtruth_rect.txt", "1,1,5,5", "2\t2\t5\t5", "3 3 5 5")
    pictures(tmp_path / "Jogging" / "img", ["0001.jpg", "0002.jpg"])
    text(tmp_path / "Jogging" / "groundtruth_rect.1.txt", "1,1,5,5", "1,1,5,5")
    text(tmp_path / "Jogging" / "groundtruth_rect.2.txt", "11,1,5,5", "12,1,5,5")
    pictures(tmp_path / "Human4" / "img", ["0001.jpg"])
    text(tmp_path / "Human4" / "groundtruth_rect.1.txt", "")
    text(tmp_path / "Human4" / "groundtruth_rect.2.txt", "7,1,5,5")
    found = read_benchmark(tmp_path)
    assert found.rules.name == "otb" and found.scored
    by_name = {s.name: s for s in found.sequences}
    assert sorted(by_name) == ["Car4", "Human4", "Jogging-1", "Jogging-2"]
    assert by_name["Car4"].boxes[:, 0].tolist() == [0, 1, 2], "OTB counts from 1"
    assert by_name["Jogging-2"].first_box == (10, 0, 5, 5)
    assert by_name["Human4"].first_box == (6, 0, 5, 5)
    assert read_sequence(tmp_path / "Jogging").name == "Jogging-1"


@pytest.mark.parametrize(("name", "first", "count"), [("David", 300, 471), ("BlurCar4", 18, 380)])
def test_otb_sequences_that_begin_later(tmp_path: Path, name: str, first: int, count: int):
    folder = tmp_path / name
    numbers = range(1, first + count + 5)
    (folder / "img").mkdir(parents=True)
    for number in numbers:
        (folder / "img" / f"{number:04d}.jpg").touch()
    text(folder / "groundtruth_rect.txt", *["1,1,5,5"] * count)
    files = only(read_benchmark(tmp_path)).frames.files
    assert (len(files), files[0].name) == (count, f"{first:04d}.jpg")
    assert files[-1].name == f"{first + count - 1:04d}.jpg"


# --- GOT-10k --------------------------------------------------------------------------------------


def got10k(root: Path, split: str, name: str, boxes: int, frames: int = 4) -> Path:
    folder = root / split / name
    pictures(folder, [f"{i + 1:08d}.jpg" for i in range(frames)])
    text(folder / "groundtruth.txt", *["3.0000,4.0000,8.0000,6.0000"] * boxes)
    text(
        folder / "meta_info.ini",
        "[METAINFO]",
        "url: https://example.com",
        "object_class: duck",
        "resolution: (32, 24)",
    )
    listing = root / split / "list.txt"
    before = listing.read_text() if listing.is_file() else ""
    listing.write_text(f"{before}{name}\n")
    return folder


def test_got10k_validation(tmp_path: Path):
    folder = got10k(tmp_path, "val", "GOT-10k_Val_000001", 4)
    text(folder / "absence.label", "0", "0", "1", "0")
    text(folder / "cover.label", "8", "7", "0", "3")
    text(folder / "cut_by_image.label", "0", "0", "0", "0")
    found = read_benchmark(tmp_path)
    sequence = only(found)
    assert (found.rules.name, found.split, sequence.size) == ("got10k", "val", (32, 24))
    assert sequence.first_box == (3, 4, 8, 6), "as the file has it"
    assert sequence.present.tolist() == [True, True, False, True]
    assert shades(sequence) == [1, 2, 3, 4]
    assert only(read_benchmark(tmp_path / "val", "got10k")).name == sequence.name
    (folder / "cover.label").unlink()
    (folder / "meta_info.ini").unlink()
    sequence = only(read_benchmark(tmp_path))
    assert sequence.present.tolist() == [True, True, False, True], "absence.label alone"
    assert sequence.size == (32, 24), "measured where nothing states it"


def test_got10k_test_set_has_first_boxes_alone(tmp_path: Path):
    got10k(tmp_path, "test", "GOT-10k_Test_000001", 1)
    found = read_benchmark(tmp_path)
    assert (found.split, found.scored, len(only(found))) == ("test", False, 4)
    assert only(found).present.tolist() == [True, False, False, False]


# --- LaSOT ----------------------------------------------------------------------------------------


def lasot(root: Path, name: str) -> Path:
    folder = root / name.rpartition("-")[0] / name
    pictures(folder / "img", [f"{i + 1:08d}.jpg" for i in range(3)])
    text(folder / "groundtruth.txt", "3,4,8,6", "0,0,0,0", "3,4,8,6")
    text(folder / "full_occlusion.txt", "0,1,0")
    text(folder / "out_of_view.txt", "0,0,1")
    text(folder / "nlp.txt", "a white plane")
    return folder


def test_lasot_flags_and_splits(tmp_path: Path):
    lasot(tmp_path, "airplane-1")
    lasot(tmp_path, "airplane-2")
    found = read_benchmark(tmp_path)
    assert (found.rules.name, found.split, found.absent) == ("lasot", "test", 279)
    assert only(found).name == "airplane-1" and "airplane-2" not in LASOT_TEST
    assert only(found).present.tolist() == [True, False, False]
    assert only(read_benchmark(tmp_path, split="train")).name == "airplane-2"
    assert len(read_benchmark(tmp_path, split="all").sequences) == 2
    text(tmp_path / "testing_set.txt", "airplane-2")
    assert only(read_benchmark(tmp_path)).name == "airplane-2"
    with pytest.raises(SequenceError, match="no split 'val'; LaSOT has test"):
        read_benchmark(tmp_path, split="val")


# --- TrackingNet ----------------------------------------------------------------------------------


def test_trackingnet_test_and_train(tmp_path: Path):
    for chunk, boxes in (("TEST", 1), ("TRAIN_3", 12)):
        pictures(tmp_path / chunk / "frames" / "abc_0", [f"{i}.jpg" for i in range(12)])
        text(tmp_path / chunk / "anno" / "abc_0.txt", *["3,4,8,6"] * boxes)
    found = read_benchmark(tmp_path)
    assert (found.rules.name, found.split, found.scored) == ("trackingnet", "TEST", False)
    assert shades(only(found)) == list(range(12)), "10.jpg comes after 9.jpg"
    train = read_benchmark(tmp_path, split="TRAIN_3")
    assert train.scored and len(only(train)) == 12
    with pytest.raises(SequenceError, match="no split 'TRAIN_0'; there are TEST, TRAIN_3"):
        read_benchmark(tmp_path, split="TRAIN_0")


def test_trackingnet_still_zipped(tmp_path: Path):
    text(tmp_path / "TEST" / "anno" / "abc_0.txt", "3,4,8,6")
    (tmp_path / "TEST" / "zips").mkdir()
    with pytest.raises(SequenceError, match="unpack its zips first"):
        read_benchmark(tmp_path)


# --- UAV123 ---------------------------------------------------------------------------------------


def test_uav123_parts_of_one_folder(tmp_path: Path):
    first, last = UAV123_PARTS["truck4_2"][1:]
    count = last - first + 1
    images = tmp_path / "data_seq" / "UAV123"
    (images / "truck4").mkdir(parents=True)
    for number in range(1, last + 1):
        (images / "truck4" / f"{number:06d}.jpg").touch()
    pictures(images / "boat1", ["000001.jpg", "000002.jpg"])
    anno = tmp_path / "anno" / "UAV123"
    text(anno / "truck4_2.txt", *["3,4,8,6"] * count)
    text(anno / "boat1.txt", "3,4,8,6", "NaN,NaN,NaN,NaN")
    found = read_benchmark(tmp_path)
    assert (found.rules.name, found.split) == ("uav123", "UAV123")
    boat, truck = found.sequences
    assert boat.present.tolist() == [True, False]
    files = truck.frames.files
    assert (files[0].stem, files[-1].stem) == (f"{first:06d}", f"{last:06d}")
    (images / "truck4" / f"{first + 3:06d}.jpg").unlink()
    with pytest.raises(SequenceError, match=rf"truck4_2.txt: .*no picture {first + 3} \(1 are"):
        read_benchmark(tmp_path)


# --- bad input ------------------------------------------------------------------------------------


def test_which_benchmark_it_is(tmp_path: Path):
    with pytest.raises(SequenceError, match="no such folder of sequences"):
        detect_protocol(tmp_path / "nowhere")
    with pytest.raises(SequenceError, match=r"in a layout that is known here \(otb: NAME/ground"):
        detect_protocol(tmp_path)
    lasot(tmp_path, "airplane-1")
    assert detect_protocol(tmp_path) == "lasot"
    with pytest.raises(SequenceError, match=r"not in the layout of otb .*; it looks like lasot"):
        read_benchmark(tmp_path, "otb")
    with pytest.raises(SequenceError, match="no protocol 'vot'; there are otb, got10k"):
        read_benchmark(tmp_path, "vot")
    (tmp_path / "list.txt").touch()
    with pytest.raises(SequenceError, match="could be got10k or lasot; say which with --protocol"):
        read_benchmark(tmp_path)


def test_what_is_wrong_is_named_or_skipped_and_counted(tmp_path: Path):
    got10k(tmp_path, "val", "good", 4)
    short = got10k(tmp_path, "val", "short", 3)
    gap = got10k(tmp_path, "val", "gap", 4, frames=5)
    (gap / "00000003.jpg").unlink()
    (gap / "00000004.jpg").unlink()
    labels = got10k(tmp_path, "val", "labels", 4)
    text(labels / "cover.label", "8", "7", "many", "3")
    fewer = got10k(tmp_path, "val", "fewer", 4)
    text(fewer / "cover.label", "8", "7")
    empty = got10k(tmp_path, "val", "empty", 4)
    for file in empty.glob("*.jpg"):
        file.unlink()
    first = got10k(tmp_path, "val", "first", 4)
    text(first / "groundtruth.txt", "nan,nan,nan,nan", *["3,4,8,6"] * 3)
    words = got10k(tmp_path, "val", "words", 4)
    text(words / "groundtruth.txt", "3,4,8,6", "3,4,8", "3,4,8,6", "3,4,8,6")
    size = got10k(tmp_path, "val", "size", 4)
    text(size / "meta_info.ini", "resolution: (wide, high)")
    listing = tmp_path / "val" / "list.txt"
    listing.write_text(listing.read_text() + "gone\n\n")
    wanted = {
        "short": rf"{short}/groundtruth.txt: 3 boxes, but {short} has 4 pictures",
        "gap": rf"{gap}/groundtruth.txt: 4 boxes, but .* has 3 pictures; picture 3 is missing",
        "labels": rf"{labels}/cover.label:3: a number is wanted, got 'many'",
        "fewer": rf"{fewer}/cover.label: 2 labels, but there are 4 boxes",
        "empty": rf"{empty}: no pictures",
        "first": rf"{first}/groundtruth.txt:1: the first frame's box",
        "words": rf"{words}/groundtruth.txt:2: four numbers",
        "size": rf"{size}/meta_info.ini: resolution: \(W, H\) is wanted",
        "gone": r"list.txt names gone, which is not there",
    }
    for name, message in wanted.items():
        with pytest.raises((SequenceError, ClipError), match=message):
            read_benchmark(tmp_path, names=[name])
    found = read_benchmark(tmp_path, on_bad="skip")
    assert [s.name for s in found.sequences] == ["good"]
    assert sorted(found.skipped) == sorted(wanted)
    with pytest.raises(SequenceError, match=r"no sequence can be used: .*cover.label:3"):
        read_benchmark(tmp_path, names=["labels"], on_bad="skip")
    listing.write_text("good\n../outside\n")
    with pytest.raises(SequenceError, match=r"list.txt:2: the name of a folder is wanted"):
        read_benchmark(tmp_path)
