"""Image files as arrays, and arrays as image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyconv.cli.output import CommandError, UsageError, require

AnyArray = np.ndarray[Any, Any]

RESCALE = ("auto", "clip", "minmax", "signed")
"""How values outside [0, 1] become pixels, see `rescaled`."""


@dataclass(frozen=True)
class Image:
    """An image file's content.

    Attributes
    ----------
    pixels : ndarray, shape (C, H, W)
        One channel (grey) or three (red, green, blue), float64 in [0, 1].
    alpha : ndarray, shape (H, W), or None
        Opacity in [0, 1], where the file has it.
    deep : bool
        Whether the file has 16 bits a channel.
    """

    pixels: AnyArray
    alpha: AnyArray | None
    deep: bool


def read_image(path: Path) -> Image:
    """Read an image file: grey or colour, 8 or 16 bits, with or without alpha.

    Pillow reads 16 bits from grey images only; it reduces 16-bit colour to 8 bits.
    """
    pillow = require("PIL.Image", "cli", "reading images")
    try:
        with pillow.open(path) as picture:
            picture.load()
            return _from_picture(picture)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise CommandError(f"{path}: not an image that Pillow can read ({error})") from error


def _from_picture(picture: Any) -> Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        # Pillow opens a 16-bit PNG as "I;16", older releases as "I".
        top = 1.0 if picture.mode == "F" else 65535.0
        return Image(values[None] / top, None, picture.mode != "F")
    grey = picture.mode in ("1", "L", "LA", "La")
    opaque = "A" not in picture.mode and "a" not in picture.mode
    opaque = opaque and "transparency" not in picture.info
    mode = ("L" if grey else "RGB") if opaque else ("LA" if grey else "RGBA")
    values = np.atleast_3d(np.asarray(picture.convert(mode), np.float64) / 255).transpose(2, 0, 1)
    if opaque:
        return Image(values, None, False)
    return Image(values[:-1], values[-1], False)


def rescaled(y: AnyArray, how: str) -> tuple[AnyArray, str]:
    """Bring a result into [0, 1].

    Parameters
    ----------
    y : ndarray
        Values of any range.
    how : {"auto", "clip", "minmax", "signed"}
        ``clip`` cuts off what is below 0 or above 1. ``minmax`` makes the smallest value 0 and
        the largest 1. ``signed`` makes 0 middle grey and the largest magnitudes 0 or 1, leaving
        out the top half per cent, which would make a picture of few strong edges grey. ``auto``
        is ``signed`` for a result such as that of an edge filter, where a quarter of the energy
        (the sum of squares) or more is in negative values, and otherwise ``clip``.

    Returns
    -------
    values : ndarray of float64
        The values, in [0, 1]; computed as if NaN and infinite ones were 0.
    how : str
        What ``auto`` has chosen, or `how` itself.
    """
    y = np.asarray(y, np.float64)
    y = np.where(np.isfinite(y), y, 0)
    if how == "auto":
        energy = float(np.square(y).sum())
        negative = float(np.square(np.minimum(y, 0)).sum())
        how = "signed" if energy and negative >= energy / 4 else "clip"
    if how == "minmax" and y.size:
        low, high = y.min(), y.max()
        y = (y - low) / ((high - low) or 1)
    elif how == "signed" and y.size:
        magnitude = np.abs(y)
        top = float(np.quantile(magnitude, 0.995) or magnitude.max())
        y = y / (2 * top or 1) + 0.5
    return np.clip(y, 0, 1), how


def write_image(path: Path, values: AnyArray, alpha: AnyArray | None, deep: bool) -> None:
    """Write an array in [0, 1] of shape (1, H, W) or (3, H, W) as an image file.

    Alpha is resized to the result's height and width. It is left out where the format has none
    (JPEG). 16 bits are kept for grey PNG and TIFF without alpha.
    """
    pillow = require("PIL.Image", "cli", "writing images")
    kind = path.suffix.lower()
    if kind not in pillow.registered_extensions():
        raise UsageError(f"{path}: no image format is called {kind or 'that'!r}; try .png or .npy")
    if deep and alpha is None and len(values) == 1 and kind in (".png", ".tif", ".tiff"):
        picture = pillow.fromarray(np.rint(values[0] * 65535).astype(np.uint16))
    else:
        levels = np.rint(values * 255).astype(np.uint8).transpose(1, 2, 0)
        picture = pillow.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
        if alpha is not None and kind not in (".jpg", ".jpeg", ".bmp"):
            mask = pillow.fromarray(np.rint(alpha * 255).astype(np.uint8))
            picture.putalpha(mask.resize(picture.size, pillow.Resampling.BILINEAR))
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: cannot be written ({error})") from error
