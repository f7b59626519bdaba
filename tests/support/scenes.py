"""Scenes with known truth for the motion trigger: luma frames of 640x360 at five a second, made faster than real time.

What is varied is what the reports of field users name: size and speed of the object, the sensor's noise (more at
night), foliage in gusts, rain, a lamp that is switched, clouds, the camera's automatic exposure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 640, 360, 5.0
NS = 1_000_000_000
FOLIAGE = (400, 200, 600, 340)  # x0, y0, x1, y1
# Polygons that leave the foliage out, in parts of the frame.
WITHOUT_FOLIAGE = (
    ((0.0, 0.0), (1.0, 0.0), (1.0, 0.52), (0.0, 0.52)),
    ((0.0, 0.52), (0.6, 0.52), (0.6, 1.0), (0.0, 1.0)),
)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """An object that crosses the frame from left to right, or from right to left."""

    at_s: float  # when it becomes visible
    size: int  # pixels, square
    speed: float  # pixels a second
    y: int
    contrast: float = 40.0  # grey levels against the ground
    to_left: bool = False

    @property
    def until_s(self) -> float:
        return self.at_s + (WIDTH + self.size) / self.speed

    def x(self, time_s: float) -> float:
        way = (time_s - self.at_s) * self.speed
        return WIDTH - way if self.to_left else way - self.size


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What to play. light_steps: (time, factor) of lamps that stay; exposure_steps likewise, over a second."""

    duration_s: float
    seed: int = 1
    noise: float = 3.0
    brightness: float = 1.0
    has_foliage: bool = False
    rain: int = 0  # drops in a frame
    clouds: float = 0.0  # how much slow changes of light amount to
    light_steps: tuple[tuple[float, float], ...] = ()
    half_light_steps: tuple[float, ...] = ()  # a lamp that lights one half of the frame, on or off
    passages: tuple[Passage, ...] = field(default=())


def frames(scene: Scene) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(time in ns from 0, luma) of the scene."""
    random = np.random.default_rng(scene.seed)
    ground = _ground(random) * scene.brightness
    noise_bank = random.normal(0, scene.noise, (HEIGHT * 2, WIDTH * 2)).astype(np.float32)
    leaves = _ground(random, scale=6, contrast=60)
    sway = np.zeros(2)
    light, half, wind = 1.0, 0.0, 0.0
    steps, half_steps = list(scene.light_steps), list(scene.half_light_steps)
    ramp = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :] > 0.5
    for number in range(int(scene.duration_s * RATE)):
        time_s = number / RATE
        frame = ground.copy()
        if scene.has_foliage:
            wind = max(0.0, wind + random.normal(0, 0.15) - 0.02 * (wind - 1.0))
            sway = sway * 0.6 + random.normal(0, 1.5, 2) * wind
            x0, y0, x1, y1 = FOLIAGE
            dx, dy = (int(v) for v in np.clip(np.rint(sway), -12, 12))
            frame[y0:y1, x0:x1] = leaves[y0 + dy : y1 + dy, x0 + dx : x1 + dx] * scene.brightness
        for passage in scene.passages:
            if passage.at_s <= time_s < passage.until_s:
                left = round(passage.x(time_s))
                a, b = max(0, left), min(WIDTH, left + passage.size)
                frame[passage.y : passage.y + passage.size, a:b] += passage.contrast
        while steps and time_s >= steps[0][0]:
            light *= steps.pop(0)[1]
        while half_steps and time_s >= half_steps[0]:
            half_steps.pop(0)
            half = 50.0 - half
        gain = light * (1 + scene.clouds * np.sin(time_s / 17) * np.sin(time_s / 5.3))
        frame = frame * gain + half * ramp
        for _ in range(scene.rain):
            x, y = random.integers(0, WIDTH - 4), random.integers(0, HEIGHT - 24)
            frame[y : y + 18, x : x + 2] += 30
        v, h = random.integers(0, HEIGHT), random.integers(0, WIDTH)
        frame += noise_bank[v : v + HEIGHT, h : h + WIDTH]
        yield round(time_s * NS), np.clip(frame, 0, 255).astype(np.uint8)


def _ground(random: np.random.Generator, *, scale: int = 20, contrast: float = 40.0) -> NDArray[np.float32]:
    """A still texture around a medium grey."""
    coarse = random.normal(0, 1, (HEIGHT // scale + 2, WIDTH // scale + 2)).astype(np.float32)
    fine = np.kron(coarse, np.ones((scale, scale), np.float32))[:HEIGHT, :WIDTH]
    return np.asarray(100 + contrast * np.clip(fine, -2, 2) / 2, np.float32)
