"""Pickles: arrays of every honest kind come out as numpy's own reader gives them, and no way leads to running code."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinflow.datasets.miniature.threedpw import python2_pickle
from kinflow.datasets.pickles import load_numpy_pickle
from kinflow.errors import FormatError, MissingAssetError

HONEST: dict[str, Any] = {
    "floats": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big": np.array([1, 2], ">i4"),
    "ints": [np.array([1], np.uint8), np.array(3)],
    "bools": np.array([True, False]),
    "text": np.array(["a", "bc"]),
    "objects": np.array([{"a": np.zeros(2)}, None], object),
    "scalar": np.float64(0.5),
    "empty": np.zeros((0, 3)),
    "nested": ({"k": (1, 2.5, "x", None)}, [True]),
    "bytes": b"ab",
}


@pytest.mark.parametrize("protocol", ["python 2", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_what_is_honest_is_read(tmp_path: Path, protocol: Any) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(python2_pickle(HONEST) if protocol == "python 2" else pickle.dumps(HONEST, protocol))
    got = load_numpy_pickle(path)
    assert set(got) == set(HONEST)
    for key in ("floats", "fortran", "big", "bools", "empty"):
        np.testing.assert_array_equal(got[key], HONEST[key])
        assert got[key].dtype == HONEST[key].dtype
    assert [int(v.sum()) for v in got["ints"]] == [1, 3]
    assert got["text"].tolist() == ["a", "bc"] and got["scalar"] == 0.5
    assert got["objects"][0]["a"].tolist() == [0, 0] and got["objects"][1] is None
    assert got["nested"] == HONEST["nested"] or got["nested"] == ({"k": (1, 2.5, "x", None)}, [1])
    assert got["bytes"] in (b"ab", "ab")


class Reduced:
    """An object that asks to be made by a call."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


def opcodes(command: str) -> dict[str, bytes]:
    """Pickles written by hand that would run a shell command."""
    text = pickle.BINUNICODE + struct.pack("<I", len(command)) + command.encode()
    call = text + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP
    return {
        "a global function of protocol 0": b"cos\nsystem\n" + call,
        "python 2's name of the builtins": b"c__builtin__\neval\n" + call,
        "an instance (INST)": b"(" + text + b"ios\nsystem\n.",
        "an object (OBJ)": b"(cos\nsystem\n" + text + b"o.",
        "a dotted name on the stack": pickle.PROTO + b"\x04" + b"\x8c\x05numpy\x8c\x0ef2py.os.system\x93" + call,
        "an admitted package's other function": b"cnumpy\nload\n" + call,
        "numpy's reconstruction of another class": b"cnumpy.core.multiarray\n_reconstruct\ncsubprocess\nPopen\n"
        + text + b"Nt\x52.",
        "a registered extension": pickle.PROTO + b"\x02" + pickle.EXT1 + b"\x01" + call,
        "a persistent id": b"P" + command.encode() + b"\n.",
        "a state put on a function": b"cnumpy\ndtype\n}(X\x08\x00\x00\x00__code__" + text + b"ub.",
        "an array that is made of an address": b"cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(X\x01\x00\x00\x00OtR"
        b"B\x08\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00tR.",
    }  # fmt: skip


WAYS = sorted(opcodes(""))


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_run_code(tmp_path: Path, way: str) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "a.pkl"
    path.write_bytes(opcodes(f"touch {mark}")[way])
    with pytest.raises(FormatError, match=r"a\.pkl: cannot be read as a pickle of arrays"):
        load_numpy_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda mark: Reduced(os.system, f"touch {mark}"),
        lambda mark: Reduced(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Reduced(subprocess.Popen, ["touch", str(mark)]),
        lambda mark: np.array([Reduced(os.system, f"touch {mark}")], object),
        lambda mark: Reduced(np.dtype, [("a", "O")]),
        lambda mark: Reduced(np.dtype, "V8", state=(3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        lambda mark: Reduced(np.frombuffer, b"12345678", "O"),
        lambda mark: Path(mark),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_no_object_runs_code(tmp_path: Path, harm: Any, protocol: int) -> None:
    mark, path = tmp_path / "mark", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"poses": harm(mark)}, protocol))
    with pytest.raises(FormatError):
        load_numpy_pickle(path)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own reader does run them: what the tests above hold back is there."""
    mark, path = tmp_path / "mark", tmp_path / "a.pkl"
    path.write_bytes(opcodes(f"touch {mark}")["an object (OBJ)"])
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"], check=False)
    assert mark.exists()


def test_damage_ends_in_one_line(tmp_path: Path) -> None:
    whole, path = python2_pickle(HONEST), tmp_path / "a.pkl"
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole[: int(rng.integers(0, len(whole)))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, max(1, len(data)), int(rng.integers(0, 6))):
            if data:
                data[place] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            load_numpy_pickle(path)
        except FormatError as error:
            assert "\n" not in str(error) and "a.pkl" in str(error)
    loop: list[Any] = []
    loop.append(loop)
    path.write_bytes(pickle.dumps(loop))
    with pytest.raises(FormatError, match="recursion"):
        load_numpy_pickle(path)
    with pytest.raises(MissingAssetError):
        load_numpy_pickle(tmp_path / "none.pkl")
