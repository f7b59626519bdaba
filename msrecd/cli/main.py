"""`msrecd COMMAND`: arguments, and what every command has in common. Each command's module is loaded when it is called.

A command's module has `add_arguments(parser)` and `run(args) -> int`; it raises MsrecdError for what can be expected to
go wrong, which becomes one line on stderr and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import msrecd
from msrecd.cli.errors import Exit, NoAnswerError, UsageError
from msrecd.cli.streams import flush, open_closed_streams
from msrecd.errors import ConfigError, MsrecdError

DEFAULT_CONFIG = Path("/etc/msrecd/msrecd.toml")
COMMANDS = {
    "run": "the daemon",
    "check-config": "check the configuration and name every problem",
    "check-broker": "try the MQTT broker against what msrecd relies on",
    "devices": "list cameras and microphones with what they can do",
    "doctor": "say what is wrong with this machine, in the order to fix it",
    "record": "make one recording without daemon and broker",
    "look": "show what each track of a recorder is right now",
    "ctl": "send a command to a recorder and print the reply",
    "recordings": "list, verify, recover, prune, protect or export recordings",
    "schedule": "show when the recorders will record",
    "trigger-test": "try a recorder's triggers on a file",
    "web-password": "make the hash of a password for the page",
    "completion": "print a script for the shell's completion",
}
_MODULES = {
    "trigger-test": "trigger_test",
    "check-broker": "check_broker",
    "check-config": "check_config",
    "web-password": "web_password",
}
_NO_CONFIG = "begin with an example (of the package: /usr/share/doc/msrecd/examples), or name a file with --config"
_SHOW_TRACEBACK = "MSRECD_TRACEBACK"


class HelpFormatter(argparse.HelpFormatter):
    """As wide as the terminal. argparse would ask shutil for that, with every start of the daemon, and that loads three
    libraries for archives: a third of a megabyte."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Command(Protocol):
    """A command's module."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 ok, 1 it failed, 2 wrong usage or configuration, 3 no answer."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_closed_streams()
    code = _run(arguments)
    problem = flush(sys.stdout)
    flush(sys.stderr)
    if problem is None or code != Exit.OK:
        return code
    if isinstance(problem, BrokenPipeError):  # the reader of the pipe had enough, like `head`
        return Exit.FAILED
    return _complain(MsrecdError(f"standard output cannot be written: {problem.strerror}"), Exit.FAILED)


def _run(arguments: Sequence[str]) -> int:
    """Run a command; all that it raises becomes a line and an exit code."""
    try:
        parser, command = _parser_for(arguments)
        args = parser.parse_args(arguments)
        if command is None:
            parser.print_help(sys.stderr)
            return Exit.USAGE
        args.is_config_named = args.config is not None
        if args.config is None:
            args.config = DEFAULT_CONFIG
        return command.run(args)
    except SystemExit as exc:  # argparse: 0 after --help and --version, 2 after wrong arguments
        return exc.code if isinstance(exc.code, int) else Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        flush(sys.stdout)
        return Exit.FAILED
    except (UsageError, ConfigError) as exc:
        return _complain(exc, Exit.USAGE)
    except NoAnswerError as exc:
        return _complain(exc, Exit.NO_ANSWER)
    except Exception as exc:
        return _complain(exc, Exit.FAILED)


def build_parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser; only the `commands` asked for have their arguments, for loading each costs time."""
    parser = argparse.ArgumentParser(
        prog="msrecd",
        description="Record cameras and microphones to files, controlled over MQTT.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"msrecd {msrecd.__version__}")
    add_config(parser, default=None)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, help_ in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=help_, description=_sentence(help_), allow_abbrev=False, formatter_class=HelpFormatter
        )
        add_config(subparser, default=argparse.SUPPRESS)
        if name in commands:
            load_command(name).add_arguments(subparser)
    return parser


def load_command(name: str) -> Command:
    """The module of a command.

    Raises:
        MsrecdError: a library that it needs is not installed.
    """
    try:
        module = importlib.import_module(f"msrecd.cli.{_MODULES.get(name, name)}")
    except ModuleNotFoundError as exc:
        raise MsrecdError(f'"{name}" cannot run: the Python module {exc.name} is not installed') from exc
    return cast(Command, module)


def _parser_for(arguments: Sequence[str]) -> tuple[argparse.ArgumentParser, Command | None]:
    """The parser for these arguments and the command they call."""
    name = _command_in(arguments)
    if name is None:
        return build_parser(()), None
    return build_parser((name,)), load_command(name)


def _command_in(arguments: Sequence[str]) -> str | None:
    """The first argument that is not `--config` or its value."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--config":
            skip = True
        elif not argument.startswith("-"):
            return argument if argument in COMMANDS else None
    return None


def add_config(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """The option that every command takes; argparse.SUPPRESS keeps what stands before the command's name."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=default,
        help=f"configuration file; conf.d/*.toml beside it is read too (default: {DEFAULT_CONFIG})",
    )


def _columns() -> int:
    """Of the terminal; 80 where there is none."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _complain(exc: Exception, code: Exit) -> Exit:
    """One line for each thing that is wrong; a traceback only for those who ask for it."""
    if isinstance(exc, MsrecdError):
        text = str(exc)
    elif isinstance(exc, OSError) and not exc.filename and flush(sys.stdout) is not None:
        text = f"standard output cannot be written: {exc.strerror}"
    elif isinstance(exc, OSError):
        text = f"{exc.filename}: {exc.strerror}" if exc.filename and exc.strerror else str(exc)
    else:
        text = f"unexpected {type(exc).__name__}: {' '.join(str(exc).split())} ({_SHOW_TRACEBACK}=1 shows where)"
    if os.environ.get(_SHOW_TRACEBACK):
        logging.basicConfig()
        logging.getLogger(__name__).error("traceback", exc_info=exc)
    with contextlib.suppress(OSError):  # of a standard error that is full
        for line in text.splitlines() or [type(exc).__name__]:
            print(f"msrecd: {line}" if not isinstance(exc, ConfigError) else line, file=sys.stderr)
        if isinstance(exc, ConfigError) and text.startswith(f"{DEFAULT_CONFIG}:") and not DEFAULT_CONFIG.exists():
            print(f"msrecd: {_NO_CONFIG}", file=sys.stderr)
    return code
