"""Miniatures of the other data sets: EMDB, single frames in SPIN's npz, COCO's persons, AMASS; each in its own layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cameras import project
from ...mocap.amass import Z_UP_TO_Y_UP
from ...records import atomic_write
from ...render import visible_points
from ...rotations import rotmat_to_rotvec
from ...skeleton import BLAZEPOSE, COCO17, SMPL_JOINTS
from ..single_frames import JOINTS
from .scenes import IMAGE_SIZE, Scene, Walker, scene, write_jpg

AMASS_RATE = 120.00004577636719
"""A frame rate as AMASS has it."""


def write_emdb(root: str | Path, frames: int = 30, images: bool = True) -> Path:
    """Two sequences of one person each, in EMDB 1 and in EMDB 2; some frames are not good."""
    root = Path(root)
    for number, (subject, name) in enumerate((("P0", "00_mini_walk"), ("P1", "01_mini_stroll"))):
        film = scene(frames, 1, number + 1)
        (person,) = film.people
        rotvec = rotmat_to_rotvec(person.pose_rotmat).numpy()
        good = np.ones(frames, bool)
        good[frames // 3 : frames // 3 + 2] = False
        joints = person.body().joints(person.betas, person.pose_rotmat, person.transl)
        data = {
            "gender": person.gender,
            "name": f"{subject}_{name}",
            "emdb1": number == 0,
            "emdb2": number == 1,
            "n_frames": frames,
            "good_frames_mask": good,
            "camera": {
                "intrinsics": film.K.numpy(), "extrinsics": film.T_world2cam.numpy(), "width": IMAGE_SIZE[0],
                "height": IMAGE_SIZE[1],
            },
            "smpl": {
                "poses_root": rotvec[:, 0], "poses_body": rotvec[:, 1:].reshape(frames, 69), "trans": person.transl.numpy(),
                "betas": person.betas.numpy(),
            },
            "kp2d": project(film.to_camera(joints), film.K).numpy(),
            "bboxes": {"bboxes": np.zeros((frames, 4)), "invalid_idxs": np.flatnonzero(~good)},
        }  # fmt: skip
        folder = root / subject / name
        with atomic_write(folder / f"{subject}_{name}_data.pkl") as stream:
            pickle.dump(data, stream, protocol=4)
        for index, image in enumerate(film.frames() if images else ()):
            write_jpg(folder / "images" / f"{index:05d}.jpg", image)
    return root


def write_single_frames(path: str | Path, kind: str = "h36m", frames: int = 12, smpl: bool = True) -> Path:
    """An npz of single frames, two cameras' worth, named as Human3.6M (``h36m``) or MPI-INF-3DHP (``mpi_inf_3dhp``) names them."""
    names, parts, points, poses, shapes = [], [], [], [], []
    for number in range(2):
        film = scene(frames, 1, number)
        (person,) = film.people
        in_camera = film.to_camera(_points24(person)).numpy()
        pixels = project(torch.from_numpy(in_camera), film.K).numpy()
        known = np.array(
            [name not in ("left_eye", "right_eye", "left_ear", "right_ear", "nose") for name in JOINTS], float
        )
        root = torch.from_numpy(np.ascontiguousarray(film.T_world2cam[:, :3, :3])) @ person.pose_rotmat[:, 0]
        for t in range(frames):
            names.append(
                f"images/S{number + 1}_Walking_1.54138969_{5 * t + 1:06d}.jpg" if kind == "h36m"
                else f"S1/Seq1/imageFrames/video_{number}/frame_{10 * t + 1:06d}.jpg"
            )  # fmt: skip
            parts.append(np.c_[pixels[t], known] * known[:, None])
            points.append(np.c_[in_camera[t] - in_camera[t, JOINTS.index("pelvis_mpii")], known] * known[:, None])
            pose = torch.cat((root[t][None], person.pose_rotmat[t, 1:]))
            poses.append(rotmat_to_rotvec(pose).numpy().reshape(72))
            shapes.append(person.betas.numpy())
    arrays: dict[str, Any] = {
        "imgname": np.array(names), "center": np.zeros((len(names), 2)), "scale": np.ones(len(names)),
        "part": np.array(parts), "S": np.array(points),
    }  # fmt: skip
    if smpl:
        arrays |= {"pose": np.array(poses), "shape": np.array(shapes), "has_smpl": np.ones(len(names))}
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)
    return Path(path)


def _points24(person: Walker) -> torch.Tensor:
    """The 24 points of single-frame data sets in the world (T, 24, 3)."""
    body = person.body()
    joints, marks = body.joints_and_landmarks(person.betas, person.pose_rotmat, person.transl)
    others = {"neck_lsp": "neck", "pelvis_mpii": "pelvis", "thorax_mpii": "spine3", "spine_h36m": "spine2",
              "jaw_h36m": "neck", "head_h36m": "head", "head_top": "head"}  # fmt: skip
    out = []
    for name in JOINTS:
        if name in SMPL_JOINTS or name in others:
            out.append(joints[:, SMPL_JOINTS.index(others.get(name, name))])
        else:
            out.append(marks[:, BLAZEPOSE.index(name)])
    return torch.stack(out, 1)


def write_coco(root: str | Path, images: int = 2, split: str = "val") -> Path:
    """Images of two people with keypoints and masks: polygons, run lengths, and a crowd that is to be left out."""
    root = Path(root)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    width, height = IMAGE_SIZE
    for number in range(1, images + 1):
        film = scene(8, 2, number)
        name = f"{number:012d}.jpg"
        write_jpg(root / f"{split}2017" / name, film.frames()[0])
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for index, person in enumerate(film.people):
            mask = silhouette(film, person)
            keypoints = _coco_keypoints(film, person)
            content["annotations"].append({
                "id": 10 * number + index, "image_id": number, "category_id": 1, "iscrowd": 0,
                "num_keypoints": int((keypoints[:, 2] > 0).sum()), "keypoints": keypoints.ravel().tolist(),
                "segmentation": [_outline(mask)] if index == 0 else {"size": [height, width], "counts": run_lengths(mask)},
            })  # fmt: skip
        content["annotations"].append({
            "id": 10 * number + 9, "image_id": number, "category_id": 1, "iscrowd": 1, "num_keypoints": 0,
            "keypoints": [0] * 51, "segmentation": {"size": [height, width], "counts": [width * height]},
        })  # fmt: skip
    with atomic_write(root / "annotations" / f"person_keypoints_{split}2017.json") as stream:
        stream.write(json.dumps(content).encode())
    return root


def silhouette(film: Scene, person: Walker) -> NDArray[np.bool_]:
    """(H, W): the first frame's pixels that a person would cover alone."""
    body = person.body()
    vertices = film.to_camera(body.vertices(person.betas, person.pose_rotmat, person.transl))[:1].float()
    seen = visible_points(vertices, body.faces, film.K[None].float(), IMAGE_SIZE)
    out = np.zeros(IMAGE_SIZE[::-1], bool)
    out[seen.row.numpy(), seen.column.numpy()] = True
    return out


def _coco_keypoints(film: Scene, person: Walker) -> NDArray[np.int64]:
    marks = person.body().landmarks(person.betas, person.pose_rotmat, person.transl)
    index = [BLAZEPOSE.index(name) for name in COCO17]
    pixels = project(film.to_camera(marks), film.K)[0, index].numpy()
    visible = np.full((len(COCO17), 1), 2)
    visible[3], visible[4] = 1, 0  # an ear hidden, the other not marked
    return np.concatenate((np.floor(pixels), visible), 1).astype(np.int64) * (visible > 0)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's run lengths: background and person in turn, column by column."""
    values = mask.T.ravel()
    edges = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff(np.concatenate(([0], edges, [values.size]))).tolist()
    return [0, *lengths] if values[0] else lengths


def _outline(mask: NDArray[np.bool_]) -> list[float]:
    """A polygon down the left edge of each row and up the right one."""
    rows = np.flatnonzero(mask.any(1))
    left, right = mask[rows].argmax(1), mask.shape[1] - mask[rows, ::-1].argmax(1)
    edge = np.concatenate((np.c_[left, rows + 0.5], np.c_[right, rows + 0.5][::-1]))
    return edge.astype(float).ravel().tolist()


def write_amass(root: str | Path, frames: int = 40) -> Path:
    """Three sub-sets, one of each split: SMPL+H (bytes for gender, a fractional rate), SMPL-X, and SMPL; z up."""
    root = Path(root)
    cases = (
        ("CMU/01/01_01_poses", 156, {"gender": np.array(b"male"), "mocap_framerate": np.array(AMASS_RATE)}),
        ("HumanEva/S1/Walking_1_stageii", 165, {"gender": np.array("female"), "mocap_frame_rate": np.array(120.0)}),
        ("SSM_synced/20160330/walk_poses", 72, {"gender": np.array("neutral"), "mocap_framerate": np.array(60)}),
    )
    for number, (name, values, fields) in enumerate(cases):
        (person,) = scene(frames, 1, number).people
        pelvis = person.body().rest_joints(person.betas)[0].numpy()
        rotmat = person.pose_rotmat.numpy().copy()
        rotmat[:, 0] = Z_UP_TO_Y_UP.T @ rotmat[:, 0]
        poses = np.zeros((frames, values))
        poses[:, :66] = rotmat_to_rotvec(torch.from_numpy(rotmat)).numpy()[:, :22].reshape(frames, 66)
        trans = (person.transl.numpy() + pelvis) @ Z_UP_TO_Y_UP - pelvis
        arrays: dict[str, Any] = {
            "poses": poses,
            "trans": trans,
            "betas": np.append(person.betas.numpy(), np.zeros(6)),
            **fields,
        }
        with atomic_write(root / f"{name}.npz") as stream:
            np.savez(stream, **arrays)
    return root
