"""Nodes against another implementation of the specification: npm's node-web-audio-api, where it is installed.

`npm install --prefix FOLDER node-web-audio-api`, then `MSRECD_NODE_WEB_AUDIO=FOLDER pytest` this file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msrecd

FOLDER = os.environ.get("MSRECD_NODE_WEB_AUDIO", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="MSRECD_NODE_WEB_AUDIO names no folder")
RATE, FRAMES = 48000, 9600

PROGRAM = """
import { OfflineAudioContext, BiquadFilterNode, DelayNode, StereoPannerNode, GainNode, OscillatorNode }
  from 'node-web-audio-api';
const kinds = { BiquadFilterNode, DelayNode, StereoPannerNode, GainNode };
const cases = JSON.parse(process.argv[2]);
const noise = new Float32Array(await (async () => {
  const parts = []; for await (const part of process.stdin) parts.push(part);
  const all = Buffer.concat(parts); return all.buffer.slice(all.byteOffset, all.byteOffset + all.length);
})());
const results = [];
for (const one of cases) {
  const context = new OfflineAudioContext(2, noise.length, 48000);
  const buffer = context.createBuffer(1, noise.length, 48000);
  buffer.copyToChannel(noise, 0);
  const source = context.createBufferSource();
  source.buffer = buffer;
  const node = new kinds[one.kind](context, one.options);
  source.connect(node).connect(context.destination);
  for (const [param, method, values] of one.automation || []) node[param][method](...values);
  source.start();
  const rendered = await context.startRendering();
  const data = [0, 1].map((at) => Buffer.from(rendered.getChannelData(at).buffer).toString('base64'));
  results.push(data);
}
console.log(JSON.stringify(results));
"""

CASES: list[dict[str, Any]] = [
    *(
        {"kind": "BiquadFilterNode", "options": {"type": type, "frequency": 1500, "Q": 3, "gain": 6}}
        for type in ("lowpass", "highpass", "bandpass", "lowshelf", "highshelf", "peaking", "notch", "allpass")
    ),
    {"kind": "DelayNode", "options": {"delayTime": 0.0123, "maxDelayTime": 0.5}},
    {"kind": "StereoPannerNode", "options": {"pan": -0.4}},
    {"kind": "GainNode", "options": {"gain": 0.3}},
    {
        "kind": "GainNode",
        "options": {},
        "automation": [
            ["gain", "setValueAtTime", [0.2, 0.01]],
            ["gain", "linearRampToValueAtTime", [1, 0.05]],
            ["gain", "exponentialRampToValueAtTime", [0.1, 0.1]],
            ["gain", "setTargetAtTime", [0.9, 0.1, 0.02]],  # between a ramp and a later target the other one errs
            ["gain", "setValueCurveAtTime", [[0, 1, 0.5], 0.15, 0.03]],
        ],
    },
]


def snake(name: str) -> str:
    return name if name == "Q" else "".join(f"_{one.lower()}" if one.isupper() else one for one in name)


async def ours(case: dict[str, Any], noise: Any) -> Any:
    context = msrecd.OfflineAudioContext(2, FRAMES, RATE)
    buffer = context.create_buffer(1, FRAMES, RATE)
    buffer.copy_to_channel(noise, 0)
    source = context.create_buffer_source()
    source.buffer = buffer
    options = {snake(name): value for name, value in case["options"].items()}
    node = getattr(msrecd, case["kind"])(context, options)
    source.connect(node).connect(context.destination)
    for param, method, values in case.get("automation", ()):
        getattr(getattr(node, param), snake(method))(*values)
    source.start()
    return (await context.start_rendering()).channels


def test_both_render_the_same(tmp_path: Path) -> None:
    noise = (np.random.default_rng(5).random(FRAMES) - 0.5).astype(np.float32)
    program = Path(FOLDER) / "msrecd-cases.mjs"
    program.write_text(PROGRAM)
    command = ["node", str(program), json.dumps(CASES)]
    done = subprocess.run(command, input=noise.tobytes(), capture_output=True, timeout=120, check=True)
    apart = {}
    for case, channels in zip(CASES, json.loads(done.stdout), strict=True):
        theirs = np.stack([np.frombuffer(base64.b64decode(one), dtype=np.float32) for one in channels])
        name = f"{case['kind']} {case['options'].get('type', '')}{' automated' if 'automation' in case else ''}"
        apart[name] = float(np.abs(theirs - asyncio.run(ours(case, noise))).max())
    print(f"largest difference: {max(apart.values()):.1e}")
    for name, difference in apart.items():
        assert difference < (2e-4 if name.startswith("StereoPanner") else 1e-5), name  # its panning is from a table
