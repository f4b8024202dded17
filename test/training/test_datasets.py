"""Published data sets: each reader on a small imitation of its layout, and what is wrong in one."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch")

from siam_tracker_ros.training.config import DataConfig
from siam_tracker_ros.training.datasets.opening import READERS, open_set
from siam_tracker_ros.training.samples import split_sets
from siam_tracker_ros.training.tar_sets import DataError, ImageCache, decode

SPEC = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
made = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(made)


def opened(tmp_path, layout, on_error="stop", maker=None):
    (tmp_path / layout).mkdir(exist_ok=True)
    root = getattr(made, maker or layout)(tmp_path / layout)
    return root, open_set("mine", f"{layout}:{root}", on_error)


def boxes(targets):
    return [tuple(round(v, 3) for v in t.box.xywh) for t in targets]


def test_every_layout_has_an_imitation():
    assert all(hasattr(made, layout) for layout in READERS)


@pytest.mark.parametrize("layout", READERS)
def test_every_image_that_is_named_is_there_and_nothing_is_decoded(tmp_path, layout, monkeypatch):
    decoded = []
    monkeypatch.setattr("cv2.imdecode", lambda *a: decoded.append(a))
    _, images = opened(tmp_path, layout)
    assert not decoded
    monkeypatch.undo()
    assert len(images.images)
    for ref in images.images:
        assert decode(ref).shape == (made.H, made.W, 3)
    targets = [t for track in images.tracks.values() for t in track] + list(images.stills)
    assert targets
    for target in targets:  # the red rectangle is where the annotation says
        x, y, w, h = (round(v) for v in target.box.xywh)
        middle = decode(target.image)[y + h // 2, x + w // 2]
        assert target.state == "occluded" or x > 30 or (middle[0] > 180 and middle[1] < 70)


def test_got10k_has_absent_and_covered_frames(tmp_path):
    _, images = opened(tmp_path, "got10k")
    first = ("GOT-10k_Train_000001", 0)
    track = images.tracks[first]
    assert [(t.frame, t.state) for t in track] == [
        (0, "seen"),
        (1, "seen"),
        (3, "occluded"),
        (4, "seen"),
    ]
    assert boxes(track)[2] == made.moved(3)
    assert [(t.frame, t.category) for t in images.absent[first]] == [(2, "anaconda")]
    assert boxes(images.absent[first]) == [made.moved(1)]  # where it was last
    assert track[0].image.file.name == "00000001.jpg"
    assert len(images.tracks) == 2 and len(images.images) == 10 and not images.stills


def test_lasot_leaves_its_test_videos_out(tmp_path):
    root, images = opened(tmp_path, "lasot")
    assert list(images.tracks) == [("airplane-1", 0)]
    assert [t.frame for t in images.tracks["airplane-1", 0]] == [0, 1, 4]
    assert [t.frame for t in images.absent["airplane-1", 0]] == [2, 3]
    assert images.tracks["airplane-1", 0][0].category == "airplane"
    (root / "testing_set.txt").unlink()
    with pytest.warns(UserWarning, match="all videos are read, the test videos too"):
        assert len(open_set("lasot", str(root), "stop").tracks) == 2
    (root / "training_set.txt").write_text("airplane-2\n")
    assert list(open_set("lasot", str(root), "stop").tracks) == [("airplane-2", 0)]


def test_trackingnet_counts_frames_by_number(tmp_path):
    _, images = opened(tmp_path, "trackingnet")
    track = images.tracks["TRAIN_0/abc_0", 0]
    assert [t.image.file.name for t in track] == [f"{i}.jpg" for i in range(11) if i != 4]
    assert boxes(track)[-1] == made.moved(10)
    assert images.skipped["no box"] == 1


def test_vid_has_tracks_gaps_and_neighbours(tmp_path):
    _, images = opened(tmp_path, "imagenet_vid")
    snippet = "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    assert sorted(images.tracks) == [(snippet, 0), (snippet, 1)]
    second = images.tracks[snippet, 1]
    assert [(t.frame, t.state) for t in second] == [(0, "seen"), (1, "occluded"), (4, "seen")]
    assert [t.frame for t in images.absent[snippet, 1]] == [2, 3]
    assert (snippet, 0) not in images.absent
    here = images.annotated[second[0].image]
    assert second[0] in here and len(here) == 2
    assert len(images.annotated[images.absent[snippet, 1][0].image]) == 1


def test_det_keeps_what_is_too_small_annotated(tmp_path):
    _, images = opened(tmp_path, "imagenet_det")
    assert boxes(images.stills) == [made.BOX]
    assert len(images.annotated[images.stills[0].image]) == 2
    assert len(images.images) == 2
    assert images.skipped == {"smaller than 10 px or 400 px^2": 1}


def test_youtube_bb_has_absent_frames_and_missing_ones(tmp_path):
    _, images = opened(tmp_path, "youtube_bb")
    track = images.tracks["AAB6lO-XiKE+0+0", 0]
    assert [t.frame for t in track] == [7140, 7170, 7230]  # 30 a second
    assert boxes(track)[0] == made.BOX and track[0].category == "person"
    assert [t.frame for t in images.absent["AAB6lO-XiKE+0+0", 0]] == [7200]
    assert images.skipped == {"frame was not downloaded": 1}


def test_coco_ignores_crowds_but_knows_of_them(tmp_path):
    _, images = opened(tmp_path, "coco")
    assert boxes(images.stills) == [made.BOX, (38.5, 4.25, 22, 20)]
    here = images.annotated[images.stills[0].image]
    assert [(t.category, t.state) for t in here] == [("cat", "seen")] * 2 + [("cat", "ignored")]
    assert images.skipped == {"ignored": 1} and len(images.images) == 2


def test_citypersons_and_widerface_flags(tmp_path):
    _, persons = opened(tmp_path, "citypersons")
    assert boxes(persons.stills) == [made.BOX]
    assert persons.skipped == {"ignored": 2, "heavily occluded": 1}
    _, faces = opened(tmp_path, "widerface")
    assert boxes(faces.stills) == [made.BOX] and len(faces.images) == 2
    assert faces.skipped == {"ignored": 1, "heavily occluded": 1}


def test_a_plain_folder_of_either_kind(tmp_path):
    _, frames = opened(tmp_path, "folder")
    assert boxes(frames.tracks["clip", 0]) == [made.moved(0), made.moved(1), made.moved(3)]
    assert [t.frame for t in frames.absent["clip", 0]] == [2]
    (tmp_path / "second").mkdir()
    _, noted = opened(tmp_path / "second", "folder", maker="notes")
    assert boxes(noted.stills) == [made.BOX]
    assert boxes(noted.tracks["v", 3]) == [made.moved(0), made.moved(1)]
    assert noted.tracks["v", 3][0].category == "ball"
    assert noted.skipped == {"heavily occluded": 1}


def test_videos_and_stills_are_held_out_by_a_hash_of_their_names(tmp_path):
    _, images = opened(tmp_path, "folder", maker="notes")
    data = DataConfig(holdout_every=2)
    parts = [split_sets([images], data, holdout)[0] for holdout in (False, True)]
    names = [{r.name for r in part.images} for part in parts]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 3
    assert sum(len(part.tracks) for part in parts) == sum(len(p.stills) for p in parts) == 1
    by_name = split_sets([images], DataConfig(holdout_every=10**9, holdout_videos=("v",)), True)
    assert list(by_name[0].tracks) == [("v", 3)]


# -- what is wrong ------------------------------------------------------------------------------


def broken(root, layout):
    """Break an imitation in one way; returns what the message names and what is counted."""
    if layout == "got10k":
        truth = root / "GOT-10k_Train_000001" / "groundtruth.txt"
        rows = truth.read_text().splitlines()
        truth.write_text("\n".join([rows[0], "11,8,oops,30", *rows[2:]]))
        return r"groundtruth\.txt:2: not a box: .*oops", {"not a box": 1}
    if layout == "lasot":
        (root / "airplane" / "airplane-1" / "img" / "00000005.jpg").unlink()
        return r"00000005\.jpg: frames are missing", {"frames are missing": 1}
    if layout == "trackingnet":
        truth = root / "TRAIN_0" / "anno" / "abc_0.txt"
        truth.write_text(truth.read_text().replace("12,8,24,30", "500,8,24,30"))
        return r"abc_0\.txt:3: box outside the picture", {"box outside the picture": 1}
    if layout == "coco":
        (root / "train2017" / "000000000025.jpg").unlink()
        return r"000000000025\.jpg: image is missing", {"image is missing": 1}
    if layout == "widerface":
        table = root / "wider_face_split" / "wider_face_train_bbx_gt.txt"
        table.write_text(table.read_text().replace("36 4 22 24 0", "36 4 x 24 0"))
        return r"bbx_gt\.txt:4: not a face", {"not a face": 1}
    notes = next((root / "Annotations").rglob("000001.xml"))
    notes.write_text(notes.read_text()[:-20])
    return r"000001\.xml:1: not XML", {"not XML": 1}


@pytest.mark.parametrize(
    "layout", ["got10k", "lasot", "trackingnet", "coco", "widerface", "imagenet_vid"]
)
def test_what_is_wrong_is_named_or_counted(tmp_path, layout):
    root, whole = opened(tmp_path, layout)
    said, counts = broken(root, layout)
    with pytest.raises(DataError, match=said):
        open_set("mine", f"{layout}:{root}", "stop")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rest = open_set("mine", f"{layout}:{root}", "skip")
        except DataError as error:  # it was the only video
            assert layout == "lasot" and "no image that can be used" in str(error)
        else:
            assert {k: rest.skipped[k] for k in counts} == counts
            assert len(rest.images) <= len(whole.images)
    assert layout == "lasot" or len(caught) == 1


@pytest.mark.parametrize("layout", READERS)
def test_another_layout_is_never_skipped(tmp_path, layout):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=r"should hold .*; it holds holiday"):
        open_set("mine", f"{layout}:{tmp_path}", "skip")
    with pytest.raises(DataError, match="is no folder"):
        open_set(layout, str(tmp_path / "gone"), "skip")


def test_a_set_without_a_layout_is_an_error(tmp_path):
    with pytest.raises(DataError, match="names no layout; write LAYOUT:PATH"):
        open_set("mine", str(tmp_path), "stop")


def test_a_source_may_have_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SETS_OF_THIS_TEST", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / "absent")):
        open_set("coco", "coco:$SETS_OF_THIS_TEST/absent", "stop")
    monkeypatch.delenv("SETS_OF_THIS_TEST")
    with pytest.raises(DataError, match=r"\$SETS_OF_THIS_TEST/absent' has a variable that is not"):
        open_set("coco", "coco:$SETS_OF_THIS_TEST/absent", "stop")


def test_an_image_that_is_cut_off_is_an_error(tmp_path):
    root, images = opened(tmp_path, "got10k")
    file = root / "GOT-10k_Train_000001" / "00000001.jpg"
    whole = file.read_bytes()
    for data, said in (
        (whole[: len(whole) // 2], "cut off"),
        (b"", "not a readable"),
        (b"x", "not"),
    ):
        file.write_bytes(data)
        with pytest.raises(DataError, match=f"00000001.jpg.*{said}"):
            ImageCache(1e6)(images.images[0])
    file.write_bytes(whole + bytes(100))  # something behind the end is no harm
    assert ImageCache(1e6)(images.images[0]).shape == (made.H, made.W, 3)


def test_many_videos_take_little_memory(tmp_path):
    """Ten thousand videos of a thousand frames: the table is some 30 bytes a frame."""
    import numpy as np

    from siam_tracker_ros.training.datasets.table import TableBuilder, TableSet

    builder = TableBuilder(tmp_path, ("{:08d}.jpg", 1))
    box = np.tile([10.0, 8.0, 24.0, 30.0], (100, 1))
    for number in range(2000):
        builder.add(f"v{number}", 100, (64, 48), box, track=0)
    table = builder.build()
    images = TableSet("many", table, {}, "")
    columns = [v.nbytes for v in vars(table).values() if isinstance(v, np.ndarray)]
    assert sum(columns) < 45 * 200_000
    assert images.images[199_999].name == "v1999/00000100.jpg"
    assert images.tracks["v7", 0][99].frame == 99 and not images.annotated
