"""What all commands have in common: ``--version``, and how errors end them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import KinflowError, OutputError, UsageError
from .output import flushed_output
from .stopping import EXIT_CODES, stop_signals
from .threads import settle_threads


def new_parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A command's parser, with ``--version``."""
    p = argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return p


def run_command(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
    interrupted: str = "interrupted; nothing was written.",
) -> int:
    """Parse ``argv``, run ``action``, and turn what goes wrong into one line on standard error and an exit code.

    The code is the error's own (:mod:`kinflow.errors`), 1 for what the machine's side did, 130 after Ctrl-C, 143 after
    SIGTERM. Errors in the code itself are not caught: their traceback is what a report needs.
    """
    received: list[int] = []
    try:
        with stop_signals(received), flushed_output():
            args = parser.parse_args(argv)
            settle_threads()
            action(args)
    except KeyboardInterrupt as stopped:  # some say themselves what was left behind
        return _end(parser.prog, str(stopped) or interrupted, EXIT_CODES[received[-1]] if received else 130)
    except KinflowError as error:
        return _end(parser.prog, str(error), error.exit_code)
    except OSError as error:
        return _end(
            parser.prog, f"{error}. Free space, change permissions, or use another folder.", OutputError.exit_code
        )
    except MemoryError as error:
        return _end(parser.prog, f"out of memory ({error}). Ask for less at a time.", KinflowError.exit_code)
    return 0


def check_paths(args: argparse.Namespace, *names: str) -> None:
    """Refuse paths of no name, which a shell makes of a variable that is not set.

    Raises:
        UsageError: one of the arguments named is ''.
    """
    for name in names:
        if getattr(args, name) == "":
            raise UsageError(f"{name}: expected a path, got ''. Name it; . is the folder you are in.")


def show_warnings(prog: str, quiet: bool) -> None:
    """The package's warnings on standard error, errors alone if ``quiet``, each beginning with the command's name."""
    logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING, format=f"{prog}: %(message)s")


def _end(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return code
