"""Video files: what comes out is what was shot, at the time it was shot, whatever state the file is in."""

from __future__ import annotations

import struct
from fractions import Fraction
from functools import cache

import imageio.v3 as iio
import numpy as np
import pytest

from backend.clip import open_clip
from backend.footage import probe
from backend.run import Run
from backend.wire import ClipSettings, UserError
from tests.footage import HEIGHT, WIDTH, index_of, picture, pictures, write_video

FASTSTART = {"movflags": "faststart"}  # the index before the pictures, as cameras and the web write it


def opened(path, **settings):
    work = path.parent / f"work-{path.name}"
    work.mkdir(exist_ok=True)
    return open_clip(path, ClipSettings(**settings), Run(work_dir=work))


def indices_seen(clip) -> list[int]:
    return [index_of(frame) for frame in clip.frames]


@cache
def noisy_pictures(count: int) -> list[np.ndarray]:
    """Pictures that take some bytes to encode, so that damage hits pictures and not headers."""
    rng = np.random.default_rng(0)
    return [np.clip(p + rng.integers(-15, 16, p.shape), 0, 255).astype(np.uint8) for p in pictures(count)]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "webm", "mxf"])
def test_every_frame_comes_once_in_order_at_its_time(tmp_path, suffix):
    codec = {"webm": "libvpx-vp9", "mxf": "mpeg2video"}.get(suffix, "libx264")
    clip = opened(write_video(tmp_path / f"a.{suffix}", pictures(20), fps=25, codec=codec))
    assert indices_seen(clip) == list(range(20))
    assert clip.info.frame_indices == tuple(range(20))
    assert clip.fps == 25
    assert not clip.info.variable_frame_rate
    assert clip.info.plate_size == (WIDTH, HEIGHT)
    np.testing.assert_allclose(clip.info.timestamps, np.arange(20) / 25, atol=0.0006)  # Matroska counts milliseconds
    assert clip.warnings == ()


def test_pixels_are_those_of_imageios_pyav_plugin(tmp_path):
    path = write_video(tmp_path / "a.mp4", noisy_pictures(12))
    np.testing.assert_array_equal(opened(path).frames, iio.imread(path, plugin="pyav"))


def test_ntsc_rate_stays_an_exact_fraction(tmp_path):
    clip = opened(write_video(tmp_path / "a.mp4", pictures(12), fps=Fraction(24000, 1001)))
    assert clip.fps == Fraction(24000, 1001)
    np.testing.assert_allclose(clip.info.timestamps, np.arange(12) * 1001 / 24000, atol=1e-4)


def test_time_zero_is_the_first_frame_however_late_the_stream_starts(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", pictures(8), pts=[1000 + 40 * i for i in range(8)], time_base=Fraction(1, 1000)
    )
    np.testing.assert_allclose(opened(path).info.timestamps, 0.04 * np.arange(8), atol=1e-9)


# The display matrix (a b u c d v x y w) turns the stored picture; 1.0 is 65536 and the last one 1 << 30.
@pytest.mark.parametrize(
    ("a", "b", "c", "d", "rotation"), [(0, 1, -1, 0, 90), (-1, 0, 0, -1, 180), (0, -1, 1, 0, 270), (1, 0, 0, 1, 0)]
)
def test_rotation_is_applied_and_recorded(tmp_path, a, b, c, d, rotation):
    path = write_video(tmp_path / "a.mp4", [np.rot90(picture(i), rotation // 90).copy() for i in range(4)])
    with_display_matrix(path, a, b, c, d)
    clip = opened(path)
    assert clip.info.rotation == rotation
    assert clip.info.plate_size == (WIDTH, HEIGHT)
    assert indices_seen(clip) == [0, 1, 2, 3]
    red, green = clip.frames[0][8, 8], clip.frames[0][8, -8]  # top left and top right, see tests/footage.py
    assert red[0] > 150 > red[1]
    assert green[1] > 150 > green[0]
    assert probe(path).rotation == rotation


def test_a_mirrored_clip_is_upright_as_shot_and_told(tmp_path):
    clip = opened(with_display_matrix(write_video(tmp_path / "a.mp4", pictures(4)), -1, 0, 0, 1))
    assert clip.info.rotation == 0
    assert indices_seen(clip) == [0, 1, 2, 3]
    assert "mirrored" in clip.warnings[0]


def with_display_matrix(path, a, b, c, d):
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def test_variable_frame_rate_keeps_true_times_and_says_so(tmp_path):
    pts = np.cumsum([0, 33, 33, 66, 33, 17, 33, 100, 33, 33]).tolist()
    path = write_video(tmp_path / "a.mkv", pictures(10), fps=30, pts=pts, time_base=Fraction(1, 1000))
    clip = opened(path)
    assert indices_seen(clip) == list(range(10))
    np.testing.assert_allclose(clip.info.timestamps, np.array(pts) / 1000)
    assert clip.info.variable_frame_rate
    assert float(clip.fps) == pytest.approx(9 / 0.381, rel=1e-3)  # 9 steps in 381 ms
    assert any("frame rate varies" in w for w in clip.warnings)


def test_frames_cut_away_by_an_edit_list_are_not_frames_of_the_clip(tmp_path):
    # Pictures before time 0 get an edit list; the container still counts all 20.
    path = write_video(tmp_path / "a.mp4", pictures(20), pts=list(range(-5, 15)), options={"bf": "0", "g": "1"})
    clip = opened(path)
    assert indices_seen(clip) == list(range(5, 20))
    assert clip.info.frame_indices == tuple(range(15))
    assert clip.info.timestamps[0] == 0
    assert clip.fps == 24


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mxf", "ts"])
def test_a_cut_file_gives_its_readable_prefix_and_says_how_long_it_is(tmp_path, suffix):
    options = FASTSTART if suffix == "mp4" else {}
    codec = "mpeg2video" if suffix == "mxf" else "libx264"
    whole = write_video(tmp_path / f"a.{suffix}", noisy_pictures(60), codec=codec, container_options=options)
    data = whole.read_bytes()
    for share in (0.55, 0.6, 0.71):
        path = tmp_path / f"cut{share}.{suffix}"
        path.write_bytes(data[: int(len(data) * share)])
        clip = opened(path)
        assert 20 < clip.frame_count < 50
        assert indices_seen(clip) == list(range(clip.frame_count))  # no repeats, no holes, nothing made up
        assert not clip.info.variable_frame_rate
        of = " of the 60 it declares" if suffix != "ts" else ""  # a transport stream declares nothing
        assert clip.warnings == (
            f"The file is cut: the first {clip.frame_count} frames{of} could be read and are used",
        )


def test_a_range_before_the_cut_is_no_worry(tmp_path):
    path = write_video(tmp_path / "a.mp4", noisy_pictures(60), container_options=FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert opened(path, last_frame=9).warnings == ()


def test_flipped_bits_are_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", noisy_pictures(40), container_options=FASTSTART)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(len(data) // 2, len(data) - 50, 30):
        data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    clip = opened(path)
    assert indices_seen(clip)[:10] == list(range(10))
    assert any("damaged" in w and "of its 40 packets" in w for w in clip.warnings)
    assert not clip.info.variable_frame_rate
    assert clip.fps == 24


def test_a_lost_stretch_leaves_a_hole_in_time_and_no_variable_rate(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", noisy_pictures(40), container_options=FASTSTART, options={"bf": "0", "g": "1"}
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    path.write_bytes(data)
    clip = opened(path)
    assert clip.frame_count < 40
    assert any("gave no frame" in w for w in clip.warnings)
    assert not clip.info.variable_frame_rate
    # Every picture is its own key frame here, so each one that came out stands at the time it was shot.
    whole = [(i, t) for i, t in zip(indices_seen(clip), clip.info.timestamps) if t == pytest.approx(i / 24, abs=1e-3)]
    assert len(whole) >= clip.frame_count - 2
    assert whole[-1][0] == 39


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concat.mp4", "ffconcat version 1.0\nfile 'victim.mp4'\n"),
        ("concat-absolute.mp4", "ffconcat version 1.0\nfile '{victim}'\n"),
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{victim}\n#EXT-X-ENDLIST\n"),
        ("hls.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{victim}\n#EXT-X-ENDLIST\n"),
        ("dash.mp4", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period></Period></MPD>'),
        ("session.mp4", "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
        ("letter.mp4", "This was never a video.\n" * 200),
        ("empty.mp4", ""),
    ],
)
def test_a_playlist_or_text_named_as_a_video_is_refused(tmp_path, name, text):
    victim = write_video(tmp_path / "victim.mp4", pictures(5))
    path = tmp_path / name
    path.write_text(text.format(victim=victim), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        opened(path)
    assert name in refused.value.message
    assert refused.value.hint


def test_a_video_without_its_index_is_refused_with_a_hint(tmp_path):
    path = write_video(tmp_path / "a.mp4", noisy_pictures(40))  # the index stands at the end
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="not a video that can be read"):
        opened(path)


def pq_code(nits: float) -> float:
    """SMPTE ST 2084 inverse, as a share of full scale."""
    y = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg_code(nits: float) -> float:
    """ARIB STD-B67 of a grey that a 1000 cd/m2 display shows at that luminance."""
    scene = (nits / 1000) ** (1 / 1.2)
    return (3 * scene) ** 0.5 if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073


# Greys in cd/m2. Up to 0.8 of white (203 cd/m2) light is kept: 50 -> 0.246 -> sRGB 136; 100 -> 0.493 -> sRGB 186.
# White rolls off to 0.8 + 0.2 (1 - 1/e) = 0.926 -> sRGB 246; 900 is all but 1 -> 255.
GREYS = [(50, 136), (100, 186), (203, 246), (900, 255)]


@pytest.mark.parametrize(("trc", "code"), [(16, pq_code), (18, hlg_code)], ids=["pq", "hlg"])
def test_high_dynamic_range_is_tone_mapped_to_ordinary_mid_tones(tmp_path, trc, code):
    luma = np.zeros((64, 128), np.uint16)
    for i, (nits, _) in enumerate(GREYS):
        luma[:, 32 * i : 32 * (i + 1)] = round(64 + 876 * code(nits))  # limited range, 10 bits
    chroma = np.full((32, 128), 512, np.uint16)
    colour = {"color_trc": trc, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    path = write_video(
        tmp_path / "hdr.mp4",
        [np.concatenate([luma, chroma])] * 3,
        codec="libx265",
        pix_fmt="yuv420p10le",
        array_format="yuv420p10le",
        options={"x265-params": "log-level=none:lossless=1"},
        colour=colour,
    )
    frame = opened(path).frames[0]
    for i, (_, srgb) in enumerate(GREYS):
        np.testing.assert_allclose(frame[32, 32 * i + 16].astype(int), srgb, atol=3)


def test_ten_bits_of_ordinary_range_look_like_eight(tmp_path):
    rgb = pictures(4)
    eight = opened(write_video(tmp_path / "8.mp4", rgb, pix_fmt="yuv444p", options={"qp": "0"}))
    ten = opened(write_video(tmp_path / "10.mp4", rgb, pix_fmt="yuv444p10le", options={"qp": "0"}))
    assert np.abs(eight.frames.astype(int) - ten.frames).max() <= 3


def test_alpha_is_left_out_and_told(tmp_path):
    rgba = [np.dstack([p, np.full(p.shape[:2], 128, np.uint8)]) for p in pictures(4)]
    clip = opened(write_video(tmp_path / "a.mov", rgba, codec="qtrle", pix_fmt="argb", array_format="rgba"))
    np.testing.assert_array_equal(clip.frames[3], picture(3))
    assert clip.known_masks is None
    assert "alpha" in clip.warnings[0]


def test_pixels_that_are_not_square_are_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", pictures(4), colour={"sample_aspect_ratio": Fraction(4, 3)})
    assert "not square (4/3)" in opened(path).warnings[0]


def test_the_focal_length_that_phones_write_is_found(tmp_path):
    tag = {"com.apple.quicktime.camera.focal_length.35mm_equivalent": "26"}
    path = write_video(
        tmp_path / "a.mov", pictures(4), metadata=tag, container_options={"movflags": "use_metadata_tags"}
    )
    assert opened(path).focal_35mm == 26
    assert opened(write_video(tmp_path / "plain.mov", pictures(4))).focal_35mm is None


def test_probe_tells_size_rate_and_length_before_decoding(tmp_path):
    told = probe(write_video(tmp_path / "a.mp4", pictures(30), fps=25))
    assert (told.kind, told.plate_size, told.fps, told.frame_estimate) == ("video", (WIDTH, HEIGHT), 25, 30)
    assert told.duration_s == pytest.approx(1.2)
    assert told.codec == "h264"
