"""Damaged inputs of every kind, made from a seed, and a judge of how the commands take them.

``python tests/fuzz.py --count 3000`` runs every kind in child processes and prints a table. Case ``i`` of a kind is the
same every time: ``python tests/fuzz.py --kind mp4 --first 17 --count 1 --show`` looks at one. ``test_fuzz.py`` runs a few
of each. Networks are stubs where an input cannot reach what they compute.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import io
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_samples as samples
import numpy as np
import torch

from kinflow.cli import smooth, train, video
from kinflow.cli.command import new_parser, run_command
from kinflow.errors import KinflowError

Rng = np.random.Generator
ABSURD: list[Any] = [
    0, -1, 1, 2**31, -(2**63), 2**64, 10**30, 1e-9, 1e30, 1e400, float("nan"), None, True, "", "x", "é" * 40, [], {}, [[]],
    [1, [2]], {"a": 1}, [float("nan")] * 3, "1e-3", "../../etc", "\x00",
]  # fmt: skip


class Accepted(KinflowError):
    """Raised by the stubs where the input has been read: ends a command with exit code 0."""

    exit_code = 0


class Hang(BaseException):
    """The watchdog's."""


# -- mutations ---------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: Rng) -> bytes:
    """Bytes with flipped bits, cut off, spliced, with zeroed or exchanged blocks, or with an absurd number in them."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        size = len(out)
        if size < 8:
            break
        a, b = sorted(int(v) for v in rng.integers(0, size, 2))
        b = min(b, a + int(rng.integers(1, 512)))
        match int(rng.integers(7)):
            case 0:
                for at in rng.integers(0, size, int(rng.integers(1, 33))):
                    out[at] ^= 1 << int(rng.integers(8))
            case 1:
                del out[int(rng.integers(1, size)) :]
            case 2:
                at = int(rng.integers(0, size))
                out[at:at] = out[a:b]
            case 3:
                del out[a:b]
            case 4:
                out[a:b] = bytes(b - a)
            case 5:
                c = int(rng.integers(0, size - (b - a) + 1))
                out[a:b], out[c : c + b - a] = out[c : c + b - a], out[a:b]
            case 6:  # most numbers that matter stand at either end
                at = int(rng.choice([rng.integers(0, min(size, 1024)), rng.integers(max(0, size - 2048), size)]))
                number = rng.choice([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00\x00\x00\x01"])
                out[at : at + len(number)] = number
    return bytes(out)


def mutated_text(data: bytes, rng: Rng) -> bytes:
    """A number, word or bracket of a text exchanged for something absurd, or dropped."""
    text = data.decode("utf-8", "replace")
    for _ in range(int(rng.integers(1, 4))):
        tokens = list(re.finditer(r'-?\d+\.?\d*(?:[eE][-+]?\d+)?|"[^"]*"|[\[\]{}:,]|\w+', text))
        if not tokens:
            break
        token = tokens[int(rng.integers(len(tokens)))]
        new = "" if rng.random() < 0.2 else json.dumps(ABSURD[int(rng.integers(len(ABSURD)))])
        text = text[: token.start()] + new + text[token.end() :]
    return text.encode("utf-8", "replace")


def mutated_npz(data: bytes, rng: Rng) -> bytes:
    """Members of an archive exchanged, dropped, renamed, with other headers, types, shapes and values."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    name, other = (str(rng.choice(list(members))) for _ in range(2))
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    value = np.load(io.BytesIO(members[name]), allow_pickle=False)
    kind = int(rng.integers(9))
    if kind == 0:
        members[name], members[other] = members[other], members[name]
    elif kind == 1:
        del members[name]
    elif kind == 2:
        members[name.removesuffix(".npy")] = members.pop(name)
    elif kind == 3:
        shapes = ["(9999999999, 9999999)", "(-1,)", "(0,)", "()", "(2, 2", "('a',)", "None", "(1e3,)"]
        members[name] = _headed(members[name], rb"'shape': \([^)]*\)", f"'shape': {rng.choice(shapes)}")
    elif kind == 4:
        kinds = ["'|O'", "'<f2'", "'>f8'", "'<c16'", "'<U9'", "'|V3'", "'<M8[s]'", "'zz'", "[('a', '<f4')]"]
        members[name] = _headed(members[name], rb"'descr': '[^']*'", f"'descr': {rng.choice(kinds)}")
    elif kind == 5:
        types = [np.float16, np.float64, np.int64, np.complex64, np.str_, bool, object, "S8"]
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            members[name] = _npy(value.astype(types[int(rng.integers(len(types)))]))
    elif kind == 6:
        forms = [
            value.T,
            value[None],
            value.reshape(-1),
            value[..., None],
            np.zeros((0, *value.shape[1:]), value.dtype),
        ]
        members[name] = _npy(forms[int(rng.integers(len(forms)))])
    elif kind == 7 and value.dtype.kind in "fiub" and value.size:
        value = value.copy()
        with np.errstate(all="ignore"):
            bad = np.array([np.nan, np.inf, 1e300, -1.0, 0.0, 1e9, 3e38])[int(rng.integers(7))].astype(value.dtype)
        value[(...,) if rng.random() < 0.3 else np.unravel_index(int(rng.integers(value.size)), value.shape)] = bad
        members[name] = _npy(value)
    elif kind == 8:
        members[name] = mutated(members[name], rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    out = bytearray(stream.getvalue())
    if rng.random() < 0.15:  # an unknown compression, or encryption, in the directory of members
        at = out.rindex(b"PK\x01\x02")
        out[at + int(rng.choice([8, 10]))] = int(rng.choice([1, 6, 99]))
    return bytes(out)


def mutated_weights(data: bytes, rng: Rng) -> bytes:
    """A safetensors file with another length of its header, or another header of the right length."""
    length = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.2:
        return struct.pack("<Q", int(rng.choice([0, 1, length - 1, length + 1, 2**40, 2**63 - 1]))) + data[8:]
    header = json.loads(data[8 : 8 + length])
    ours = json.loads(header["__metadata__"]["kinflow"])
    if rng.random() < 0.5:
        place = ours["config"] if rng.random() < 0.7 else ours
        place[str(rng.choice(list(place)))] = ABSURD[int(rng.integers(len(ABSURD)))]
        header["__metadata__"]["kinflow"] = json.dumps(ours)
        text = json.dumps(header).encode()
    else:
        text = mutated_text(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _headed(npy: bytes, pattern: bytes, new: str) -> bytes:
    """An npy file with another header, of the length that it says."""
    size = struct.unpack("<H", npy[8:10])[0]
    header = re.sub(pattern, lambda _: new.encode(), npy[10 : 10 + size])
    return npy[:8] + struct.pack("<H", len(header)) + header + npy[10 + size :]


def _npy(value: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value), allow_pickle=True)
    return stream.getvalue()


# -- kinds -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input: intact files by name, what reads the damaged one, and the exit codes that fit.

    ``run(path, out)`` returns the exit code; ``path`` holds the damaged file, in the folder that is the working folder.
    """

    name: str
    files: Callable[[], dict[str, bytes]]
    run: Callable[[Path, Path], int]
    codes: tuple[int, ...]
    mutate: Callable[[bytes, Rng], bytes] = mutated


def _video(*more: str) -> Callable[[Path, Path], int]:
    return lambda path, out: video.main([str(path), "-o", str(out), "--quiet", *more])


def _beside_a_clip(option: str) -> Callable[[Path, Path], int]:
    def run(path: Path, out: Path) -> int:
        clip = samples.clip_file()
        value = path.parent if option == "--keypoints" and path.suffix == ".json" and "_key" in path.name else path
        return video.main([str(clip), "-o", str(out), "--quiet", option, str(value)])

    return run


def _string(*options: str) -> Callable[[Path, Path], int]:
    """The damaged text is itself an argument."""

    def run(path: Path, out: Path) -> int:
        text = path.read_bytes().decode("utf-8", "replace").replace("\x00", "")
        arguments = [f"{o}={text}" if o.startswith("--") else o for o in options]
        try:
            return video.main([str(samples.clip_file()), "-o", str(out), "--quiet", *arguments])
        except SystemExit as stopped:  # argparse's own refusal
            print("kinflow-video: usage", file=sys.stderr)
            return int(stopped.code or 0)

    return run


def _train(path: Path, out: Path) -> int:
    network = path.stem.split("-")[0]
    return train.main([network, "--config", str(path), "--data", str(path), "--out", str(out), "--quiet"])


def _reader(read: Callable[[Path], Any]) -> Callable[[Path, Path], int]:
    """A reader of the Python API, ended as a command ends."""

    def action(path: Path) -> None:
        read(path)
        raise Accepted("read")

    return lambda path, out: run_command(new_parser("fuzz", "A reader."), lambda _: action(path), [])


def _either(structured: Callable[[bytes, Rng], bytes]) -> Callable[[bytes, Rng], bytes]:
    return lambda data, rng: structured(data, rng) if rng.random() < 0.6 else mutated(data, rng)


NPZ, TEXT = _either(mutated_npz), _either(mutated_text)


def _any_camera(data: bytes, rng: Rng) -> bytes:
    return (NPZ if data[:2] == b"PK" else TEXT if data[:1] != b"\x93" else mutated)(data, rng)


def _another_value(data: bytes, rng: Rng) -> bytes:
    """A setting with an absurd value, or absurd as a whole."""
    if rng.random() < 0.3:
        return TEXT(data, rng)
    return data.partition(b"=")[0] + b"=" + json.dumps(ABSURD[int(rng.integers(len(ABSURD)))]).encode()


KINDS = [
    Kind("mp4", samples.mp4, _video(), (0, 4)),
    Kind("webm", samples.webm, _video(), (0, 4)),
    Kind("jpg, png", samples.images, _video(), (0, 4)),
    Kind("motion npz", samples.motion, _reader(samples.load_motion), (0, 2), NPZ),
    Kind("evidence npz", samples.evidence, _reader(samples.load_evidence), (0, 2), NPZ),
    Kind("pose npz", samples.poses, lambda path, out: smooth.main([str(path), "-o", str(out), "--quiet"]), (0, 2), NPZ),
    Kind(
        "trackers",
        samples.trackers,
        lambda path, out: smooth.main([str(path), "-o", str(out.with_suffix(".npz")), "--fps", "30", "--quiet"]),
        (0, 2),
    ),
    Kind("amass npz", samples.amass, _reader(samples.load_amass), (0, 2), NPZ),
    Kind("mocap npz", samples.mocap, _reader(samples.load_mocap), (0, 2), NPZ),
    Kind("perceived npz", samples.perceived, _reader(samples.load_perceived_clips), (0, 2), NPZ),
    Kind("body npz", samples.body, _reader(samples.load_body), (0, 2), NPZ),
    Kind("keypoints", samples.keypoints, _beside_a_clip("--keypoints"), (0, 2, 5), TEXT),
    Kind("yaml", samples.yamls, _train, (0, 2), TEXT),
    Kind("settings", samples.settings, _string("--set"), (0, 2), _another_value),
    Kind("camera files", samples.cameras, _beside_a_clip("--intrinsics"), (0, 2), _any_camera),
    Kind("camera strings", samples.camera_strings, _string("--intrinsics"), (0, 2), TEXT),
    Kind("weights", samples.weights, _reader(samples.load_network), (0, 2), _either(mutated_weights)),
]


@contextlib.contextmanager
def stubs() -> Iterator[None]:
    """Networks that end a command as accepted once the input has been read whole."""

    def watch(clip: Any, *arguments: Any) -> None:
        for _ in clip.batches(8):
            pass
        raise Accepted("read")

    def accept(*arguments: Any, **more: Any) -> None:
        raise Accepted("read")

    def halve(body_pose: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        return torch.cat((body_pose[:, :, :21] / 2, torch.zeros_like(body_pose[:, :, :2])), 2)

    samples.clip_file()  # made before the temporary folder is a case's own
    prior = samples.prior()
    prior.denoise = prior.infill = halve  # type: ignore[method-assign]
    reconstructor = mock.Mock()
    reconstructor.load.return_value.reconstruct = accept
    with (
        mock.patch("kinflow.apps.video.watch", watch),
        mock.patch("kinflow.apps.video.Body", mock.Mock()),
        mock.patch("kinflow.apps.video.Reconstructor", reconstructor),
        mock.patch("kinflow.prior.MotionPrior.load", lambda *arguments, **more: prior),
        mock.patch("kinflow.training.run.read_captures", accept),
    ):
        yield


# -- the judge ---------------------------------------------------------------------------------------------------------


def attempt(kind: Kind, index: int, limit_s: float = 20.0) -> tuple[str, str]:
    """Case ``index`` of a kind: ("accepted", "refused with N", or what is wrong, and what was printed)."""
    rng = np.random.default_rng([zlib.crc32(kind.name.encode()), index])
    files = kind.files()
    name = list(files)[index % len(files)]
    before, where = Path.cwd(), tempfile.tempdir
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "input").mkdir()
    path, out = folder / "input" / name, folder / ("out.npz" if kind.name == "pose npz" else "out")
    path.write_bytes(kind.mutate(files[name], rng))
    there = _tree(folder)
    errors = io.StringIO()
    alarmed = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    code: int | None = None
    try:
        os.chdir(folder)
        tempfile.tempdir = str(folder)
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            code = kind.run(path, out)
    except Hang:
        return "hang", traceback.format_exc()
    except BaseException:  # a reader's SystemExit is as wrong as any other
        return "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarmed)
        tempfile.tempdir = where
        os.chdir(before)
        left = _tree(folder) - there
        shutil.rmtree(folder, ignore_errors=True)
    return _judged(kind, code, left - ({"out.npz"} if code == 0 else set()), errors.getvalue())


def _judged(kind: Kind, code: int | None, left: set[str], said: str) -> tuple[str, str]:
    lines = [line for line in said.splitlines() if line.strip()]
    ours = [line for line in lines if re.match(r"(kinflow-\w+|fuzz): ", line)]
    if code not in kind.codes:
        return f"wrong exit code {code}", said
    if left:
        return "leftovers", f"{sorted(left)}\n{said}"
    if code and (len(ours) != 1 or "Traceback" in said):
        return "not one line", said
    return ("accepted" if code in (0, 5) else f"refused with {code}"), said


def _alarm(*_: object) -> None:
    raise Hang


def _tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def fine(outcome: str) -> bool:
    return outcome == "accepted" or outcome.startswith("refused")


# -- by hand -----------------------------------------------------------------------------------------------------------


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=3000, help="mutations in all, or of --kind")
    p.add_argument("--kind", choices=[k.name for k in KINDS], help="this kind alone, in this process")
    p.add_argument("--first", type=int, default=0, help="first case of --kind")
    p.add_argument("--show", action="store_true", help="print what each case of --kind printed")
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.kind is not None:
        kind = next(k for k in KINDS if k.name == args.kind)
        with stubs():
            for index in range(args.first, args.first + args.count):
                faulthandler.dump_traceback_later(60, exit=True)  # what no signal interrupts
                outcome, said = attempt(kind, index)
                faulthandler.cancel_dump_traceback_later()
                print(json.dumps([index, outcome, said if args.show or not fine(outcome) else ""]), flush=True)
        return 0
    began, wrong, rows = time.perf_counter(), [], []
    for n, kind in enumerate(KINDS):
        count = args.count // len(KINDS) + (n < args.count % len(KINDS))
        outcomes: Counter[str] = Counter()
        done = 0
        while done < count:  # a child that dies took one case with it
            arguments = [
                sys.executable,
                __file__,
                "--kind",
                kind.name,
                "--first",
                str(done),
                "--count",
                str(count - done),
            ]
            child = subprocess.run(arguments, capture_output=True, text=True)
            for line in child.stdout.splitlines():
                index, outcome, said = json.loads(line)
                outcomes[outcome] += 1
                done += 1
                if not fine(outcome):
                    wrong.append(f"{kind.name} {index}: {outcome}\n{said}")
            if done < count:
                outcome = "hang" if "Timeout" in child.stderr else f"died with {child.returncode}"
                outcomes[outcome] += 1
                wrong.append(f"{kind.name} {done}: {outcome}\n{child.stderr[-2000:]}")
                done += 1
        rows.append((kind.name, count, outcomes))
        print(f"{kind.name}: {dict(outcomes)}", file=sys.stderr, flush=True)
    bad = [o for o in dict.fromkeys(itertools.chain(*(r[2] for r in rows))) if not fine(o)]
    columns = ["accepted", *sorted({o for r in rows for o in r[2] if o.startswith("refused")})]
    columns += list(dict.fromkeys(["traceback", "hang", "leftovers", *bad]))
    print("| kind | mutations | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (1 + len(columns)))
    total = ("all", sum(r[1] for r in rows), sum((r[2] for r in rows), Counter()))
    for name, count, outcomes in [*rows, total]:
        print(f"| {name} | {count} | " + " | ".join(str(outcomes[c]) for c in columns) + " |")
    print(f"\n{time.perf_counter() - began:.0f} s")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
