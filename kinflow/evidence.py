"""Evidence: what the front end saw of one person."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from .records import Record, array, scalar


@dataclasses.dataclass(frozen=True)
class Evidence(Record):
    """One person's 2D keypoints, 3D hints, masks, body parts and boxes, a row for every frame from first to last sighting.

    Rows with ``observed`` false (occluded, lost) hold zeros.
    """

    SCHEMA: ClassVar[str] = "kinflow.evidence/1"

    person_id: int = scalar("int", "Number of the person, from 0.")
    frame_ids: np.ndarray = array("T", "int64", "Index of each frame in the clip, from 0.")
    timestamps: np.ndarray = array("T", "float64", "Time of each frame in seconds, strictly increasing.")
    observed: np.ndarray = array("T", "bool", "Whether the person was seen in the frame.")
    keypoints2d: np.ndarray = array("T 33 2", "float32", "BlazePose landmarks in px of the full frame.")
    confidence: np.ndarray = array("T 33", "float32", "Of each landmark, 0..1; 0 where there is none.")
    world_landmarks: np.ndarray = array(
        "T 33 3", "float32", "BlazePose world landmarks in m, origin between the hips, x right, y down, z forward."
    )
    has_world: np.ndarray = array("T", "bool", "Whether world_landmarks holds a measurement.")
    boxes_xyxy: np.ndarray = array("T 4", "float32", "Box around the person in px of the full frame.")
    rois: np.ndarray = array("T 4", "float32", "Crop the networks saw: centre x, y, side in px, angle in rad.")
    image_size: np.ndarray = array("2", "int64", "Width and height of the frames in px.")
    masks: np.ndarray | None = array("T 64 64", "uint8", "Person mask inside the crop, 0..255.", optional=True)
    world_std: np.ndarray | None = array(
        "T 33 2",
        "float32",
        "Standard deviation of world_landmarks in m, across the line of sight and along it.",
        optional=True,
    )
    features: np.ndarray | None = array(
        "T 33 C", "float16", "The landmark network's decoder features at the keypoints.", optional=True
    )
    code: np.ndarray | None = array(
        "T D", "float16", "The landmark network's last hidden layer, in which its landmarks are linear.", optional=True
    )

    parts: np.ndarray | None = array(
        "T 48 48", "uint8", "Body part inside its own crop: 0 none, else 1 + its place in BODYPIX24.", optional=True
    )
    part_confidence: np.ndarray | None = array(
        "T 48 48", "uint8", "Confidence in the part, 0..255; 0 where there is none.", optional=True
    )
    part_rois: np.ndarray | None = array("T 4", "float32", "Crop that parts fills, as rois.", optional=True)
    looked: np.ndarray | None = array(
        "T",
        "bool",
        "Whether the landmark network looked at the frame; false where the person was not seen, or in frames between two "
        "looks, whose landmarks were interpolated. Absent: it looked wherever observed.",
        optional=True,
    )

    def __len__(self) -> int:
        return len(self.frame_ids)
