"""check-config and get_user_media judge constraints alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_text import toml
from hypothesis import given, settings
from hypothesis import strategies as st

from msrecd.config import Recorder, Source, check, load
from msrecd.daemon.from_config import recorder_settings
from msrecd.media.constraints import convert
from msrecd.vocabulary.constraints import PROPERTIES, SELECTING

BARE = st.one_of(
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", "a", "environment", "all", "30"]),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
)
FORMS = st.dictionaries(st.sampled_from(["exact", "ideal", "min", "max"]), BARE, max_size=3)


def problems(folder: Path, kind: str, constraints: dict[str, Any]) -> list[str]:
    path = folder / "m.toml"
    path.write_text(
        f'[device]\nid = "x"\n[[recorder]]\nname = "r"\nmime_type = "{kind}/mp4"\n{kind} = {toml(constraints)}\n'
    )
    return [str(problem) for problem in check(path)]


def library_refuses(kind: Any, name: str, value: Any) -> bool:
    try:
        sets = convert({name: value}, kind)
    except TypeError:
        return True
    return name not in SELECTING and any(constraint.is_required for constraint in sets.basic.values())


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["video", "audio"]), st.data())
def test_both_take_the_same_values(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PROPERTIES[kind])))  # type: ignore[index]
    value = data.draw(BARE | FORMS)
    refused = problems(tmp_path_factory.getbasetemp(), kind, {name: value})
    if library_refuses(kind, name, value):
        assert refused, (name, value)
        return
    # What the library ignores, or what no device can meet, is a mistake in a file.
    if isinstance(value, dict) and not PROPERTIES[kind][name].is_numeric and {"min", "max"} & set(value):  # type: ignore[index]
        return
    if any("is greater than" in problem or "outside of" in problem for problem in refused):
        return
    assert not refused, (name, value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"device_id": "x"}, {"device_id": {"exact": "x"}}),
        ({"device_id": ["x", "y"]}, {"device_id": {"exact": ["x", "y"]}}),
        ({"device_id": {"ideal": "x"}}, {"device_id": {"ideal": "x"}}),
        ({"device_id": {"label": "USB"}, "sample_rate": 48000}, {"device_id": {"label": "USB"}, "sample_rate": 48000}),
        ({"advanced": [{"device_id": "x"}]}, {"advanced": [{"device_id": "x"}]}),
    ],
)
@pytest.mark.promise("device-id-is-exact")
def test_a_bare_device_id_means_exactly_this_device(tmp_path: Path, written: Any, meant: Any) -> None:
    assert problems(tmp_path, "audio", written) == []
    (recorder,) = load(tmp_path / "m.toml").recorders
    assert recorder_settings(recorder).constraints == {"video": False, "audio": meant}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"label": ""}, "device_id.label: takes a device's label"),
        ({"label": 5}, "device_id.label: takes a device's label"),
        ({"label": "x", "exact": "y"}, "device_id.exact: cannot stand together with label"),
        ({"lable": "x"}, 'did you mean "label"?'),
        (5, "takes a string or a list of strings, or a table"),
    ],
)
def test_a_wrong_device_id_is_named(tmp_path: Path, value: Any, words: str) -> None:
    (problem,) = problems(tmp_path, "audio", {"device_id": value})
    assert words in problem


def test_options_of_a_source_reach_the_media_element() -> None:
    source = Source(
        url="http://c/x",
        transport="udp",
        tracks=("audio",),
        timeout_s=3,
        user="u",
        password_file=Path("/p"),
        redirects="any",
    )
    settings = recorder_settings(Recorder(name="r", source=source))
    assert json.loads(json.dumps(settings.source_options)) == {
        "transport": "udp",
        "tracks": ["audio"],
        "timeout": 3,
        "user": "u",
        "password_file": "/p",
        "redirects": "any",
    }
