"""``python -m kinflow``: what commands there are."""

from __future__ import annotations

from kinflow import __version__

COMMANDS = {
    "kinflow-video": "turn a clip into moving 3D people",
    "kinflow-view": "look at results from all sides, in rerun or a browser",
    "kinflow-export": "write motions as GLB, BVH, USD, AMASS, SMPL, TRC or CSV",
    "kinflow-smooth": "clean noisy SMPL poses and fill missing frames",
    "kinflow-bench": "measure kinflow on 3DPW, EMDB, clips and motion capture",
    "kinflow-train": "train one of kinflow's networks on motion capture",
}


def main() -> None:
    """Print the commands."""
    print(f"kinflow {__version__}\n")
    for name, purpose in COMMANDS.items():
        print(f"  {name:<16}{purpose}")
    print(
        "\nEach explains itself with --help; python -m kinflow.cli.video and so on do the same without an installation."
    )


if __name__ == "__main__":
    main()
