"""Draw the architecture, light and dark: `assets/architecture_light.svg`, `_dark.svg`."""

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
FIRST, STEP = 52, 104  # y of the first row, and between rows


def row(number: float) -> float:
    """The y of the upper edge of a row."""
    return FIRST + number * STEP


def text(x: float, y: float, words: str, colour: str, size: int = 14, extra: str = "") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="middle" {extra}>'
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, fill: str, lines: list[str], theme: dict) -> str:
    """A box: its first line bold, the others small."""
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{TALL}" rx="9" fill="{theme[fill]}" '
        f'stroke="{theme["line"]}"/>'
    ]
    for i, line in enumerate(lines):
        baseline = y + TALL / 2 + 5 + 18 * (i - (len(lines) - 1) / 2)
        bold = 'font-weight="600"' if i == 0 else ""
        colour = theme["ink"] if i == 0 else theme["soft"]
        parts.append(text(x + width / 2, baseline, line, colour, 15 if i == 0 else 13, bold))
    return "".join(parts)


def arrow(points: list[tuple[float, float]], colour: str, marker: str, dashed: bool = False) -> str:
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    dash = 'stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.7" {dash} '
        f'marker-end="url(#{marker})"/>'
    )


def draw(theme: dict) -> str:
    """The whole picture as SVG."""
    down, up = LEFT + SIDE / 2, RIGHT + SIDE / 2
    middle = MIDDLE + CENTRE / 2
    parts = [
        text(down, 32, "Encoder", theme["ink"], 17, 'font-weight="700"'),
        text(up, 32, "Decoder", theme["ink"], 17, 'font-weight="700"'),
        text(middle, 32, "Losses", theme["ink"], 17, 'font-weight="700"'),
        box(LEFT, row(0), SIDE, "latent", ["image x", "1 × 28 × 28, in [−1, 1]"], theme),
        box(LEFT, row(1), SIDE, "model",
            ["DownBlock", "2×2 conv, stride 2; residual block", "32 × 14 × 14"], theme),
        box(LEFT, row(2), SIDE, "model",
            ["DownBlock", "the same, then self-attention", "64 × 7 × 7"], theme),
        box(LEFT, row(3), SIDE, "model",
            ["MidBlock", "residual, self-attention, residual", "64 × 7 × 7"], theme),
        box(LEFT, row(4), SIDE, "model",
            ["posterior q(z|x)", "norm, SiLU, 1×1 conv", "mean, log-variance: C × 7 × 7 each"],
            theme),
        box(MIDDLE, row(5), CENTRE, "latent",
            ["latent z", "mean + std · noise", "C × 7 × 7; C = 2, 4, 16"], theme),
        box(RIGHT, row(4), SIDE, "model",
            ["conv in", "1×1 conv + learned positions", "64 × 7 × 7"], theme),
        box(RIGHT, row(3), SIDE, "model",
            ["MidBlock", "residual, self-attention, residual", "64 × 7 × 7"], theme),
        box(RIGHT, row(2), SIDE, "model",
            ["UpBlock", "residual, cross-attention, up", "32 × 14 × 14"], theme),
        box(RIGHT, row(1), SIDE, "model",
            ["UpBlock", "residual, cross-attention, up", "16 × 28 × 28"], theme),
        box(RIGHT, row(0), SIDE, "latent",
            ["reconstruction y", "norm, SiLU, 3×3 conv, tanh", "1 × 28 × 28, in [−1, 1]"], theme),
        box(MIDDLE, row(0), CENTRE, "loss",
            ["distortion", "MSE + w · LPIPS:", "VGG16, five stages"], theme),
        box(MIDDLE, row(1), CENTRE, "loss",
            ["PatchGAN", "real or fake? 7 × 7 logits", "of 18 × 18 pixels each"], theme),
        box(MIDDLE, row(4) , CENTRE, "loss",
            ["rate", "KL(q(z|x) ‖ N(0, I))"], theme),
    ]  # fmt: skip
    line = theme["line"]
    for i in range(4):
        parts.append(arrow([(down, row(i) + TALL), (down, row(i + 1) - 3)], line, "end"))
        parts.append(arrow([(up, row(i + 1)), (up, row(i) + TALL + 3)], line, "end"))
    low = row(5) + TALL / 2
    parts += [
        arrow([(down, row(4) + TALL), (down, low), (MIDDLE - 3, low)], line, "end"),
        arrow([(MIDDLE + CENTRE, low), (up, low), (up, row(4) + TALL + 3)], line, "end"),
    ]
    # what the losses look at, dashed
    half = TALL / 2
    left, right = LEFT + SIDE, MIDDLE + CENTRE
    parts += [
        arrow([(left, row(0) + half), (MIDDLE - 3, row(0) + half)], line, "end", True),
        arrow([(RIGHT, row(0) + half), (right + 3, row(0) + half)], line, "end", True),
        arrow([(left, row(0) + 58), (left + 20, row(0) + 58), (left + 20, row(1) + half),
               (MIDDLE - 3, row(1) + half)], line, "end", True),
        arrow([(RIGHT, row(0) + 58), (right + 18, row(0) + 58), (right + 18, row(1) + half),
               (right + 3, row(1) + half)], line, "end", True),
        arrow([(left, row(4) + half), (MIDDLE - 3, row(4) + half)], line, "end", True),
    ]  # fmt: skip
    # cross-attention: the latent's tokens go up beside the decoder
    bus, edge = WIDTH - 22, RIGHT + SIDE
    colour = theme["attention"]
    for target in (1, 2):
        parts.append(arrow([(edge, row(4) + half), (bus, row(4) + half), (bus, row(target) + half),
                            (edge + 3, row(target) + half)], colour, "token"))  # fmt: skip
    parts += [
        text(bus + 14, row(3) + half, "cross-attention: the latent's 49 tokens", colour, 13,
             f'transform="rotate(-90 {bus + 14} {row(3) + half})"'),
        text(middle, row(2) + 22, "loss = D/2 · log(2π · distortion)", theme["ink"], 12),
        text(middle, row(2) + 42, "+ β · rate + λ · adversarial", theme["ink"], 12),
        text(middle, row(2) + 68, "nothing but z joins", theme["soft"], 12),
        text(middle, row(2) + 84, "encoder and decoder", theme["soft"], 12),
        text(up, row(5) + half + 28, "conditional: and the label's token", colour, 12),
    ]  # fmt: skip
    markers = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{fill}"/></marker>'
        for name, fill in (("end", line), ("token", colour))
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
