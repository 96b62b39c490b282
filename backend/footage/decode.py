"""Decoding a video stream to its end whatever its state, with an account of what could not be decoded."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import av

from ..wire import UserError
from .source import MAX_PLATE_SIDE, check_sides

log = logging.getLogger(__name__)

#: The only containers that are opened: none of them is a list of other files.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mxf"
#: The second option keeps a demuxer that opens files by itself, past `io_open`, from any protocol to do so with.
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
FORMATS_HINT = "give an mp4, mov, mkv, webm, avi, ts or mxf file, or a folder of images"
#: A decoder takes no memory for larger pictures, whatever the stream says of their size and wherever.
DECODER_OPTIONS = {"max_pixels": str(MAX_PLATE_SIDE**2)}
#: Longest that the damage of a file is counted, which means to decode it once more.
COUNTING_S = 60.0
REENCODE_HINT = "re-encode it as H.264 in an .mp4, or export an image sequence"


def open_container(file: BinaryIO, path: Path) -> av.container.InputContainer:
    """A container over the open file, whose demuxer may open no further file. Raises UserError when it is no video."""
    try:
        return av.open(file, mode="r", options=OPTIONS, io_open=_refuse)
    except av.FFmpegError as error:
        log.info("%s: %s", path, error)
        raise UserError(f"{path.name} is not a video that can be read", FORMATS_HINT) from error


def picture_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first video stream that is no cover picture, its decoder bounded.

    Raises UserError when there is none, no decoder for it, or when its pictures are too large.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise UserError(f"{path.name} has no video in it", FORMATS_HINT)
    if streams[0].codec_context is None:
        raise UserError(f"There is no decoder for the video in {path.name}", REENCODE_HINT)
    codec = streams[0].codec_context
    check_sides(codec.width, codec.height, path.name)
    codec.options = DECODER_OPTIONS
    return streams[0]


@dataclass
class Damage:
    """What was not decoded as it was written."""

    marked: list[int] = field(default_factory=list)  # frames that came out with the decoder's mark of damage
    packets: int = 0  # packets that gave no frame
    cut: bool = False  # the end is missing

    def __bool__(self) -> bool:
        return bool(self.marked or self.packets)


def decode(container: av.container.InputContainer, stream: av.VideoStream, damage: Damage) -> Iterator[av.VideoFrame]:
    """Every decodable frame in display order; `damage` is filled on the way and whole at the end.

    A packet marked as damaged is decoded only when more follow: the last one of a cut file holds half a picture,
    and its decoder would make up the rest.
    """
    held: av.Packet | None = None
    try:
        for packet in container.demux(stream):
            if not packet.size:  # a frame that AVI repeats, or PyAV's own mark of the end
                continue
            if held:
                yield from _frames_of(held, damage)
            held = packet if packet.is_corrupt else None
            if not held:
                yield from _frames_of(packet, damage)
    except av.FFmpegError as error:
        log.info("%s ends early: %s", container.name, error)
        damage.cut = True
    damage.cut = damage.cut or held is not None
    yield from _frames_of(None, damage, stream)


def _frames_of(packet: av.Packet | None, damage: Damage, stream: av.VideoStream | None = None) -> list[av.VideoFrame]:
    """The frames that a packet, or the end of the stream, brings out of the decoder."""
    try:
        return packet.decode() if packet is not None else stream.codec_context.decode(None)
    except av.FFmpegError as error:
        log.info("a packet could not be decoded: %s", error)
        damage.packets += 1
        return []


def is_cut(container: av.container.InputContainer, stream: av.VideoStream, path: Path, end_s: float) -> bool:
    """Whether the container says that pictures follow after the file's last byte, or well after `end_s`.

    mp4, mov and avi list where each picture lies, avi also how many there are; Matroska and MXF state how long a
    stream is; a transport stream states nothing.
    """
    if max((entry.pos + entry.size for entry in stream.index_entries), default=0) > path.stat().st_size:
        return True
    if container.format.name == "avi":
        return stream.frames > len(stream.index_entries)
    declared_s = 0.0
    if container.format.name == "mxf" and stream.duration:
        declared_s = float(stream.duration * stream.time_base)
    if clock := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):  # Matroska
        declared_s = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
    return declared_s > end_s + 0.1


def count_bad_packets(path: Path) -> tuple[int, int]:
    """(bad, all) packets of a video by its decoder's strictest judgement, which stops at what it would else conceal.

    Those at the beginning alone where all would take longer than COUNTING_S.
    """
    until = time.monotonic() + COUNTING_S
    with open(path, "rb") as file, open_container(file, path) as container:
        stream = picture_stream(container, path)
        stream.codec_context.options = {**DECODER_OPTIONS, "err_detect": "explode"}
        bad = total = 0
        try:
            for packet in container.demux(stream):
                if time.monotonic() > until:
                    break
                total += packet.size > 0
                try:
                    packet.decode()
                except av.FFmpegError:
                    bad += 1
        except av.FFmpegError as error:
            log.info("%s ends early: %s", path, error)
    return bad, total


def _refuse(url: str, flags: int, options: dict) -> None:
    raise PermissionError(f"a clip may not open another file ({url})")
