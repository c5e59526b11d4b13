"""Draws cartoons of ten ImageNet classes, which a small network can learn to classify.

Colours, size, position and noise are random. The classes differ in shape and texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw


def draw(wnid: str, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Draws an RGB image of the class, ``width`` x ``height`` pixels."""
    top, bottom = _colour(rng, 90, 230), _colour(rng, 40, 180)
    ramp = np.linspace(0, 1, height)[:, None, None]
    background = np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp
    image = Image.fromarray(np.broadcast_to(background, (height, width, 3)).astype(np.uint8))
    side = min(width, height) * rng.uniform(0.28, 0.45)
    x = rng.uniform(side, width - side) if width > 2 * side else width / 2
    y = rng.uniform(side, height - side) if height > 2 * side else height / 2
    CLASSES[wnid](ImageDraw.Draw(image), x, y, side, rng)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor=top)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))), np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, rng.uniform(2, 14), pixels.shape), 0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator, low: int = 0, high: int = 255) -> Colour:
    r, g, b = (int(v) for v in rng.integers(low, high, 3))
    return r, g, b


def _near(colour: Colour, rng: np.random.Generator) -> Colour:
    r, g, b = (int(min(255, max(0, v + rng.integers(-35, 35)))) for v in colour)
    return r, g, b


def _disc(pen: Pen, x: float, y: float, r: float, fill: Colour, outline: Colour | None = None) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=3)


def _zebra(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    step = s / rng.uniform(4, 6)
    for i in range(-8, 9):
        shade = (20, 20, 20) if i % 2 else (240, 240, 240)
        left = x + i * step
        pen.polygon(
            [(left, y - s), (left + step, y - s), (left + 1.6 * step, y + s), (left + 0.6 * step, y + s)], shade
        )


def _orange(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    _disc(pen, x, y, s, _near((245, 140, 20), rng))
    _disc(pen, x - s / 3, y - s / 3, s / 5, (255, 220, 150))
    pen.ellipse((x, y - 1.25 * s, x + s / 2, y - 0.9 * s), fill=_near((40, 130, 40), rng))


def _traffic_light(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    pen.rectangle((x - s / 2.4, y - s, x + s / 2.4, y + s), fill=_near((40, 40, 40), rng))
    lit = int(rng.integers(3))
    for i, colour in enumerate(((230, 30, 30), (240, 200, 30), (40, 210, 70))):
        dimmed = (colour[0] // 3, colour[1] // 3, colour[2] // 3)
        _disc(pen, x, y + (i - 1) * 0.62 * s, s / 4, colour if i == lit else dimmed)


def _wall_clock(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    _disc(pen, x, y, s, (250, 250, 245), _colour(rng, 0, 120))
    for hour in range(12):
        a = hour * math.pi / 6
        tick = [(x + r * s * math.cos(a), y + r * s * math.sin(a)) for r in (0.8, 0.95)]
        pen.line(tick, fill=(0, 0, 0), width=3)
    for length in (0.5, 0.75):
        a = rng.uniform(0, 2 * math.pi)
        pen.line([(x, y), (x + length * s * math.cos(a), y + length * s * math.sin(a))], fill=(0, 0, 0), width=4)


def _fence(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    wire, step = _near((120, 125, 130), rng), s / rng.uniform(2.2, 3.2)
    for i in range(-12, 13):
        for slant in (-3 * s, 3 * s):
            pen.line([(x + i * step - slant, y - 3 * s), (x + i * step + slant, y + 3 * s)], fill=wire, width=3)


def _volcano(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    pen.polygon(
        [(x - 1.3 * s, y + s), (x - s / 4, y - s / 2), (x + s / 4, y - s / 2), (x + 1.3 * s, y + s)],
        fill=_near((90, 70, 60), rng),
    )
    lava = _near((240, 80, 20), rng)
    pen.polygon([(x - s / 4, y - s / 2), (x + s / 4, y - s / 2), (x + s / 8, y + s / 3), (x - s / 6, y)], fill=lava)
    for _ in range(6):
        _disc(pen, x + rng.normal(0, s / 4), y - s * rng.uniform(0.6, 1.2), s / 7, (120, 115, 115))


def _jigsaw(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    piece = s / 1.6
    for row in range(-1, 2):
        for column in range(-1, 2):
            cx, cy, fill = x + column * piece, y + row * piece, _colour(rng)
            pen.rectangle(
                (cx - piece / 2, cy - piece / 2, cx + piece / 2, cy + piece / 2), fill=fill, outline=(0, 0, 0)
            )
            _disc(pen, cx + piece / 2, cy, piece / 6, fill, (0, 0, 0))


def _street_sign(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    pen.line([(x, y - s / 2), (x, y + 1.5 * s)], fill=(90, 90, 90), width=max(4, int(s / 8)))
    pen.rectangle((x - s, y - s, x + s, y - s / 4), fill=_near((20, 120, 70), rng), outline=(255, 255, 255), width=3)
    pen.line([(x - 0.7 * s, y - 0.62 * s), (x + 0.7 * s, y - 0.62 * s)], fill=(255, 255, 255), width=max(3, int(s / 9)))


def _bee(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        pen.ellipse(
            (x - s / 3, y + side * 0.55 * s - s / 2, x + s / 3, y + side * 0.55 * s + s / 2), fill=(225, 235, 245)
        )
    pen.ellipse((x - s, y - s / 2.2, x + s, y + s / 2.2), fill=_near((240, 200, 40), rng))
    for i in range(-1, 3):
        pen.rectangle((x + i * s / 2.6 - s / 9, y - s / 2.7, x + i * s / 2.6 + s / 9, y + s / 2.7), fill=(25, 20, 20))
    _disc(pen, x - s, y, s / 4, (25, 20, 20))


def _tile_roof(pen: Pen, x: float, y: float, s: float, rng: np.random.Generator) -> None:
    clay, tile = _near((175, 85, 60), rng), s / rng.uniform(2.5, 3.5)
    for row in range(8):
        for column in range(-6, 7):
            cx, cy = x + (column + row % 2 / 2) * tile, y - s + row * tile / 1.6
            pen.pieslice(
                (cx - tile / 2, cy - tile / 2, cx + tile / 2, cy + tile / 2), 0, 180, _near(clay, rng), (60, 25, 15)
            )


CLASSES: dict[str, Callable[[Pen, float, float, float, np.random.Generator], None]] = {
    "n02206856": _bee,
    "n02391049": _zebra,
    "n03000134": _fence,  # chainlink fence
    "n03598930": _jigsaw,
    "n04435653": _tile_roof,
    "n04548280": _wall_clock,
    "n06794110": _street_sign,
    "n06874185": _traffic_light,
    "n07747607": _orange,
    "n09472597": _volcano,
}
