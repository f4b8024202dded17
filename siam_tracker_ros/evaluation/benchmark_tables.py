"""Tables that the benchmarks publish beside their data.

LaSOT's test split, and the frames of UAV123's sequences that are parts of one folder.
"""

from __future__ import annotations

_LASOT_TEST = """
airplane 1 9 13 15
basketball 1 6 7 11
bear 2 4 6 17
bicycle 2 7 9 18
bird 2 3 15 17
boat 3 4 12 17
book 3 10 11 19
bottle 1 12 14 18
bus 2 5 17 19
car 2 6 9 17
cat 1 3 18 20
cattle 2 7 12 13
spider 14 16 18 20
coin 3 6 7 18
crab 3 6 12 18
surfboard 12 4 5 8
cup 1 4 7 17
deer 4 8 10 14
dog 1 7 15 19
guitar 3 8 10 16
person 1 5 10 12
pig 2 10 13 18
rubicCube 1 6 14 19
swing 10 14 17 20
drone 13 15 2 7
pool 12 15 3 7
rabbit 10 13 17 19
racing 10 15 16 20
robot 1 19 5 8
sepia 13 16 6 8
sheep 3 5 7 9
skateboard 16 19 3 8
tank 14 16 6 9
tiger 12 18 4 6
train 1 11 20 7
truck 16 3 6 7
turtle 16 5 8 9
umbrella 17 19 2 9
yoyo 15 17 19 7
zebra 10 14 16 17
elephant 1 12 16 18
goldfish 3 7 8 10
hat 1 2 5 18
kite 4 6 10 15
motorcycle 1 3 9 18
mouse 1 8 9 17
flag 3 9 5 2
frog 3 4 20 9
gametarget 1 2 7 13
hand 2 3 9 16
helmet 5 11 19 13
licenseplate 6 12 13 15
electricfan 1 10 18 20
chameleon 3 6 11 20
crocodile 3 4 10 14
gecko 1 5 16 19
fox 2 3 5 20
giraffe 2 10 13 15
gorilla 4 6 9 13
hippo 1 7 9 20
horse 1 4 12 15
kangaroo 2 5 11 14
leopard 1 7 16 20
lion 1 5 12 20
lizard 1 3 6 13
microphone 2 6 14 16
monkey 3 4 9 17
shark 2 3 5 6
squirrel 8 11 13 19
volleyball 1 13 18 19
"""

LASOT_TEST = frozenset(
    f"{line.split()[0]}-{number}"
    for line in _LASOT_TEST.strip().splitlines()
    for number in line.split()[1:]
)
"""Names of the 280 test sequences."""

_UAV123_PARTS = """
bird1 1-253 775-1477 1573-2437
car1 1-751 751-1627 1627-2629
car6 1-487 487-1807 1807-2953 2953-3925 3925-4861
car8 1-1357 1357-2575
car16 1-415 415-1993
group1 1-1333 1333-2515 2515-3925 3925-4873
group2 1-907 907-1771 1771-2683
group3 1-1567 1567-2827 2827-4369 4369-5527
person2 1-1189 1189-2623
person4 1-1501 1501-2743
person5 1-877 877-2101
person7 1-1249 1249-2065
person8 1-1075 1075-1525
person12 1-601 601-1621
person14 1-847 847-1813 1813-2923
person17 1-1501 1501-2347
person19 1-1243 1243-2791 2791-4357
truck4 1-577 577-1261
uav1 1-1555 1555-2377 2473-3469
"""


def _parts() -> dict[str, tuple[str, int, int]]:
    found = {}
    for line in _UAV123_PARTS.strip().splitlines():
        folder, *ranges = line.split()
        for index, text in enumerate(ranges, start=1):
            first, last = text.split("-")
            found[f"{folder}_{index}"] = (folder, int(first), int(last))
    return found


UAV123_PARTS = _parts()
"""Sequence -> (folder, number of the first frame, number of the last)."""

OTB_FRAMES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "Board": (1, 698),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}
"""OTB sequences that are annotated in a part of their pictures: numbers of the first and the last."""
