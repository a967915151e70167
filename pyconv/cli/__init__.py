"""The command line: ``pyconv list``, ``show``, ``run``, ``check`` and others."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import pyconv
from pyconv.cli.commands.run import split_parameters
from pyconv.cli.output import CommandError, UsageError, one_line

COMMANDS = ("list", "show", "run", "check", "bench", "config", "demo", "new-plugin")
"""The commands, in the order of the help text; each is a module of ``pyconv.cli.commands``."""

EPILOG = """\
exit status: 0 done; 1 failed; 2 bad usage.
PYCONV_TRACEBACK=1 in the environment shows where an error was raised.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, printed by `main` like every other."""

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        raise UsageError(f"{command}: {message}" if command else message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pyconv",
        description="Convolution operators for NumPy arrays on the CPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pyconv {pyconv.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        command = importlib.import_module(f"pyconv.cli.commands.{name.replace('-', '_')}")
        description = (command.__doc__ or "").strip()
        subparser = subparsers.add_parser(
            name,
            help=description.partition("\n")[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(function=command.run)
    return parser


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    parameters: dict[str, object] = {}
    if argv and argv[0] == "run":
        # Options that only the operator knows.
        argv, parameters = split_parameters(argv)
    try:
        args = parser.parse_args(argv, argparse.Namespace(parameters=parameters))
    except SystemExit as stop:  # --help and --version, after printing
        return int(stop.code or 0)
    if not hasattr(args, "function"):
        parser.print_help()
        return 0
    return int(args.function(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 (failed) or 2 (bad usage). Errors are printed on stderr as one line.

    Examples
    --------
    >>> from pyconv.cli import main
    >>> main(["--version"])
    pyconv ...
    0
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone: nothing to say and nobody to say it to. The interpreter
        # flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UsageError, pyconv.UnknownOperatorError) as error:
        return _fail(2, error)
    except KeyboardInterrupt:
        return _fail(1, "interrupted")
    except (CommandError, pyconv.PluginError, OSError) as error:
        return _fail(1, error)
    except Exception as error:
        return _fail(1, f"{type(error).__name__}: {error}")
    return status


def _fail(status: int, error: object) -> int:
    if os.environ.get("PYCONV_TRACEBACK"):
        traceback.print_exc()
    print(f"pyconv: error: {one_line(error)}", file=sys.stderr)
    return status
