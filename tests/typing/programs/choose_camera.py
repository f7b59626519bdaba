"""Constraints, settings and capabilities."""

import msrecd


async def open_wide(devices: msrecd.MediaDevices) -> msrecd.MediaStreamTrack:
    infos = await devices.enumerate_devices()
    cameras = [info for info in infos if isinstance(info, msrecd.InputDeviceInfo) and info.kind == "videoinput"]
    constraints: msrecd.MediaTrackConstraints = {
        "device_id": {"exact": cameras[0].device_id},
        "width": {"min": 640, "ideal": 1920},
        "frame_rate": 30,
        "advanced": [{"exposure_mode": "manual"}, {"focus_distance": {"max": 3.0}}],
    }
    try:
        stream = await devices.get_user_media({"video": constraints, "audio": False})
    except msrecd.OverconstrainedError as exc:
        print(exc.constraint)
        raise
    (track,) = stream.get_video_tracks()
    await track.apply_constraints({"frame_rate": {"max": 15}})
    return track
