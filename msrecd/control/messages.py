"""Commands and replies as bytes, the same for every adapter. Pure functions.

What arrives is hostile until it is decoded: everything that is not exactly a command is refused with a code of the
contract, before it reaches anything that acts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msrecd.errors import CommandError
from msrecd.vocabulary.names import is_name
from msrecd.vocabulary.times import parse_rfc3339
from msrecd.vocabulary.verbs import CODES, DAEMON_VERBS, RECORDER_VERBS, RETRYABLE, SWITCH_VERB

PAYLOAD_LIMIT_BYTES = 16 * 1024
ID_LIMIT = 128
# A command needs three levels. The bracket count bounds the depth before the parser sees the text.
BRACKET_LIMIT = 64
INTEGER_DIGITS_LIMIT = 18
DURATION_LIMIT_S = 366 * 24 * 3600
MESSAGE_LIMIT = 300

_KEYS = ("id", "issued_at", "args")
_ARGS: Mapping[str, tuple[str, ...]] = {
    "start": ("duration_s",),
    "protect": ("last_s", "from", "to", "whole"),
    "snapshot": ("full", "dng"),
}
_FLAGS = ("whole", "full", "dng")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Whom a command is for.

    `target` is "recorder", "daemon" or "" when the path fits no command. `recorder` and `verb` are as sent, so they may
    be unknown or hostile: they are compared with known names and never become part of anything.
    """

    path: str
    target: str
    recorder: str | None
    verb: str


def parse_path(path: str) -> Address:
    """Split `recorder/<name>/<verb>` or `daemon/<verb>`. Never raises."""
    first, _, rest = path.partition("/")
    if first == "daemon" and rest:
        return Address(path=path, target="daemon", recorder=None, verb=rest)
    if first == "recorder" and "/" in rest:
        # The verb is the last level: a name with slashes in it is an unknown recorder, not an unknown verb.
        recorder, _, verb = rest.rpartition("/")
        return Address(path=path, target="recorder", recorder=recorder, verb=verb)
    return Address(path=path, target="", recorder=None, verb=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A decoded command. `issued_at` is in seconds since 1970, or None; `args` are those of the verb, checked."""

    id: str | None = None
    issued_at: float | None = None
    args: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command did: whether anything changed and the reply's `data`, or the error that refused it.

    `done_ns`: when, since 1970; None: just now. With it, a stored reply is the same to the byte.
    """

    changed: bool = False
    data: Mapping[str, object] = field(default_factory=dict)
    error: CommandError | None = None
    done_ns: int | None = None


def check_verb(command: Address, allowed: Collection[str] | None = None) -> str:
    """The verb to run, still `set` for the switch.

    Raises: CommandError `unknown_verb` when there is no such verb or the configuration withholds it.
    """
    known = {"recorder": (*RECORDER_VERBS, SWITCH_VERB), "daemon": DAEMON_VERBS}.get(command.target, ())
    if command.verb not in known:
        hint = f"; known are {', '.join(known)}" if known else "; commands are recorder/<name>/<verb> and daemon/<verb>"
        raise CommandError("unknown_verb", f"no verb {shorten(command.verb)}{hint}")
    if allowed is not None and command.verb != SWITCH_VERB and command.verb not in allowed:
        raise CommandError("unknown_verb", f"{command.verb} is withheld by allow_verbs in this device's configuration")
    return command.verb


def decode_switch(payload: bytes, allowed: Collection[str] | None = None) -> str:
    """The verb that a plain `ON` or `OFF` stands for.

    Raises: CommandError `bad_payload`, `unknown_verb`.
    """
    verb = {b"ON": "start", b"OFF": "stop"}.get(payload)
    if verb is None:
        raise CommandError("bad_payload", "set takes the plain text ON or OFF")
    if allowed is not None and verb not in allowed:
        raise CommandError("unknown_verb", f"{verb} is withheld by allow_verbs in this device's configuration")
    return verb


def decode_object(payload: bytes) -> dict[str, object]:
    """The JSON object in `payload`; an empty payload is an empty object.

    Raises: CommandError `bad_payload` for everything else: too long, not UTF-8, not an object, too deep,
        doubled keys, numbers that are not finite or too long, NUL or half a surrogate pair in a text.
    """
    if len(payload) > PAYLOAD_LIMIT_BYTES:
        raise _bad_payload(f"{len(payload)} bytes; at most {PAYLOAD_LIMIT_BYTES} are read")
    if not payload:
        return {}
    if payload.count(b"[") + payload.count(b"{") > BRACKET_LIMIT:
        raise _bad_payload("nested too deeply")
    try:
        text = payload.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
            parse_float=_parse_float,
        )
    except UnicodeDecodeError as exc:
        raise _bad_payload("not UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise _bad_payload(f"not JSON: {exc.msg} at character {exc.pos}") from exc
    except (ValueError, RecursionError) as exc:
        raise _bad_payload("not JSON that can be read") from exc
    if not isinstance(value, dict):
        raise _bad_payload("a command is a JSON object, or empty")
    _check_texts(value)
    return value


def salvage_id(payload: bytes) -> str | None:
    """The id of a command that is refused for another reason, so that its sender recognises the reply."""
    try:
        return _check_id(decode_object(payload).get("id"))
    except CommandError:
        return None


def decode_command(payload: bytes, verb: str) -> Command:
    """Decode the payload of a command for `verb`.

    Raises: CommandError `bad_payload` or `bad_args`.
    """
    value = decode_object(payload)
    for key in value:
        if key not in _KEYS:
            raise _bad_payload(f"unknown key {shorten(key)}; known are {', '.join(_KEYS)}")
    command_id = _check_id(value.get("id"))
    issued_at = _check_issued_at(value.get("issued_at"))
    args = value.get("args")
    if args is None:
        args = {}
    if not isinstance(args, dict):
        raise CommandError("bad_args", "args: an object is expected")
    return Command(id=command_id, issued_at=issued_at, args=check_args(verb, args))


def check_args(verb: str, args: Mapping[str, object]) -> dict[str, object]:
    """The arguments of `verb`, checked.

    Raises: CommandError `bad_args` naming the argument.
    """
    known = _ARGS.get(verb, ())
    for key in args:
        if key not in known:
            hint = f"; {verb} takes {', '.join(known)}" if known else f"; {verb} takes none"
            raise CommandError("bad_args", f"args: unknown argument {shorten(key)}{hint}")
    for name in ("duration_s", "last_s"):
        if name in args:
            _check_seconds(name, args[name])
    for name in _FLAGS:
        if not isinstance(args.get(name, False), bool):
            raise CommandError("bad_args", f"args.{name}: true or false is expected")
    return _check_protect(args) if verb == "protect" else dict(args)


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CommandError("bad_args", f"args.{name}: a number of seconds is expected")
    if not 0 < value <= DURATION_LIMIT_S:
        raise CommandError("bad_args", f"args.{name}: more than 0 and at most {DURATION_LIMIT_S} is expected")


def _check_protect(args: Mapping[str, object]) -> dict[str, object]:
    """`from` and `to` become seconds since 1970. One range, and nothing half said."""
    checked = dict(args)
    for name in ("from", "to"):
        if name in checked:
            checked[name] = _seconds_of(checked[name], f"args.{name}")
    ways = [names for names in (("last_s",), ("from", "to"), ("whole",)) if any(name in args for name in names)]
    if len(ways) != 1 or not all(name in args for name in ways[0]) or args.get("whole") is False:
        raise CommandError("bad_args", 'args: protect takes {"last_s": seconds}, {"from", "to"} or {"whole": true}')
    if "from" in checked and not float(str(checked["from"])) < float(str(checked["to"])):
        raise CommandError("bad_args", "args: from must be before to")
    return checked


def encode_reply(command_id: str | None, result: Result, ts: str) -> bytes:
    """The reply to a command, as it goes over the wire; `ts` says when it was done."""
    reply: dict[str, object] = {"id": command_id}
    if result.error is None:
        reply.update(status="ok", changed=result.changed, ts=ts, data=dict(result.data))
    else:
        code = result.error.code if result.error.code in CODES else "internal"
        retryable = result.error.retryable
        reply.update(
            status="error",
            ts=ts,
            error={
                "code": code,
                "message": shorten(result.error.message, MESSAGE_LIMIT, quote=False),
                "retryable": RETRYABLE[code] if retryable is None else retryable,
            },
        )
    return encode(reply)


def command_path(recorder: str | None, verb: str) -> str:
    """What names a command to a recorder (None: to the daemon).

    Raises: ValueError for a name that can be no recorder's or verb's.
    """
    if verb == SWITCH_VERB:
        raise ValueError("set is for switches: use start or stop")
    if not is_name(verb):
        raise ValueError(f"{verb!r} is not a verb")
    if recorder is None:
        return f"daemon/{verb}"
    if not is_name(recorder):
        raise ValueError(f"{recorder!r} is not the name of a recorder")
    return f"recorder/{recorder}/{verb}"


def encode_command(command_id: str, args: Mapping[str, object] | None) -> bytes:
    """The payload of a command. Without `issued_at`: the sender's clock may be wrong."""
    return encode({"id": command_id} | ({"args": dict(args)} if args else {}))


def encode(value: object) -> bytes:
    """Compact JSON in UTF-8.

    Raises: ValueError, TypeError for what JSON cannot say (NaN, objects of other types).
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def shorten(text: str, limit: int = 60, *, quote: bool = True) -> str:
    """`text` made safe for a log line or a message: printable, bounded."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    safe = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)
    return f"“{safe}”" if quote else safe


def _bad_payload(message: str) -> CommandError:
    return CommandError("bad_payload", message)


def _check_id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > ID_LIMIT or not value.isprintable():
        raise CommandError("bad_args", f"id: a printable text of 1 to {ID_LIMIT} characters is expected")
    return value


def _check_issued_at(value: object) -> float | None:
    return None if value is None else _seconds_of(value, "issued_at")


def _seconds_of(value: object, name: str) -> float:
    """An RFC 3339 time as seconds since 1970."""
    problem = CommandError("bad_args", f"{name}: a time like 2026-11-20T18:00:00Z is expected")
    if not isinstance(value, str):
        raise problem
    try:
        return parse_rfc3339(value) / 1_000_000_000
    except (ValueError, OverflowError) as exc:
        raise problem from exc


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _parse_int(text: str) -> int:
    if len(text) > INTEGER_DIGITS_LIMIT + 1:
        raise ValueError("a number is too long")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _check_texts(value: object) -> None:
    """Refuse NUL and half surrogate pairs anywhere: neither can be written or sent on."""
    if isinstance(value, str):
        if "\0" in value:
            raise _bad_payload("a text contains NUL")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise _bad_payload("a text contains half a surrogate pair") from exc
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)
