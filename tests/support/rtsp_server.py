"""An RTSP camera for tests: plays a file once. Run by the system's Python, which has GStreamer's bindings.

/usr/bin/python3 tests/support/rtsp_server.py PORT FILE.mp4 [--sound]
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PORT, FILE = sys.argv[1:3]
SOUND = " d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97" if "--sound" in sys.argv else ""
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( filesrc location={FILE} ! qtdemux name=d d.video_0 ! queue ! h264parse"
    f" ! rtph264pay config-interval=1 name=pay0 pt=96{SOUND} )"
)
factory.set_shared(False)  # a client that joins would rewind the film for all others
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(PORT)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
