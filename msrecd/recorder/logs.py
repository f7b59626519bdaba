"""The log of one recorder: its name in front of each line, and in a journal field of its own."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class RecorderLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the recorder's name in front of each line and into the journal's MSRECD_RECORDER field."""

    def __init__(self, logger: logging.Logger, recorder: str) -> None:
        super().__init__(logger, {})
        self._recorder = recorder

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        extra = dict(kwargs.get("extra") or {})
        extra["MSRECD_RECORDER"] = self._recorder
        kwargs["extra"] = extra
        return f"{self._recorder}: {msg}", kwargs
