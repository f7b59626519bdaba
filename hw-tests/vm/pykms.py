"""Stands in for the KMS bindings: picamera2 imports them even where nothing is ever shown, and Debian has none."""

from __future__ import annotations


class _Anything:
    def __getattr__(self, name: str) -> _Anything:
        return self

    def __call__(self, *args: object, **kwargs: object) -> object:
        raise RuntimeError("there is no display here")


PixelFormat = _Anything()


def __getattr__(name: str) -> _Anything:
    return _Anything()
