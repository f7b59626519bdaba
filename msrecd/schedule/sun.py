"""Sunrise and sunset, by astral; the only importer of it, and it does so when first asked."""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol

from msrecd.schedule.model import Place

SunEvent = Literal["sunrise", "sunset"]
_HALF_DAY = timedelta(hours=12)
_HORIZON = -0.833  # degrees: the upper edge of the disc, lifted by the air


class Sun(Protocol):
    """Where the sun's events come from; a test puts another one in."""

    def event(self, event: SunEvent, day: date) -> datetime | None:
        """The event of the solar day `day` in UTC, to the whole minute; None when it does not happen.

        Solar days are those of the place's longitude, so they differ from local days by hours.
        """


class AstralSun:
    """The sun over a place.

    astral's own `sunrise` and `sunset` miss or misplace events that fall near midnight, weeks around polar day. So the
    crossing is looked for here, between the sun's lowest and highest of the day, where its elevation only rises or
    only falls. An event exists when the sun is below the horizon at the one and above it at the other.
    """

    def __init__(self, place: Place) -> None:
        self._latitude, self._longitude = place.latitude, place.longitude

    def event(self, event: SunEvent, day: date) -> datetime | None:
        return _event(event, day, self._latitude, self._longitude)


@functools.lru_cache(maxsize=2048)
def _event(event: SunEvent, day: date, latitude: float, longitude: float) -> datetime | None:
    from astral import Observer
    from astral.sun import elevation

    observer = Observer(latitude=latitude, longitude=longitude)
    noon = datetime.combine(day, time(12), UTC) - timedelta(minutes=round(longitude * 4))
    night = noon + (-_HALF_DAY if event == "sunrise" else _HALF_DAY)

    def is_up(minutes: int) -> bool:
        """`minutes` towards noon from the midnight before or after."""
        at = night + timedelta(minutes=minutes if event == "sunrise" else -minutes)
        return elevation(observer, at, with_refraction=False) > _HORIZON

    low, high = 0, 720
    if is_up(low) or not is_up(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_up(middle) else (middle, high)
    return night + timedelta(minutes=high if event == "sunrise" else -low)
