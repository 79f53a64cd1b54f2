"""Fixed colours for labels, of which colour-blind readers can distinguish the first twelve, and for instances."""

from __future__ import annotations

from colorsys import hsv_to_rgb

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008), without black, then Paul Tol's "muted" scheme (2021); RGB.
PALETTE: tuple[Colour, ...] = (
    (213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167), (0, 114, 178), (230, 159, 0),
    (136, 34, 85), (68, 170, 153), (51, 34, 136), (153, 153, 51), (170, 68, 153),
)  # fmt: skip


def colour_of(label: int) -> Colour:
    """RGB of a label (1..K). After twelve labels the colours repeat, each time a third darker."""
    round_number, index = divmod(max(label, 1) - 1, len(PALETTE))
    red, green, blue = (round(value * 0.67 ** (round_number % 3)) for value in PALETTE[index])
    return red, green, blue


def instance_colour(index: int) -> Colour:
    """RGB of instance ``index`` (from 0) where there is one class: a hue far from those before it.

    The hues are multiples of the golden ratio on the colour circle; three levels of brightness separate similar ones.
    """
    hue = (0.075 + index * 0.6180339887) % 1
    saturation, value = ((0.95, 0.95), (0.75, 0.65), (0.6, 1.0))[index % 3]
    red, green, blue = (round(255 * channel) for channel in hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more with ``colour`` (relative luminance of WCAG 2, threshold 0.179)."""
    channels = [(value / 255) ** 2.2 for value in colour]
    luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
