"""root without systemd is warned of; with it, or as another user, nothing is said."""

from __future__ import annotations

import logging
import os

import pytest

from msrecd.daemon import systemd


@pytest.mark.parametrize(
    ("user", "managed", "warned"), [(0, False, True), (0, True, False), (1000, False, False), (1000, True, False)]
)
def test_root_without_the_sandbox_is_warned_of(
    user: int, managed: bool, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if managed:
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    with caplog.at_level(logging.WARNING):
        systemd.warn_of_root()
    assert ("sandbox" in caplog.text) is warned
