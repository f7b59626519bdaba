"""The manual pages say what the program does: every command, option and configuration key is in them."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import msrecd
from msrecd.cli.main import build_parser
from msrecd.config.manpage import page, roff
from msrecd.config.manual import TABLES
from msrecd.config.tables import keys_of

FOLDER = Path(__file__).parents[2] / "docs" / "man"
PAGES = ("msrecd.1", "msrecd.toml.5")


def plain(name: str) -> str:
    """A page's text without roff's marks."""
    text = (FOLDER / name).read_text("utf-8").replace("\\-", "-").replace("\\(dq", '"')
    return re.sub(r"\\f.|\\&", "", text)


def commands(parser: argparse.ArgumentParser, path: str = "msrecd") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, those of commands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield f"{path} {name}", below
                yield from commands(below, f"{path} {name}")


def test_every_command_and_option_is_in_the_manual() -> None:
    text = plain("msrecd.1")
    headings = [line[4:] for line in text.splitlines() if line.startswith(".SS ")]
    found = 0
    for command, parser in commands(build_parser()):
        own = [heading for heading in headings if f"{heading} ".startswith(f"{command} ")]
        if command != "msrecd recordings":
            assert own, f"{command} has no section"
        section = own[0] + text.split(f".SS {own[0]}")[1].split("\n.S")[0] if own else ""
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help", "--config"}:
                found += 1
                assert option in section, f"{command} {option}"
    assert found > 25


def test_no_section_is_about_a_command_that_is_none() -> None:
    known = {command for command, _ in commands(build_parser())}
    for heading in re.findall(r"^\.SS (.+)$", plain("msrecd.1"), re.MULTILINE):
        words = heading.split()
        assert " ".join(words[:2]) in known
        assert words[1] != "recordings" or " ".join(words[:3]) in known


def test_the_configuration_page_is_current() -> None:
    assert (FOLDER / "msrecd.toml.5").read_text("utf-8") == page(), (
        "run: python -m msrecd.config.manpage > docs/man/msrecd.toml.5"
    )


def test_every_key_is_in_the_configuration_page() -> None:
    text = plain("msrecd.toml.5")
    keys = [key for table in TABLES.values() for key in keys_of(table)]
    assert len(keys) > 50
    for key in keys:
        assert f".B {key}\n" in text


def test_plain_text_becomes_no_request() -> None:
    assert roff(".so /etc/passwd") == r"\&.so /etc/passwd"
    assert roff("a-b `c\\d`") == r"a\-b \fBc\ed\fP"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_of_this_version_and_can_be_set(name: str) -> None:
    assert f'"msrecd {msrecd.__version__}"' in (FOLDER / name).read_text("utf-8").split("\n.SH")[0]
    tool = next((tool for tool in ("mandoc", "groff") if shutil.which(tool)), None)
    if tool is None:
        pytest.skip("neither mandoc nor groff is installed")
    options = ["-T", "lint", "-W", "warning"] if tool == "mandoc" else ["-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run([tool, *options, str(FOLDER / name)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("", "")
