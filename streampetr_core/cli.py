"""The command `streampetr`: finds the subcommands of every installed package through entry points.

A subcommand is a module with a docstring (its help), `add_arguments(parser)` and `run(args)`; it is registered in
the entry point group `streampetr.commands`. Exit codes: 0 done, 1 failed, 2 bad usage.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from streampetr_core.errors import StreampetrError

GROUP = "streampetr.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code; `argv` defaults to the arguments of the process."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(commands))
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        print(f"streampetr: error: no command '{name}'; there are: {', '.join(commands)}", file=sys.stderr)
        return 2
    return _run(name, commands[name], rest)


def _run(name: str, point: EntryPoint, argv: Sequence[str]) -> int:
    try:
        command = point.load()
    except ImportError as error:
        print(f"streampetr {name}: error: {_missing(error)}", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(
        prog=f"streampetr {name}",
        description=inspect.getdoc(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        command.run(args)
    except StreampetrError as error:
        print(f"streampetr {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _overview(commands: dict[str, EntryPoint]) -> str:
    lines = ["usage: streampetr COMMAND ...", "", "commands (each has --help with an example):"]
    for name, point in commands.items():
        try:
            summary = (inspect.getdoc(point.load()) or "").split("\n", 1)[0]
        except ImportError as error:
            summary = f"unavailable: {_missing(error)}"
        lines.append(f"  {name:<12}{summary}")
    return "\n".join(lines)


def _missing(error: ImportError) -> str:
    return f"{error}; install what this command needs with pip install 'streampetr_ros[ros,training]'"


if __name__ == "__main__":
    sys.exit(main())
