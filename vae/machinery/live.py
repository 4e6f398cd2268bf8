"""A training that is watched in a notebook: one picture in its cell, renewed at each frame."""

import io

import numpy as np
from IPython import display
from PIL import Image, ImageDraw, ImageFont

from .animations import COLOURS
from .figures import tile
from .frames import Frames

TITLES = {"mse": "MSE", "perceptual": "LPIPS", "kl": "KL, nats", "generator": "generator",
          "discriminator": "discriminator"}  # fmt: skip  # of a row of the history
WIDTH, PLANE = 620, 250  # pixels: of the picture, and of the plane of latents on each side
TEXT = ImageFont.load_default(15)


class LiveView:
    """The picture in a notebook's cell. The cell keeps the last one."""

    def __init__(self):
        self.handle = None

    def show(self, frames: Frames, row: dict) -> None:
        """Draw the newest frame and a row of the training's history."""
        draw(frames, row).save(buffer := io.BytesIO(), "png", compress_level=1)
        picture = display.Image(buffer.getvalue(), format="png")
        if self.handle is None:
            self.handle = display.display(picture, display_id=True)
        else:
            self.handle.update(picture)


def draw(frames: Frames, row: dict) -> Image.Image:
    """Ten images above their reconstructions, the latents in the plane, and the losses."""
    both = np.concatenate([frames.originals, frames.reconstructions[-1]])
    rows = tile(both, len(frames.originals))
    rows = Image.fromarray(((rows + 1) * 127.5).round().astype(np.uint8)).convert("RGB")
    high = round(rows.height * WIDTH / rows.width)
    picture = Image.new("RGB", (WIDTH, high + PLANE + 30), "white")
    picture.paste(rows.resize((WIDTH, high), Image.Resampling.BICUBIC))
    picture.paste(Image.fromarray(plane(frames)), (0, high + 30))
    pen = ImageDraw.Draw(picture)
    many = len(frames.latents) > 0
    pen.text(
        (0, high + 8), "latents of test images" + ", two largest components" * many, "black", TEXT
    )
    lines = [f"epoch {frames.epochs[-1]:.2f}", f"PSNR {frames.psnr()[-1]:.1f} dB"]
    lines += [f"{title} {row[name]:.3g}" for name, title in TITLES.items() if name in row]
    pen.multiline_text((PLANE + 30, high + 34), "\n".join(lines), "black", TEXT, spacing=8)
    return picture


def plane(frames: Frames) -> np.ndarray:
    """The newest latents as dots in the colours of their classes, uint8 (PLANE, PLANE, 3).

    Two values are drawn as they are; of more, the two largest principal components.
    """
    points = frames.latents[-1][:, -2:] if len(frames.latents) else frames.points[-1]
    points = points.astype(np.float32)
    centred = points - (points.min(0) + points.max(0)) / 2
    inside = centred / max(np.abs(centred).max(), 1e-6) * (PLANE / 2 - 4) + PLANE / 2
    x, y = inside[:, 0].astype(int), PLANE - 1 - inside[:, 1].astype(int)
    colours = np.array([[*bytes.fromhex(colour[1:])] for colour in COLOURS], np.uint8)
    canvas = np.full((PLANE, PLANE, 3), 245, np.uint8)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            canvas[y + down, x + right] = colours[frames.labels % len(colours)]
    return canvas
