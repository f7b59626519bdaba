"""The judges that a configuration is held against: what its own package cannot know. Loads no vendor library."""

from __future__ import annotations

from msrecd.config.rules import Checks


def config_checks() -> Checks:
    """For everyone who loads the configuration: daemon, reload and commands judge alike."""
    return Checks(time=_time_problem, mime_type=_mime_type_problem, url=_url_problem)


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
