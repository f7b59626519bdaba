"""`msrecd completion SHELL`: a script for the shell's completion, made from the parser itself."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from msrecd.cli.errors import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What can follow a command: its options, and fixed words (choices and sub-commands)."""

    command: str
    options: tuple[str, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="print the script for this shell")


def run(args: argparse.Namespace) -> int:
    from msrecd.cli.main import build_parser

    found = words_of(build_parser())
    print(_fish(found) if args.shell == "fish" else _bash(found, zsh=args.shell == "zsh"))
    return Exit.OK


def words_of(parser: argparse.ArgumentParser) -> list[Words]:
    """What can follow `msrecd` (the first entry) and each command."""
    found = [_words("", parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [_words(name, subparser) for name, subparser in action.choices.items()]
    return found


def _words(command: str, parser: argparse.ArgumentParser) -> Words:
    options: list[str] = []
    words: list[str] = []
    for action in parser._actions:
        options += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            words += action.choices
            if command:
                options += [option for sub in action.choices.values() for option in _words("", sub).options]
        elif not action.option_strings and action.choices is not None:
            words += map(str, action.choices)
    return Words(command=command, options=tuple(dict.fromkeys(options)), words=tuple(dict.fromkeys(words)))


def _bash(found: list[Words], *, zsh: bool) -> str:
    top, *commands = found
    cases = "\n".join(
        f"        {entry.command}) words='{' '.join(entry.words + entry.options)}' ;;" for entry in commands
    )
    header = "#compdef msrecd\nautoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{header}_msrecd() {{
    local words i cur=${{COMP_WORDS[COMP_CWORD]}}
    words='{" ".join(top.words + top.options)}'
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
{cases}
        *) continue ;;
        esac
        break
    done
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _msrecd msrecd"""


def _fish(found: list[Words]) -> str:
    top, *commands = found
    lines = ["complete -c msrecd -n __fish_use_subcommand -f -a '" + " ".join(top.words) + "'"]
    lines += [f"complete -c msrecd -l {option[2:]}" for option in top.options if option.startswith("--")]
    for entry in commands:
        seen = f"-n '__fish_seen_subcommand_from {entry.command}'"
        if entry.words:
            lines.append(f"complete -c msrecd {seen} -a '{' '.join(entry.words)}'")
        lines += [f"complete -c msrecd {seen} -l {option[2:]}" for option in entry.options if option.startswith("--")]
    return "\n".join(lines)
