"""Small imitations of published data sets: their folders, file names and annotations, 32-px pictures."""

from __future__ import annotations

import csv
import gzip
import json

import cv2
import numpy as np

W, H = 64, 48
BOX = (10, 8, 24, 30)


def picture(path, level=100, size=(W, H), box=BOX):
    """A gray picture with a red rectangle."""
    image = np.full((size[1], size[0], 3), level, np.uint8)
    if box is not None:
        x, y, w, h = (round(v) for v in box)
        image[max(0, y) : y + h, max(0, x) : x + w] = (30, 30, 220)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(boxes):
    return "".join(",".join(f"{v:g}" for v in box) + "\n" for box in boxes)


def moved(i):
    return (BOX[0] + i, BOX[1], BOX[2], BOX[3])


def got10k(root):
    """Two videos of five frames; in the first, frame 3 is absent and frame 4 mostly covered."""
    names = ["GOT-10k_Train_000001", "GOT-10k_Train_000002"]
    write(root / "list.txt", "\n".join(names) + "\n")
    for name, absence, cover in zip(names, ("00100", "00000"), ("88028", "88888"), strict=True):
        folder = root / name
        boxes = [(0, 0, 0, 0) if a == "1" else moved(i) for i, a in enumerate(absence)]
        write(folder / "groundtruth.txt", lines(boxes))
        write(folder / "absence.label", "\n".join(absence) + "\n")
        write(folder / "cover.label", "\n".join(cover) + "\n")
        write(folder / "cut_by_image.label", "\n".join("00000") + "\n")
        write(
            folder / "meta_info.ini",
            "[METAINFO]\nurl: https://example.org/v\nbegin: 00:00:00\nend: 00:00:10\n"
            "anno_fps: 10Hz\nobject_class: anaconda\nmotion_class: slithering\n"
            "major_class: reptile\nroot_class: animal\nmotion_adverb: slowly\n"
            "resolution: (64, 48)\n",
        )
        for i, box in enumerate(boxes):
            picture(folder / f"{i + 1:08d}.jpg", box=box)
    return root


def lasot(root):
    """A training video with an occluded and an absent frame, and a test video."""
    write(root / "testing_set.txt", "airplane-2\n")
    for name in ("airplane-1", "airplane-2"):
        folder = root / "airplane" / name
        write(folder / "groundtruth.txt", lines(moved(i) for i in range(5)))
        write(folder / "full_occlusion.txt", "0,0,1,0,0")
        write(folder / "out_of_view.txt", "0,0,0,1,0")
        write(folder / "nlp.txt", "red plate\n")
        for i in range(5):
            picture(folder / "img" / f"{i + 1:08d}.jpg", box=moved(i))
    return root


def trackingnet(root):
    """A video of eleven frames, whose names are not in the order of letters; frame 4 has no box."""
    boxes = [(-1, -1, -1, -1) if i == 4 else moved(i) for i in range(11)]
    write(root / "TRAIN_0" / "anno" / "abc_0.txt", lines(boxes))
    for i, box in enumerate(boxes):
        picture(root / "TRAIN_0" / "frames" / "abc_0" / f"{i}.jpg", box=box)
    return root


def imagenet_xml(path, objects):
    things = "".join(
        f"<object>{f'<trackid>{track}</trackid>' if track is not None else ''}<name>{name}</name>"
        f"<bndbox><xmax>{x + w}</xmax><xmin>{x}</xmin><ymax>{y + h}</ymax><ymin>{y}</ymin></bndbox>"
        f"<occluded>{occluded}</occluded><generated>0</generated></object>"
        for (x, y, w, h), name, track, occluded in objects
    )
    write(
        path,
        f"<annotation><folder>f</folder><filename>{path.stem}</filename><source><database>ILSVRC"
        f"</database></source><size><width>{W}</width><height>{H}</height></size>{things}</annotation>",
    )


def imagenet_vid(root):
    """A snippet of five frames with two objects; the second is hidden in frame 1 and gone in 2 and 3."""
    part = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    for i in range(5):
        objects = [(moved(i), "n02691156", 0, 0)]
        if i not in (2, 3):
            objects.append(((38, 20, 22, 24), "n02691156", 1, int(i == 1)))
        imagenet_xml(root / "Annotations" / "VID" / part / f"{i:06d}.xml", objects)
        picture(root / "Data" / "VID" / part / f"{i:06d}.JPEG", box=moved(i))
    return root


def imagenet_det(root):
    """An image with two objects, and one with none."""
    notes, data = (
        root / kind / "DET" / "train" / "ILSVRC2014_train_0000" for kind in ("Annotations", "Data")
    )
    imagenet_xml(
        notes / "ILSVRC2014_train_00000001.xml",
        [(BOX, "n00007846", None, 0), ((40, 30, 5, 5), "n00007846", None, 0)],
    )
    imagenet_xml(notes / "ILSVRC2014_train_00000002.xml", [])
    for number in (1, 2):
        picture(data / f"ILSVRC2014_train_{number:08d}.JPEG", box=BOX if number == 1 else None)
    return root


def youtube_bb(root):
    """A clip of four seconds, absent in the third, with one frame that was not downloaded."""
    rows = []
    for i in range(5):
        absent = i == 2
        edges = (-1, -1, -1, -1) if absent else (10 / W, 34 / W, 8 / H, 38 / H)
        rows.append(
            [
                "AAB6lO-XiKE",
                238000 + 1000 * i,
                0,
                "person",
                0,
                "absent" if absent else "present",
                *edges,
            ]
        )
        if i < 4:
            picture(
                root / "JPEGImages" / f"AAB6lO-XiKE+0+0+{238000 + 1000 * i}.jpg",
                box=None if absent else BOX,
            )
    with gzip.open(root / "yt_bb_detection_train.csv.gz", "wt", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


def coco(root):
    """Two images: two cats and a crowd of them, and none."""
    whole = {"image_id": 9, "category_id": 17, "iscrowd": 0, "area": 720}
    notes = [
        {**whole, "id": 1, "bbox": list(BOX), "segmentation": [[1, 2, 3]]},
        {**whole, "id": 2, "bbox": [38.5, 4.25, 22, 20], "segmentation": [[1]]},
        {**whole, "id": 3, "bbox": [0, 0, 60, 20], "iscrowd": 1, "segmentation": {"counts": [1]}},
    ]
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "width": W, "height": H, "license": 1}
        for n in (25, 9)
    ]
    content = {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": notes,
        "categories": [{"id": 17, "name": "cat", "supercategory": "animal"}],
    }
    write(root / "annotations" / "instances_train2017.json", json.dumps(content))
    for number in (9, 25):
        picture(root / "train2017" / f"{number:012d}.jpg", box=BOX if number == 9 else None)
    return root


def citypersons(root):
    """An image with a pedestrian, one half hidden, a group and a region to ignore."""
    name = "aachen_000000_000019"
    objects = [
        {"instanceId": 24000, "bbox": list(BOX), "bboxVis": list(BOX), "label": "pedestrian"},
        {
            "instanceId": 24001,
            "bbox": [36, 5, 20, 40],
            "bboxVis": [36, 5, 10, 20],
            "label": "rider",
        },
        {
            "instanceId": 24002,
            "bbox": [1, 1, 30, 30],
            "bboxVis": [1, 1, 30, 30],
            "label": "person group",
        },
        {"instanceId": -1, "bbox": [30, 1, 25, 25], "bboxVis": [30, 1, 25, 25], "label": "ignore"},
    ]
    write(
        root / "gtBboxCityPersons" / "train" / "aachen" / f"{name}_gtBboxCityPersons.json",
        json.dumps({"imgHeight": H, "imgWidth": W, "objects": objects}),
    )
    picture(root / "leftImg8bit" / "train" / "aachen" / f"{name}_leftImg8bit.png")
    return root


def widerface(root):
    """An image with a clear, an invalid and a heavily occluded face, and one without any."""
    write(
        root / "wider_face_split" / "wider_face_train_bbx_gt.txt",
        "0--Parade/0_Parade_1.jpg\n3\n10 8 24 30 0 0 0 0 0 0 \n36 4 22 24 0 0 0 1 0 0 \n"
        "5 5 26 28 2 0 0 0 2 1 \n0--Parade/0_Parade_2.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n",
    )
    for number in (1, 2):
        picture(root / "WIDER_train" / "images" / "0--Parade" / f"0_Parade_{number}.jpg")
    return root


def folder(root):
    """Frames with groundtruth.txt: absent in the third of four."""
    write(root / "clip" / "groundtruth.txt", "10,8,24,30\n11 8 24 30\nabsent\n13,8,24,30\n")
    for i in range(4):
        picture(root / "clip" / f"{i}.png", box=None if i == 2 else moved(i))
    return root


def notes(root):
    """annotations.jsonl: a still with two cups and a video of two frames."""
    rows = [
        {"image": "images/a.png", "width": W, "height": H, "video": None, "frame": None,
         "objects": [{"box": BOX, "category": "cup", "track": None},
                     {"box": [38, 4, 22, 24], "category": "cup", "track": None, "state": "occluded"}]},
    ]  # fmt: skip
    for i in range(2):
        thing = {"box": moved(i), "category": "ball", "track": 3}
        rows.append(
            {
                "image": f"images/v{i}.png",
                "width": W,
                "height": H,
                "video": "v",
                "frame": i,
                "objects": [thing],
            }
        )
    for row in rows:
        picture(root / row["image"])
    write(root / "annotations.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return root
