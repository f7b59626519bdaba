"""The judges that a configuration is held against: what its own package cannot know. Loads no vendor library."""

from __future__ import annotations

from pathlib import Path

from msrecd.config.rules import Checks
from msrecd.vocabulary.secrets import web_password_command


def config_checks() -> Checks:
    """For all that load the configuration: daemon, reload and commands judge alike."""
    return Checks(time=_time_problem, mime_type=_mime_type_problem, url=_url_problem, hash_file=_hash_problem)


def _time_problem(text: str) -> str | None:
    from msrecd.schedule import problem_of

    return problem_of(text)


def _mime_type_problem(text: str) -> str | None:
    """What is wrong with a type whatever the libav build: an unknown container or codec, or two that do not fit."""
    from msrecd.codecs.table import Unsupported, check_type

    try:
        check_type(text, can_provide=lambda codec: True)
    except Unsupported as exc:
        return str(exc)
    return None


def _url_problem(text: str) -> str | None:
    from msrecd.inputs.address import check

    return check(text)


def _hash_problem(path: Path) -> str | None:
    """What is wrong with the file of a password's hash, if it is there; a file that is not there yet may come."""
    from msrecd.errors import ConfigError
    from msrecd.web.passwords import read_hash

    if not path.exists():
        return f"there is no file {path}; make it with: {web_password_command(path)}"
    try:
        read_hash(path, "")
    except PermissionError:
        return None  # the daemon is another user
    except ConfigError as exc:
        return str(exc).removeprefix(": ")
    return None
