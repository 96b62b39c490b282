"""Z85 (ZeroMQ RFC 32): how keys are written as text; four bytes are five characters."""

from __future__ import annotations

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
VALUES = {letter: value for value, letter in enumerate(LETTERS)}


def encode(data: bytes) -> str:
    """Bytes, a multiple of four of them, as text."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are not a multiple of four")
    words = (int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))
    return "".join(LETTERS[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))


def decode(text: str) -> bytes:
    """The bytes that `encode` made the text of. Raises ValueError on any other text."""
    if len(text) % 5 or not VALUES.keys() >= set(text):
        raise ValueError("not text in Z85")
    data = b""
    for at in range(0, len(text), 5):
        word = 0
        for letter in text[at : at + 5]:
            word = word * 85 + VALUES[letter]
        if word >= 2**32:
            raise ValueError("not text in Z85")
        data += word.to_bytes(4, "big")
    return data
