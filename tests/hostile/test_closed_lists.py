"""What SECURITY.md says is on none of the lists of what libav may open is on none."""

from __future__ import annotations

import av
import pytest

from msrecd.libav.allowed import options_for

SCHEMES = ("file", "http", "rtsp", "rtmp", "srt", "udp")
DEMUXERS = ["sbg", "dxa", "vqa", "dhav", "dash", "vobsub", "ty", "rist"]
DECODERS = (
    "exr sanm jpeg2000 pgm ppm pbm pam magicyuv rasc adpcm_adx tdsc mace6 rscc screenpresso "
    "tiff cfhd mszh zlib bitpacked hap imc mpc7 mpc8 flic vvc apac dvdsub dvbsub xsub"
)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.promise("formats-are-closed-lists")
def test_what_the_table_says_is_on_no_list_is_on_none(scheme: str) -> None:
    options = options_for(scheme, 10.0, "tcp")
    assert not set(DEMUXERS) & set(options["format_whitelist"].split(","))
    assert not set(DECODERS.split()) & set(options["codec_whitelist"].split(","))
    known = [name for name in options["codec_whitelist"].split(",") if name in av.codecs_available]
    assert len(known) > 30
    assert {av.codec.Codec(name, "r").type for name in known} == {"audio", "video"}
