"""Video files as footage: true timestamps, the rotation applied, high dynamic range kept, damage told.

Frames are decoded with `av` itself and not through imageio's plugin of it: that yields bare arrays, without the
timestamp, the damage mark, the rotation and the transfer function that each frame carries, and it ends at the first
packet that cannot be decoded. The pixels are the same, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..wire import UserError
from .decode import Damage, count_bad_packets, decode, is_cut, open_container, picture_stream
from .source import Footage, Picture, Sampling

log = logging.getLogger(__name__)

FOCAL_35MM_TAG = "camera.focal_length.35mm_equivalent"  # after 'com.apple.quicktime.'
TRANSFERS = {16: "pq", 18: "hlg"}  # ITU-T H.273, transfer characteristics
#: A frame that comes this share of the usual distance too early or late makes the frame rate variable.
UNEVEN = 0.1
#: No codec holds back more pictures than this to put them in order.
REORDER = 16


class VideoFootage(Footage):
    """A video file. `seconds` are the container's presentation times less that of the first frame."""

    kind = "video"

    @classmethod
    def of_file(cls, path: Path) -> VideoFootage:
        """The video at `path`, its header read. Raises UserError when it is no video that can be read."""
        if path.stat().st_size == 0:
            raise UserError(f"{path.name} is empty", "copy the clip again")
        footage = cls(path)
        with open(path, "rb") as file, open_container(file, path) as container:
            footage._read_header(container, picture_stream(container, path))
        return footage

    def pictures(self, sampling: Sampling, threads: int = 0) -> Generator[Picture | None, None, None]:
        path, damage, declared = self.root, Damage(), self.frame_estimate
        with open(path, "rb") as file, open_container(file, path) as container:
            stream = picture_stream(container, path)
            stream.thread_type = "AUTO"  # frame threads: nearly twice as fast on two cores
            stream.codec_context.thread_count = threads
            # Only AVI has no presentation times: its pictures are evenly spaced by definition.
            timed = container.format.name != "avi"
            pts: list[int | None] = []
            whole = True
            for index, frame in enumerate(decode(container, stream, damage)):
                if sampling.is_past(index):
                    whole = False
                    break
                if index == 0:
                    self._look_at(frame, stream)
                turns = _quarter_turns(frame)
                size = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
                self.check_size(*size, f"Frame {index} of {path.name}")
                pts.append(frame.pts if timed else index)
                self.seconds.append(0.0)
                if frame.is_corrupt:
                    damage.marked.append(index)
                if not sampling.wants(index):
                    yield None
                    continue
                transfer = TRANSFERS.get(int(frame.color_trc), "sdr")
                rgb = frame.to_ndarray(format="rgb24" if transfer == "sdr" else "rgb48le")
                yield Picture(index, np.rot90(rgb, -turns), transfer)
            if not pts:
                return
            time_base = _fraction(stream.time_base) if timed else 1 / self.fps
            if whole:
                end_s = float(max((p for p in pts if p is not None), default=0) * time_base + 1 / self.fps)
                damage.cut = damage.cut or is_cut(container, stream, path, end_s)
                if container.format.name == "mpegts":  # states no length: pictures that fail at the end alone tell
                    declared = 0
                    damage.cut = damage.cut or (bool(damage.marked) and damage.marked[0] >= len(pts) - REORDER)
            if damage.cut and not timed:
                pts = pts[: len(pts) - stream.codec_context.has_b_frames]
        self._settle_times(pts, time_base, damage)
        self._tell(damage, declared)
        self.frame_estimate = len(self.seconds)

    def count(self, patience_s: float) -> bool:
        """As in Footage, from the packets, which are read and not decoded. Damage shows only when decoding."""
        deadline = time.monotonic() + patience_s
        pts: list[int | None] = []
        with open(self.root, "rb") as file, open_container(file, self.root) as container:
            stream = picture_stream(container, self.root)
            timed = container.format.name != "avi"
            try:
                for packet in container.demux(stream):
                    if time.monotonic() > deadline:
                        return False
                    if packet.size and not packet.is_discard:
                        pts.append(packet.pts if timed else len(pts))
            except av.FFmpegError as error:
                log.info("%s ends early: %s", self.root, error)
            time_base = _fraction(stream.time_base) if timed else 1 / self.fps
        if not pts:
            return False
        self._settle_times(pts if None in pts else sorted(pts), time_base, Damage())
        self.frame_estimate = len(pts)
        return True

    def _read_header(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        """Keep the codec, the declared rate and length, and the focal length that phones write."""
        self.codec = stream.codec_context.name
        self.audio = len(container.streams.audio) > 0
        rate = stream.average_rate or stream.guessed_rate
        if rate:
            self.fps = _fraction(rate)
        self.frame_estimate = stream.frames
        if not self.frame_estimate and container.duration:
            self.frame_estimate = round(container.duration * self.fps / av.time_base)
        self.focal_35mm = _focal_35mm({**container.metadata, **stream.metadata})

    def _look_at(self, frame: av.VideoFrame, stream: av.VideoStream) -> None:
        """Keep what the first frame says, and warn of what cannot be honoured."""
        degrees, mirrored = _display(frame)
        self.rotation = _quarter_turns(frame) * 90
        if abs(degrees - 90 * round(degrees / 90)) > 1:
            self.warnings.append(f"The clip asks to be turned by {degrees:.0f} degrees; only quarter turns are made")
        if mirrored:
            self.warnings.append(
                "The clip asks to be mirrored; it is not, so that left and right stay as they were shot"
            )
        # Alpha says where the picture is, not what moves in it, so it is no motion mask.
        if any(component.is_alpha for component in frame.format.components):
            self.warnings.append("The clip's alpha channel is not used; give what moves as masks")
        if frame.interlaced_frame:
            self.warnings.append("The clip is interlaced; deinterlace it for a better result")
        aspect = stream.sample_aspect_ratio
        if aspect and aspect != 1:
            self.warnings.append(f"The clip's pixels are not square ({aspect}) but taken as square; desqueeze it first")

    def _settle_times(self, pts: list[int | None], time_base: Fraction, damage: Damage) -> None:
        """Seconds of every frame from their pts, the true frame rate, and whether it varies."""
        if None in pts or (np.diff(pts) <= 0).any():
            self.warnings.append(f"The clip's timestamps are damaged; its frames are taken as even at {self.fps} fps")
            self.seconds = [float(i / self.fps) for i in range(len(pts))]
            return
        if damage.cut:
            pts = pts[: _readable_prefix(pts, damage.marked)]
            damage.marked = [i for i in damage.marked if i < len(pts)]
        self.seconds = [float((p - pts[0]) * time_base) for p in pts]
        if len(pts) < 3:
            return
        steps = np.diff(pts)
        usual = float(np.median(steps))
        # Frames that were lost leave whole gaps; then only what is off the beat varies.
        beats = np.round(steps / usual) if damage else 1
        self.variable_frame_rate = bool((np.abs(steps - usual * beats) > max(1.5, UNEVEN * usual)).any())
        span = (pts[-1] - pts[0]) * time_base
        measured = (len(pts) - 1) / span
        # A constant rate within the rounding of the timestamps is exactly what the container declares.
        off = abs(measured / self.fps - 1) > Fraction(1, 2000) + time_base / span
        if self.variable_frame_rate or (off and not damage):
            self.fps = measured.limit_denominator(1001)
        if self.variable_frame_rate:
            self.warnings.append(f"The frame rate varies ({float(self.fps):.2f} fps on average); true times are kept")

    def _tell(self, damage: Damage, declared: int) -> None:
        """One sentence for each kind of damage."""
        read = len(self.seconds)
        if damage.cut:
            of = f" of the {declared} it declares" if declared > read else ""
            self.warnings.append(f"The file is cut: the first {read} frames{of} could be read and are used")
        if damage:
            bad, total = count_bad_packets(self.root)
            seen = f"; {len(damage.marked)} frames show it, the first is {damage.marked[0]}" if damage.marked else ""
            gone = f"; {damage.packets} gave no frame" if damage.packets else ""
            self.warnings.append(
                f"The file is damaged: {bad} of its {total} packets do not decode as written{seen}{gone}"
            )


def _readable_prefix(pts: list[int], marked: list[int]) -> int:
    """How many frames of a cut file are whole: at its end, pictures miss others that they were predicted from."""
    steps = np.diff(pts)
    tail = max(0, len(pts) - REORDER)
    behind_gap = [i + 1 for i in np.flatnonzero(steps > 1.5 * np.median(steps)) if i >= tail] if len(steps) else []
    return int(min([len(pts), *behind_gap, *(i for i in marked if i >= tail)]))


def _display(frame: av.VideoFrame) -> tuple[float, bool]:
    """Degrees clockwise that bring the frame's top to the top, and whether it also asks to be mirrored.

    `frame.rotation` cannot tell a mirrored frame from a turned one: it looks at the x axis alone.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not matrix:
        return 0.0, False
    # (x, y) is shown at (a x + c y, b x + d y), y down (ISO 14496-12, 8.5.2).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    return float(np.degrees(np.arctan2(-c, d))), a * d - b * c < 0


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Clockwise quarter turns that show the frame upright."""
    return round(_display(frame)[0] / 90) % 4


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
