"""``kinflow-train adapt``: what is held out, what is rehearsed, and that weights change for the better or not at all."""

from __future__ import annotations

import copy
import dataclasses
import functools
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed_clips import film, swinging
from small_reconstructor import DYNAMICS, FLOW, LIFTER, SMALL
from test_config_effects_training import check, leaves, observed

from kinflow.assets.weights import load_weights, save_weights
from kinflow.body import Body
from kinflow.cli.train import main
from kinflow.config import AdaptationConfig, WeakLossConfig, load_config
from kinflow.dynamics import LatentDynamics
from kinflow.errors import NotBetterError, UsageError
from kinflow.flow import PoseFlow
from kinflow.prior import MotionPrior
from kinflow.reconstruction import Reconstructor
from kinflow.reconstruction.fingerprint import fingerprint
from kinflow.reconstruction.lifting import Lifter
from kinflow.training import adaptation as module
from kinflow.training.adaptation import AdaptationTask, adapt, sampled_motions, split_footage
from kinflow.training.streams.footage import Footage
from kinflow.training.tasks.reconstructor import OwnWeights

SETTINGS = ["train.batch=4", "train.validate_every=10", "train.log_every=10", "train.warmup=2", "projection.frames=8",
            "motions=3", "losses.keypoint_scale=1", "losses.part_scale=1"]  # fmt: skip
"""Scales so wide that an untrained pose is no outlier."""


def settings(*more: str) -> AdaptationConfig:
    return load_config(AdaptationConfig, None, [*SETTINGS, *more])


@pytest.fixture(scope="module")
def base() -> Reconstructor:
    """Small and untrained."""
    torch.manual_seed(3)
    return Reconstructor(SMALL, Body.open("light"), Lifter(LIFTER), PoseFlow(FLOW), LatentDynamics(DYNAMICS))


@pytest.fixture(autouse=True, scope="module")
def drawn_once() -> Iterator[None]:
    """The prior and the motions drawn from it, which take longest, are had once for each number of them."""
    with pytest.MonkeyPatch.context() as patch:
        prior = MotionPrior.load()
        patch.setattr(module.MotionPrior, "load", lambda: prior)
        drawn = functools.cache(lambda count: sampled_motions(prior, count, torch.Generator().manual_seed(0)))
        patch.setattr(module, "sampled_motions", lambda _, count, __: drawn(count))
        yield


@pytest.fixture
def started(base: Reconstructor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its weights, which take the place of the packaged ones, with the parts that belong to them."""
    card = {
        "flow fingerprint": fingerprint(base.flow),
        "dynamics fingerprint": fingerprint(base.network.filter.dynamics),
    }
    path = save_weights(tmp_path / "base.safetensors", OwnWeights(base.network), base.config, card)
    for name, part in (("flow", base.flow), ("dynamics", base.network.filter.dynamics), ("lifter", base.lifter)):
        monkeypatch.setattr(f"kinflow.reconstruction.reconstructor.load_{name}", lambda part=part: copy.deepcopy(part))
    monkeypatch.setattr("kinflow.reconstruction.reconstructor.Body.open", lambda: base.body)
    monkeypatch.setattr("kinflow.reconstruction.reconstructor.asset_path", lambda _: path)
    monkeypatch.setattr(module, "asset_path", lambda _: path)
    return path


# -- parts ------------------------------------------------------------------------------------------------------------


def test_the_last_part_of_everybody_is_held_out(base: Reconstructor) -> None:
    long, short = swinging(base.body, 60)[0], swinging(base.body, 14)[0]
    kept, held = split_footage([Footage(Path("a"), (long, short))], 0.25)
    assert [len(e) for e in kept[0].people] == [33, 14] and [len(e) for e in held[0].people] == [15]
    assert held[0].people[0].timestamps[0] - kept[0].people[0].timestamps[-1] >= 0.5
    np.testing.assert_array_equal(held[0].people[0].parts, long.parts[45:])
    with pytest.raises(UsageError, match=r"half a second and 16 frames.* got 14 frames at most"):
        split_footage([Footage(Path("a"), (short,))], 0.25)


def test_rehearsed_motions_are_likely_and_move() -> None:
    prior = MotionPrior.load()
    motions = sampled_motions(prior, 2, torch.Generator().manual_seed(0))
    again = sampled_motions(prior, 2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(motions[1].transl, again[1].transl)
    for motion in motions:
        assert motion.body_pose.shape == (120, 21, 3)
        assert 0.1 < (motion.transl[1:] - motion.transl[:-1]).norm(dim=-1).mean() * motion.fps < 3
        assert motion.global_rotmat[:, 1, 1].min() > 0.999 and prior.log_prob(motion.body_pose, fps=30).mean() > 100


def test_the_network_as_it_was_departs_from_itself_by_nothing(base: Reconstructor) -> None:
    person, _ = swinging(base.body, 60)
    kept, held = split_footage([Footage(Path("a"), (person,))], 0.25)
    task = AdaptationTask(base, kept, held, settings(), torch.device("cpu"))
    _, terms = task.loss(task.draw(np.random.default_rng(0)))
    holding = {k: float(v) for k, v in terms.items() if k.startswith("holding")}
    assert len(holding) == 6 and max(map(abs, holding.values())) < 1e-3
    with torch.no_grad():
        for p in task.module.fusion_head.parameters():
            p.add_(0.05)
    _, terms = task.loss(task.draw(np.random.default_rng(0)))
    assert float(terms["holding.smoothed"]) > 1e-3
    assert all(v.grad is None for v in base.network.parameters())


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_clip_is_seen_better_afterwards(base: Reconstructor, started: Path, tmp_path: Path) -> None:
    clip = film(tmp_path / "clips", [swinging(base.body, 70)[0]])
    out = tmp_path / "adapted.safetensors"
    adapted = adapt([clip], out, settings("train.steps=30", "train.lr=5e-3", "price=0"), device="cpu")
    assert adapted.path == out and adapted.after["alignment"] < 0.9 * adapted.before["alignment"]
    assert adapted.frames > 3 * adapted.held_out / 2 and adapted.steps in (10, 20, 30)
    state, _, header = load_weights(out)
    assert "held out: keypoints" in header["card"]["adaptation"] and "1 clips" in header["card"]["adapted to"]
    old = load_weights(started)[0]
    assert state.keys() == old.keys() and any(not torch.equal(state[k], old[k]) for k in old)
    Reconstructor.load(out)  # with the flow and the dynamics that it was trained with


def test_weights_stay_where_the_part_held_out_gets_worse(
    base: Reconstructor, started: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = film(tmp_path / "clips", [swinging(base.body, 70)[0]])
    out = tmp_path / "adapted.safetensors"
    out.write_bytes(b"earlier")
    wild = ["train.steps=10", "train.lr=100", "train.grad_clip=1000", "train.warmup=0"]
    with pytest.raises(NotBetterError, match=r"not written, .* did not get better \(keypoints"):
        adapt([clip], out, settings(*wild), device="cpu")
    arguments = ["adapt", str(clip), "-o", str(out), "--device", "cpu", "--quiet"]
    assert main([*arguments, *(x for s in [*SETTINGS, *wild] for x in ("--set", s))]) == 7
    assert "did not get better" in capsys.readouterr().err
    assert out.read_bytes() == b"earlier" and not (tmp_path / "adapted.md").exists()


def test_less_plausible_motion_is_no_gain(base: Reconstructor) -> None:
    """Better aligned, but less likely by so much that it is no better."""
    person, _ = swinging(base.body, 60)
    kept, held = split_footage([Footage(Path("a"), (person,))], 0.25)
    task = AdaptationTask(base, kept, held, settings("price=0.2"), torch.device("cpu"))
    assert task.validate(task.module)["score"] == pytest.approx(1.0, abs=1e-4)
    task.before = {**task.before, "alignment": 2 * task.before["alignment"]}
    assert task.validate(task.module)["score"] == pytest.approx(0.5, abs=1e-4)
    task.before["plausibility"] += 3
    assert task.validate(task.module)["score"] == pytest.approx(1.1, abs=1e-3)
    task.before["plausibility"] -= 6  # what is more likely than before is no merit
    assert task.validate(task.module)["score"] == pytest.approx(0.5, abs=1e-3)


def test_the_name_of_the_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends in \.safetensors, got 'w\.pt'"):
        adapt(["x.mp4"], tmp_path / "w.pt")


# -- settings ---------------------------------------------------------------------------------------------------------


def _own() -> list[str]:
    groups = {"train", "projection"}  # walked by test_config_effects_training.py
    return [n for n in leaves(AdaptationConfig) if n.split(".")[0] not in groups] + ["train.batch", "projection.frames"]


@pytest.mark.parametrize("name", _own())
def test_every_setting_counts(name: str, base: Reconstructor) -> None:
    person, _ = swinging(base.body, 60)

    def observe(config: AdaptationConfig) -> Any:
        kept, held = split_footage([Footage(Path("a"), (person,))], config.held_out)
        torch.manual_seed(0)
        task = AdaptationTask(base, kept, held, config, torch.device("cpu"))
        with torch.no_grad():
            task.module.fusion_head[-1].bias.add_(0.2)
        task.before["plausibility"] += 1
        _, batch, loss, terms = observed(task)
        return batch, loss, terms, dict(task.validate(task.module))

    others = {"held_out": "0.4", "rehearsal": "0.25"}
    base_settings = [s for s in SETTINGS if "scale" not in s]
    check(name, AdaptationConfig, base_settings, others, observe)


def test_losses_of_clips_are_those_of_training() -> None:
    weak = {f.name for f in dataclasses.fields(WeakLossConfig)}
    assert typing.get_type_hints(AdaptationConfig)["losses"] is WeakLossConfig
    assert set(module.ALIGNMENT) <= weak
