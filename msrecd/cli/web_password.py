"""`msrecd web-password`: make the hash of a password for the page."""

from __future__ import annotations

import argparse
import sys

from msrecd.cli.errors import UsageError
from msrecd.vocabulary.secrets import web_password_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The password is asked for on a terminal, else it is the first line of standard input. The hash goes to "
        'standard output: write it to the file that "web.password_file" names, readable by the service\'s user only: '
        + web_password_command("FILE")
    )


def run(args: argparse.Namespace) -> int:
    """0; 2 when it can be no password, or the two entered differ."""
    from msrecd.web.passwords import make_hash

    try:
        line = make_hash(_ask() if sys.stdin.isatty() else _first_line())
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    print(line)
    return 0


def _first_line() -> str:
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise UsageError("the password is not UTF-8 text") from exc


def _ask() -> str:
    import getpass

    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise UsageError("the two are not the same")
    return password
