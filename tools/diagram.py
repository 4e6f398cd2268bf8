"""Draw the architecture, light and dark: `assets/architecture_light.svg`, `_dark.svg`."""

import itertools
from pathlib import Path
from xml.sax.saxutils import escape

ASSETS = Path(__file__).parent.parent / "assets"
WIDTH, HEIGHT = 808, 670
THEMES = {
    "light": {"ink": "#1f2328", "soft": "#59636e", "line": "#818b98", "paper": "#ffffff",
              "model": "#ddf4ff", "latent": "#fff1c7", "loss": "#fbe3ea", "attention": "#8250df"},
    "dark": {"ink": "#f0f6fc", "soft": "#a5aeb8", "line": "#7d8590", "paper": "#0d1117",
             "model": "#10304f", "latent": "#453510", "loss": "#4a1f30", "attention": "#bc8cff"},
}  # fmt: skip
LEFT, MIDDLE, RIGHT = 20, 298, 524  # x of the three columns
SIDE, CENTRE, TALL = 236, 190, 74  # widths of the outer and of the middle boxes, height
COLUMNS = {"left": (LEFT, SIDE), "middle": (MIDDLE, CENTRE), "right": (RIGHT, SIDE)}
ROWS = [52 + 104 * number for number in range(6)]  # y of their upper edges
FEET, HALVES = [y + TALL for y in ROWS], [y + TALL / 2 for y in ROWS]
DOWN, BETWEEN, UP = LEFT + SIDE / 2, MIDDLE + CENTRE / 2, RIGHT + SIDE / 2  # x of the centres
SOURCE, IN, OUT = LEFT + SIDE, MIDDLE - 3, MIDDLE + CENTRE  # x where arrows begin and end
BUS, EDGE = WIDTH - 22, RIGHT + SIDE  # x of the latent's way up, and of the decoder's right edge

BOXES = """
left 0 latent | image x | 1 × 28 × 28, in [−1, 1]
left 1 model | DownBlock | 2×2 conv, stride 2; residual block | 32 × 14 × 14
left 2 model | DownBlock | the same, then self-attention | 64 × 7 × 7
left 3 model | MidBlock | residual, self-attention, residual | 64 × 7 × 7
left 4 model | posterior q(z|x) | norm, SiLU, 1×1 conv | mean, log-variance: C × 7 × 7 each
middle 5 latent | latent z | mean + std · noise | C × 7 × 7; C = 2, 4, 16
right 4 model | conv in | 1×1 conv + learned positions | 64 × 7 × 7
right 3 model | MidBlock | residual, self-attention, residual | 64 × 7 × 7
right 2 model | UpBlock | residual, cross-attention, up | 32 × 14 × 14
right 1 model | UpBlock | residual, cross-attention, up | 16 × 28 × 28
right 0 latent | reconstruction y | norm, SiLU, 3×3 conv, tanh | 1 × 28 × 28, in [−1, 1]
middle 0 loss | distortion | MSE + w · LPIPS: | VGG16, five stages
middle 1 loss | PatchGAN | real or fake? 7 × 7 logits | of 18 × 18 pixels each
middle 4 loss | rate | KL(q(z|x) ‖ N(0, I))
"""
DATA = []  # the way of the data: down, through the latent, up
for upper, lower in itertools.pairwise(range(5)):
    DATA.append([(DOWN, FEET[upper]), (DOWN, ROWS[lower] - 3)])
    DATA.append([(UP, ROWS[lower]), (UP, FEET[upper] + 3)])
DATA.append([(DOWN, FEET[4]), (DOWN, HALVES[5]), (IN, HALVES[5])])
DATA.append([(OUT, HALVES[5]), (UP, HALVES[5]), (UP, FEET[4] + 3)])
BEND = ROWS[0] + 58
SEEN = [  # what the losses look at
    [(SOURCE, HALVES[0]), (IN, HALVES[0])],
    [(RIGHT, HALVES[0]), (OUT + 3, HALVES[0])],
    [(SOURCE, BEND), (SOURCE + 20, BEND), (SOURCE + 20, HALVES[1]), (IN, HALVES[1])],
    [(RIGHT, BEND), (OUT + 18, BEND), (OUT + 18, HALVES[1]), (OUT + 3, HALVES[1])],
    [(SOURCE, HALVES[4]), (IN, HALVES[4])],
]
TOKENS = [  # the latent's go up beside the decoder
    [(EDGE, HALVES[4]), (BUS, HALVES[4]), (BUS, HALVES[block]), (EDGE + 3, HALVES[block])]
    for block in (1, 2)
]
BOLD, UPWARDS = 'font-weight="700"', f'transform="rotate(-90 {BUS + 14} {HALVES[3]})"'
HEADINGS = {"Encoder": DOWN, "Decoder": UP, "Losses": BETWEEN}
LOSS = {  # y below the third row's edge: line, colour
    22: ("loss = D/2 · log(2π · distortion)", "ink"),
    42: ("+ β · rate + λ · adversarial", "ink"),
    68: ("nothing but z joins", "soft"),
    84: ("encoder and decoder", "soft"),
}


def text(x: float, y: float, words: str, colour: str, size: int, extra: str = "") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="middle" {extra}>'
        f"{escape(words)}</text>"
    )


def box(entry: str, theme: dict) -> str:
    """A box of BOXES: its first line bold, the others small."""
    place, *lines = entry.split(" | ")
    column, number, fill = place.split()
    (x, width), y = COLUMNS[column], ROWS[int(number)]
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{TALL}" rx="9" fill="{theme[fill]}" '
        f'stroke="{theme["line"]}"/>'
    ]
    for i, words in enumerate(lines):
        baseline = y + TALL / 2 + 5 + 18 * (i - (len(lines) - 1) / 2)
        style = (theme["soft"], 13) if i else (theme["ink"], 15, 'font-weight="600"')
        parts.append(text(x + width / 2, baseline, words, *style))
    return "".join(parts)


def arrow(points: list[tuple[float, float]], colour: str, marker: str, dash: str = "") -> str:
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.7" {dash} '
        f'marker-end="url(#{marker})"/>'
    )


def draw(theme: dict) -> str:
    """The whole picture as SVG."""
    ink, line, attention = (theme[name] for name in ("ink", "line", "attention"))
    parts = [text(x, 32, words, ink, 17, BOLD) for words, x in HEADINGS.items()]
    parts += [box(entry, theme) for entry in BOXES.strip().splitlines()]
    parts += [arrow(way, line, "end") for way in DATA]
    parts += [arrow(way, line, "end", 'stroke-dasharray="5 4"') for way in SEEN]
    parts += [arrow(way, attention, "token") for way in TOKENS]
    note = "cross-attention: the latent's 49 tokens"
    parts.append(text(BUS + 14, HALVES[3], note, attention, 13, UPWARDS))
    parts += [text(BETWEEN, ROWS[2] + y, words, theme[c], 12) for y, (words, c) in LOSS.items()]
    parts.append(text(UP, HALVES[5] + 28, "conditional: and the label's token", attention, 12))
    markers = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{fill}"/></marker>'
        for name, fill in (("end", line), ("token", attention))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        "<title>Encoder, latent, decoder, and what the losses look at</title>"
        f"<defs>{markers}</defs>"
        f'<rect width="100%" height="100%" fill="{theme["paper"]}"/>' + "".join(parts) + "</svg>\n"
    )


if __name__ == "__main__":
    for name, theme in THEMES.items():
        (ASSETS / f"architecture_{name}.svg").write_text(draw(theme))
