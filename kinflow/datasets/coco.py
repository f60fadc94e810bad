"""COCO 2017 (Lin et al., ECCV 2014): 17 keypoints and masks of people in single images, for supervision without 3D.

The annotations are CC BY 4.0, the images have licences of their own; https://cocodataset.org has both:
``annotations/person_keypoints_train2017.json`` and ``train2017/000000000009.jpg``.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, MissingAssetError, UsageError
from ..skeleton import COCO17
from .recording import Recording

HOME = "https://cocodataset.org"
SPLITS = ("train", "val")


class CocoPersons:
    """People of COCO 2017 as a :class:`~kinflow.datasets.recording.DataSet`; a sequence is one image, by its number.

    Crowds and people without a keypoint are left out.

    Args:
        root: the folder that holds ``annotations`` and the images' folders.
        split: ``"train"`` or ``"val"``.
        images: whether the images are needed.

    Raises:
        UsageError: no such split.
        MissingAssetError: no annotations.
        FormatError: they are something else.
    """

    name = "coco"
    missing: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike[str], split: str = "train", images: bool = False) -> None:
        if split not in SPLITS:
            raise UsageError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
        self.root, self.split, self.images = Path(root), split, images
        self.path = self.root / "annotations" / f"person_keypoints_{split}2017.json"
        if not self.path.is_file():
            raise MissingAssetError(f"{self.path}: no such file; annotations_trainval2017.zip is at {HOME}.")
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self._images = {int(image["id"]): image for image in content["images"]}
            self._people: dict[int, list[dict[str, Any]]] = {}
            for annotation in content["annotations"]:
                if not annotation.get("iscrowd") and annotation["num_keypoints"] > 0:
                    self._people.setdefault(int(annotation["image_id"]), []).append(annotation)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{self.path.name}: expected COCO's keypoint annotations ({error!r}). Download them again."
            ) from None
        self.sequences = tuple(f"{number:012d}" for number in sorted(self._people) if number in self._images)

    def read(self, sequence: str) -> list[Recording]:
        """The people of one image.

        Raises:
            MissingAssetError: no such image.
            FormatError: an annotation is damaged.
        """
        if sequence not in self.sequences:
            raise MissingAssetError(f"{sequence}: no image of that number with people in {self.path.name}.")
        number = int(sequence)
        image = self._images[number]
        try:
            size = int(image["width"]), int(image["height"])
            file = self.root / f"{self.split}2017" / str(image["file_name"])
            if self.images and not file.is_file():
                raise MissingAssetError(f"{file}: no such image; {self.split}2017.zip is at {HOME}.")
            recordings = []
            for person, annotation in enumerate(self._people[number]):
                points = np.array(annotation["keypoints"], np.float64).reshape(1, 17, 3)
                recordings.append(
                    Recording(
                        dataset=self.name,
                        sequence=sequence,
                        person=person,
                        timestamps=np.zeros(1),
                        frame_ids=np.zeros(1, np.int64),
                        valid=np.ones(1, bool),
                        images=(file,) if self.images else (),
                        image_size=size,
                        # Annotators clicked pixels, numbered from 0; a pixel's centre lies half a pixel further.
                        keypoints2d=np.where(points[..., 2:] > 0, points[..., :2] + 0.5, 0.0),
                        confidence=(points[..., 2] > 0) * np.where(points[..., 2] > 1, 1.0, 0.5),  # 1 is hidden, 2 seen
                        layout=COCO17,
                        mask=functools.partial(_mask, annotation["segmentation"], size),
                    )
                )
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{self.path.name}: image {sequence}: a damaged annotation ({error!r}).") from None
        return recordings


def _mask(segmentation: Any, image_size: tuple[int, int], frame: int) -> NDArray[np.bool_]:
    """(H, W) bool of COCO's polygons, or of its run lengths.

    Raises:
        FormatError: neither.
    """
    width, height = image_size
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            return _runs(_unpacked(counts) if isinstance(counts, str) else counts, width, height)
        out = np.zeros((height, width), bool)
        for polygon in segmentation:
            out |= _inside(np.array(polygon, np.float64).reshape(-1, 2), width, height)
        return out
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"segmentation: expected polygons or run lengths ({error!r}).") from None


def _runs(counts: Any, width: int, height: int) -> NDArray[np.bool_]:
    """Lengths of runs of background and person in turn, column by column."""
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T.copy()


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, least first, each from the third on as the difference to the one two
    before."""
    counts: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[at]) - 48
            value |= (bits & 31) << shift
            shift += 5
            more = bool(bits & 32)
            if not more and bits & 16:
                value -= 1 << shift
            at += 1
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _inside(polygon: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Pixels (H, W) whose centre is inside a polygon (P, 2), by the even-odd rule."""
    out = np.zeros((height, width), bool)
    x, y = polygon.T
    following = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(width) + 0.5
    for row in range(max(0, int(y.min())), min(height, int(np.ceil(y.max())) + 1)):
        level = row + 0.5
        crosses = (y <= level) != (following[1] <= level)
        share = (level - y[crosses]) / (following[1][crosses] - y[crosses])
        at = x[crosses] + share * (following[0][crosses] - x[crosses])
        out[row] = (at[:, None] <= centres).sum(0) % 2 == 1
    return out
