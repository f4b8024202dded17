"""Benchmarks as they lie on disk: OTB, GOT-10k, LaSOT, TrackingNet and UAV123.

Each is read in its published layout and comes with the rules that score it. Boxes are taken as the
files have them, but for OTB's, which count pixels from 1.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from siam_tracker_ros.evaluation.benchmark_tables import LASOT_TEST, UAV123_PARTS
from siam_tracker_ros.evaluation.frames import ClipError, PictureFrames
from siam_tracker_ros.evaluation.metrics import RULES, Rules
from siam_tracker_ros.evaluation.sequences import (
    Boxes,
    Sequence,
    SequenceError,
    choose,
    find_clips,
    matching_pictures,
    read_boxes,
)

Found = dict[str, Callable[[], Sequence]]
OnBad = Literal["stop", "skip"]


@dataclass(frozen=True)
class Benchmark:
    """The sequences of a benchmark's split.

    Attributes:
        rules: how they are scored.
        split: which part of the benchmark they are.
        sequences: in the order in which they are run.
        skipped: name -> what was wrong, where reading went on without it.
        absent: number of the split's published sequences that are not on this disk.
    """

    rules: Rules
    split: str
    sequences: tuple[Sequence, ...]
    skipped: dict[str, str]
    absent: int = 0

    @property
    def scored(self) -> bool:
        """Whether the truth is there; a server's test set has first boxes alone."""
        return all(s.scored for s in self.sequences)


@dataclass(frozen=True)
class _Part:
    """What a layout found: the split's name, its sequences, published ones that are missing."""

    split: str
    found: Found
    absent: int = 0


@dataclass(frozen=True)
class _Layout:
    looks: str
    recognises: Callable[[Path], bool]
    find: Callable[[Path, str | None], _Part]


def _first_box_only(truth: Path, frames: PictureFrames) -> Boxes:
    """Return float64 [N,4] with the only box of ``truth`` first and NaN after it."""
    boxes = np.full((len(frames.files), 4), np.nan)
    boxes[0] = read_boxes(truth)[0]
    return boxes


def _flags(file: Path, count: int) -> npt.NDArray[np.float64]:
    """Read ``count`` numbers, one a line or separated by commas.

    Raises:
        SequenceError: naming the file, and the line where there is one.
    """
    if not file.is_file():
        raise SequenceError(f"no such file of labels: {file}")
    values: list[float] = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        for text in re.split(r"[,\s]+", line.strip()):
            try:
                values += [float(text)] if text else []
            except ValueError:
                raise SequenceError(f"{file}:{number}: a number is wanted, got {text!r}") from None
    if len(values) != count:
        raise SequenceError(f"{file}: {len(values)} labels, but there are {count} boxes")
    return np.array(values)


# --- GOT-10k --------------------------------------------------------------------------------------


def _is_got10k(folder: Path) -> bool:
    return any((f / "list.txt").is_file() for f in (folder, *map(folder.joinpath, _GOT10K)))


_GOT10K = ("val", "test", "train")


def _find_got10k(folder: Path, split: str | None) -> _Part:
    if (folder / "list.txt").is_file():
        top, split = folder, split or folder.name
    else:
        there = [s for s in _GOT10K if (folder / s / "list.txt").is_file()]
        split = split or there[0]
        if split not in there:
            raise SequenceError(f"{folder}: no split {split!r}; there are {', '.join(there)}")
        top = folder / split
    found: Found = {}
    listing = top / "list.txt"
    for number, line in enumerate(listing.read_text(errors="replace").splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if Path(name).name != name or name == "..":
            raise SequenceError(f"{listing}:{number}: the name of a folder is wanted, got {line!r}")
        found[name] = partial(_read_got10k, top / name)
    return _Part(split, found)


def _read_got10k(folder: Path) -> Sequence:
    truth = folder / "groundtruth.txt"
    if not folder.is_dir():
        raise SequenceError(f"{folder.parent / 'list.txt'} names {folder.name}, which is not there")
    boxes, frames = read_boxes(truth), PictureFrames(folder)
    size = _got10k_size(folder / "meta_info.ini")
    if len(boxes) == 1 and len(frames.files) > 1:
        return Sequence(
            folder.name, frames, _first_box_only(truth, frames), truth, size=size, scored=False
        )
    frames = matching_pictures(folder, truth, len(boxes))
    hidden = None
    if (folder / "cover.label").is_file():
        hidden = _flags(folder / "cover.label", len(boxes)) <= 0
    elif (folder / "absence.label").is_file():
        hidden = _flags(folder / "absence.label", len(boxes)) > 0
    return Sequence(folder.name, frames, boxes, truth, hidden, size or _measured(frames))


def _got10k_size(file: Path) -> tuple[int, int] | None:
    """Return width and height of ``resolution: (1920, 1080)``; None without such a line."""
    if not file.is_file():
        return None
    stated = re.search(r"^resolution:\s*(\(.*\))\s*$", file.read_text(errors="replace"), re.M)
    if stated is None:
        return None
    try:
        width, height = (int(v) for v in ast.literal_eval(stated[1]))
    except (ValueError, TypeError, SyntaxError):
        raise SequenceError(f"{file}: resolution: (W, H) is wanted, got {stated[0]!r}") from None
    return width, height


def _measured(frames: PictureFrames) -> tuple[int, int]:
    height, width = next(iter(frames)).shape[:2]
    return width, height


# --- LaSOT ----------------------------------------------------------------------------------------


def _lasot_truths(folder: Path) -> list[Path]:
    files = [*folder.glob("*/*/groundtruth.txt"), *folder.glob("*/groundtruth.txt")]
    return [f for f in files if re.fullmatch(r".+-\d+", f.parent.name)]


def _is_lasot(folder: Path) -> bool:
    return any(True for _ in _lasot_truths(folder))


def _find_lasot(folder: Path, split: str | None) -> _Part:
    found: Found = {f.parent.name: partial(_read_lasot, f) for f in _lasot_truths(folder)}
    listing = folder / "testing_set.txt"
    names = set(LASOT_TEST)
    if listing.is_file():
        names = {line.strip() for line in listing.read_text().splitlines() if line.strip()}
    tested = {n: read for n, read in found.items() if n in names}
    if split is None:
        split = "test" if tested else "all"
    if split == "test":
        return _Part("test", tested, len(names - set(tested)))
    if split == "train":
        return _Part("train", {n: read for n, read in found.items() if n not in names})
    if split == "all":
        return _Part("all", found)
    raise SequenceError(f"{folder}: no split {split!r}; LaSOT has test, train and all")


def _read_lasot(truth: Path) -> Sequence:
    folder = truth.parent
    boxes = read_boxes(truth)
    frames = matching_pictures(folder / "img", truth, len(boxes))
    hidden = np.zeros(len(boxes), dtype=bool)
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        hidden |= _flags(folder / name, len(boxes)) > 0
    return Sequence(folder.name, frames, boxes, truth, hidden)


# --- TrackingNet ----------------------------------------------------------------------------------


def _is_trackingnet(folder: Path) -> bool:
    return (folder / "frames").is_dir() or any(_trackingnet_chunks(folder))


def _trackingnet_chunks(folder: Path) -> list[Path]:
    chunks = [folder / "TEST", *(folder / f"TRAIN_{n}" for n in range(12))]
    return [c for c in chunks if (c / "anno").is_dir()]


def _find_trackingnet(folder: Path, split: str | None) -> _Part:
    if (folder / "anno").is_dir():
        chunk = folder
    else:
        there = _trackingnet_chunks(folder)
        chunk = folder / split if split else there[0]
        if chunk not in there:
            raise SequenceError(
                f"{folder}: no split {split!r}; there are {', '.join(c.name for c in there)}"
            )
    if not (chunk / "frames").is_dir():
        zipped = "; unpack its zips first" if (chunk / "zips").is_dir() else ""
        raise SequenceError(f"{chunk}: the pictures are to be in frames/NAME/0.jpg ...{zipped}")
    found: Found = {f.stem: partial(_read_trackingnet, f) for f in (chunk / "anno").glob("*.txt")}
    return _Part(chunk.name, found)


def _read_trackingnet(truth: Path) -> Sequence:
    folder = truth.parents[1] / "frames" / truth.stem
    boxes, frames = read_boxes(truth), PictureFrames(folder)
    if len(boxes) == 1 and len(frames.files) > 1:
        return Sequence(truth.stem, frames, _first_box_only(truth, frames), truth, scored=False)
    return Sequence(truth.stem, matching_pictures(folder, truth, len(boxes)), boxes, truth)


# --- UAV123 ---------------------------------------------------------------------------------------

_UAV = ("UAV123", "UAV20L")


def _is_uav123(folder: Path) -> bool:
    return (folder / "data_seq").is_dir() and (folder / "anno").is_dir()


def _find_uav123(folder: Path, split: str | None) -> _Part:
    there = [s for s in _UAV if (folder / "anno" / s).is_dir()]
    if not there:
        raise SequenceError(f"{folder / 'anno'}: neither of {' and '.join(_UAV)} is in it")
    split = split or there[0]
    if split not in there:
        raise SequenceError(f"{folder}: no split {split!r}; there are {', '.join(there)}")
    pictures = folder / "data_seq" / "UAV123"
    found: Found = {
        f.stem: partial(_read_uav123, f, pictures) for f in (folder / "anno" / split).glob("*.txt")
    }
    return _Part(split, found)


def _read_uav123(truth: Path, pictures: Path) -> Sequence:
    boxes = read_boxes(truth)
    folder, first, last = truth.stem, 1, len(boxes)
    if not (pictures / folder).is_dir() and folder in UAV123_PARTS:
        folder, first, last = UAV123_PARTS[folder]
    if last - first + 1 != len(boxes):
        raise SequenceError(
            f"{truth}: {len(boxes)} boxes, but this part of {folder} has the pictures "
            f"{first} to {last}"
        )
    frames = matching_pictures(pictures / folder, truth, len(boxes), first)
    return Sequence(truth.stem, frames, boxes, truth)


# --- which of them --------------------------------------------------------------------------------


def _find_otb(folder: Path, split: str | None) -> _Part:
    if split is not None:
        raise SequenceError(f"{folder}: OTB has no splits, {split!r} was asked for")
    return _Part("", find_clips(folder))


LAYOUTS: dict[str, _Layout] = {
    "otb": _Layout(
        "NAME/groundtruth_rect.txt with NAME/img/, or NAME.mp4 with NAME.txt",
        lambda folder: bool(find_clips(folder)),
        _find_otb,
    ),
    "got10k": _Layout(
        "val/list.txt with val/NAME/groundtruth.txt and val/NAME/00000001.jpg",
        _is_got10k,
        _find_got10k,
    ),
    "lasot": _Layout(
        "CATEGORY/CATEGORY-N/groundtruth.txt with img/, full_occlusion.txt and out_of_view.txt",
        _is_lasot,
        _find_lasot,
    ),
    "trackingnet": _Layout(
        "TEST/anno/NAME.txt with TEST/frames/NAME/0.jpg", _is_trackingnet, _find_trackingnet
    ),
    "uav123": _Layout(
        "anno/UAV123/NAME.txt with data_seq/UAV123/FOLDER/000001.jpg", _is_uav123, _find_uav123
    ),
}


def detect_protocol(folder: Path) -> str:
    """Return the name of the benchmark whose layout ``folder`` has.

    Raises:
        SequenceError: if there is no folder, or it looks like none of them, or like several.
    """
    if not folder.is_dir():
        raise SequenceError(f"no such folder of sequences: {folder}")
    like = [name for name, layout in LAYOUTS.items() if layout.recognises(folder)]
    if len(like) == 1:
        return like[0]
    if like:
        raise SequenceError(f"{folder}: could be {' or '.join(like)}; say which with --protocol")
    known = "; ".join(f"{name}: {layout.looks}" for name, layout in LAYOUTS.items())
    raise SequenceError(f"{folder}: no sequences in a layout that is known here ({known})")


def read_benchmark(
    folder: Path,
    protocol: str | None = None,
    *,
    names: Iterable[str] | None = None,
    split: str | None = None,
    on_bad: OnBad = "stop",
) -> Benchmark:
    """Read a benchmark's sequences from its published layout.

    Args:
        folder: the benchmark's own folder, or that of a split.
        protocol: a key of ``RULES``; found out without.
        names: only these sequences, in this order.
        split: a part of the benchmark, in its own word (``val``, ``TEST``, ``UAV20L``); the usual
            one without.
        on_bad: whether a sequence that cannot be read ends it all or is left out and counted.

    Raises:
        SequenceError: naming what is wrong and where; also if nothing is left to run on.
        ClipError: if a sequence has no pictures.
    """
    if protocol is None:
        protocol = detect_protocol(folder)
    elif protocol not in LAYOUTS:
        raise SequenceError(f"no protocol {protocol!r}; there are {', '.join(LAYOUTS)}")
    elif not folder.is_dir():
        raise SequenceError(f"no such folder of sequences: {folder}")
    layout = LAYOUTS[protocol]
    if not layout.recognises(folder):
        like = [name for name, other in LAYOUTS.items() if other.recognises(folder)]
        hint = f"; it looks like {' or '.join(like)}" if like else ""
        raise SequenceError(f"{folder}: not in the layout of {protocol} ({layout.looks}){hint}")
    part = layout.find(folder, split)
    sequences, skipped = [], {}
    for name in choose(part.found, names, folder):
        try:
            sequences.append(part.found[name]())
        except (SequenceError, ClipError) as error:
            if on_bad == "stop":
                raise
            skipped[name] = str(error)
    if not sequences:
        why = f": {next(iter(skipped.values()))}" if skipped else ""
        raise SequenceError(f"{folder}: no sequence can be used{why}")
    return Benchmark(RULES[protocol], part.split, tuple(sequences), skipped, part.absent)
