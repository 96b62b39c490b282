"""Video files: one sequential decode with true timestamps, rotation, damage reports, and hostile containers refused.

Frames are decoded with `av` itself and not through imageio's plugin of it: that yields bare arrays, without the
timestamp, the damage mark, the rotation and the transfer function that each frame carries, and it ends at the first
packet that cannot be decoded. The pixels are the same, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from ..wire import UserError
from .source import Footage, Picture, Sampling

log = logging.getLogger(__name__)

#: The only containers that are opened: none of them is a list of other files.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mxf"
FORMATS_HINT = "give an mp4, mov, mkv, webm, avi, ts or mxf file, or a folder of images"
REENCODE_HINT = "re-encode it as H.264 in an .mp4, or export an image sequence"
FOCAL_35MM_TAG = "camera.focal_length.35mm_equivalent"  # after 'com.apple.quicktime.'
TRANSFERS = {16: "pq", 18: "hlg"}  # ITU-T H.273, transfer characteristics
#: A frame that comes this much earlier or later than the usual distance makes the frame rate variable.
UNEVEN = 0.1


class VideoFootage(Footage):
    """A video file. `seconds` are the container's presentation times less that of the first frame."""

    kind = "video"

    @classmethod
    def of_file(cls, path: Path) -> VideoFootage:
        """The video at `path`, its header read. Raises UserError when it is no video that can be read."""
        if path.stat().st_size == 0:
            raise UserError(f"{path.name} is empty", "copy the clip again")
        footage = cls(path)
        with open(path, "rb") as file, footage._open(file) as container:
            footage._read_header(container)
        return footage

    def pictures(self, sampling: Sampling, threads: int = 0) -> Generator[Picture | None, None, None]:
        with open(self.root, "rb") as file, self._open(file) as container:
            stream = self._read_header(container)
            stream.thread_type = "AUTO"  # frame threads: nearly twice as fast on two cores
            stream.codec_context.thread_count = threads
            time_base = _fraction(stream.time_base)
            damage = _Damage()
            pts: list[int | None] = []
            for index, frame in enumerate(_decode(container, stream, damage)):
                if sampling.is_past(index):
                    break
                if index == 0:
                    self._look_at(frame, stream)
                quarter_turns = self._quarter_turns(frame)
                size = (frame.height, frame.width) if quarter_turns % 2 else (frame.width, frame.height)
                self.check_size(*size, f"Frame {index} of {self.root.name}")
                pts.append(frame.pts if frame.pts is not None else frame.dts)
                self.seconds.append(0.0)
                if frame.is_corrupt:
                    damage.frames.append(index)
                if not sampling.wants(index):
                    yield None
                    continue
                transfer = TRANSFERS.get(int(frame.color_trc), "sdr")
                rgb = frame.to_ndarray(format="rgb24" if transfer == "sdr" else "rgb48le")
                yield Picture(index, np.rot90(rgb, quarter_turns), transfer)
            self._settle_times(pts, time_base)
            self.warnings += damage.warnings(len(pts), self.frame_estimate)

    def _open(self, file: BinaryIO) -> av.container.InputContainer:
        """A container over the open file; it may be of the known formats only and open no further file."""
        try:
            return av.open(file, mode="r", options={"format_whitelist": FORMATS}, io_open=_refuse)
        except av.FFmpegError as error:
            raise UserError(f"{self.root.name} is not a video that can be read", FORMATS_HINT) from error

    def _read_header(self, container: av.container.InputContainer) -> av.VideoStream:
        """The picture stream; its codec, declared rate and metadata are kept."""
        streams = [
            s for s in container.streams.video if not int(s.disposition) & int(av.stream.Disposition.attached_pic)
        ]
        if not streams:
            raise UserError(f"{self.root.name} has no picture", FORMATS_HINT)
        stream = streams[0]
        if stream.codec_context is None:
            raise UserError(f"No decoder for the video in {self.root.name}", REENCODE_HINT)
        self.codec = stream.codec_context.name
        rate = stream.average_rate or stream.guessed_rate
        if rate:
            self.fps = _fraction(rate)
        self.frame_estimate = stream.frames
        if not self.frame_estimate and container.duration:
            self.frame_estimate = round(container.duration / av.time_base * self.fps)
        self.focal_35mm = _focal_35mm({**container.metadata, **stream.metadata})
        return stream

    def _quarter_turns(self, frame: av.VideoFrame) -> int:
        """Counter-clockwise quarter turns that show the frame upright."""
        return round(frame.rotation / 90) % 4

    def _look_at(self, frame: av.VideoFrame, stream: av.VideoStream) -> None:
        """Keep what the first frame says, and warn of what cannot be honoured."""
        self.rotation = -self._quarter_turns(frame) % 4 * 90
        if frame.rotation % 90:
            self.warnings.append(
                f"The clip asks to be turned by {frame.rotation} degrees; turned to the nearest quarter"
            )
        if any(component.is_alpha for component in frame.format.components):
            self.warnings.append("The clip's alpha channel is not used; give known movers as masks")
        if frame.interlaced_frame:
            self.warnings.append("The clip is interlaced; deinterlace it for a better result")
        aspect = stream.sample_aspect_ratio
        if aspect and aspect != 1:
            self.warnings.append(f"The clip's pixels are not square ({aspect}) but taken as square; desqueeze it first")

    def _settle_times(self, pts: list[int | None], time_base: Fraction) -> None:
        """Seconds of every frame from their pts, the true frame rate, and whether it varies."""
        if not pts:
            return
        if None in pts or (np.diff(np.array(pts)) <= 0).any():
            self.warnings.append(
                f"The clip's timestamps are damaged; frames are taken as evenly spaced at {self.fps} fps"
            )
            self.seconds = [float(i / self.fps) for i in range(len(pts))]
            return
        self.seconds = [float((p - pts[0]) * time_base) for p in pts]
        if len(pts) < 3:
            return
        steps = np.diff(np.array(pts))
        usual = float(np.median(steps))
        self.variable_frame_rate = bool((np.abs(steps - usual) > max(1.5, UNEVEN * usual)).any())
        span = (pts[-1] - pts[0]) * time_base
        measured = (len(pts) - 1) / span
        # A constant rate within the rounding of the timestamps is exactly what the container declares.
        if self.variable_frame_rate or abs(measured / self.fps - 1) > Fraction(1, 2000) + time_base / span:
            self.fps = measured.limit_denominator(1001)
        if self.variable_frame_rate:
            self.warnings.append(f"The frame rate varies ({float(self.fps):.2f} fps on average); true times are kept")


class _Damage:
    """What could not be decoded as it was written."""

    def __init__(self) -> None:
        self.frames: list[int] = []  # decoded, but marked as damaged
        self.packets = 0  # not decodable at all
        self.cut = False

    def warnings(self, read: int, declared: int) -> list[str]:
        """One sentence for each kind of damage."""
        told = []
        if self.cut:
            of = f" of the {declared} it declares" if declared > read else ""
            told.append(f"The file is cut: {read} frames{of} could be read and are used")
        if self.frames:
            first = ", ".join(map(str, self.frames[:5])) + (" ..." if len(self.frames) > 5 else "")
            told.append(f"The file is damaged: {len(self.frames)} frames show it (frame {first})")
        if self.packets:
            told.append(
                f"The file is damaged: {self.packets} packets could not be decoded and their frames are missing"
            )
        return told


def _decode(container: av.container.InputContainer, stream: av.VideoStream, damage: _Damage) -> Iterator[av.VideoFrame]:
    """Every decodable frame in display order; what is not decodable is counted in `damage`."""
    held = (
        None  # a packet marked as damaged is decoded only if more follow: the last one of a cut file is half a picture
    )
    try:
        for packet in container.demux(stream):
            ready, held = ([held] if held else []), None
            if packet.is_corrupt and packet.size:
                held = packet
            elif packet.size or not ready:
                ready.append(packet)
            for each in ready:
                yield from _frames_of(each, damage)
    except av.FFmpegError as error:
        log.info("%s ends early: %s", container.name, error)
        damage.cut = True
        yield from _frames_of(None, damage, stream)


def _frames_of(packet: av.Packet | None, damage: _Damage, stream: av.VideoStream | None = None) -> list[av.VideoFrame]:
    try:
        return packet.decode() if packet is not None else stream.codec_context.decode(None)
    except av.FFmpegError as error:
        log.info("a packet could not be decoded: %s", error)
        damage.packets += 1
        return []


def _refuse(url: str, flags: int, options: dict) -> None:
    raise PermissionError(f"a clip may not open another file ({url})")


def _focal_35mm(metadata: dict[str, str]) -> float | None:
    for key, value in metadata.items():
        if key.endswith(FOCAL_35MM_TAG):
            try:
                focal = float(value)
            except ValueError:
                return None
            return focal if focal > 0 else None
    return None


def _fraction(rational) -> Fraction:
    """av 18 has Fractions where av 19 has a type of its own."""
    return Fraction(rational.numerator, rational.denominator)
