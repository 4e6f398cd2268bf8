"""What the notebooks display: tables, source code, pictures. Needs IPython, as a notebook has."""

import html
import inspect
import io
import textwrap
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import torch
from IPython.display import Image, Markdown
from matplotlib.figure import Figure
from torch import nn

from .data import PIXELS
from .judge import judge_images
from .model import VAE, VAEConfig
from .prior import LatentPrior
from .show.figures import describe, plot_digits, plot_manifold, plot_samples
from .show.run import Run
from .show.showcase import NO_ASSETS, REFERENCE, SHIPPED, asset
from .training.config import BUDGETS, TrainConfig


class Table:
    """Rows of text, shown as HTML in a notebook and aligned in a terminal."""

    def __init__(self, header: tuple[str, ...], rows: list[tuple], caption: str = ""):
        self.header, self.caption = header, caption
        self.rows = [tuple(map(str, row)) for row in rows]

    def _repr_html_(self) -> str:
        lines = ((tag, row) for tag, row in [("th", self.header), *(("td", r) for r in self.rows)])
        cells = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in lines
        )
        body = "".join(f"<tr>{line}</tr>\n" for line in cells)
        return f"<table>\n{body}</table>\n<p>{html.escape(self.caption)}</p>"

    def __repr__(self) -> str:
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.header, *self.rows)
        )
        return "\n".join([*lines, *([self.caption] if self.caption else [])])


def show(picture: Figure | Path) -> Image:
    """A figure, or a PNG or GIF file, as a cell's output."""
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        picture.savefig(buffer, format="png")
        data = buffer.getvalue()
    else:
        data = Path(picture).read_bytes()
    # GIFs too are labelled PNG: GitHub shows no other label, and browsers go by the content.
    return Image(data, format="png")


def show_source(function: Callable) -> Markdown:
    """The source code of a function of the package, highlighted."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function))}```")


def show_plan(config: TrainConfig, pretrained: bool = False) -> Table:
    """What is about to be trained, on what, and why that long; or that a model is loaded."""
    images = f"{config.max_train_images:,}" if config.max_train_images else "all"
    how = "a GPU" if torch.accelerator.is_available() else "the CPU"
    quick = all(getattr(config, name) == value for name, value in BUDGETS["quick"].items())
    if how == "the CPU" and quick:
        how += ": the quick budget, since there is no GPU"
    epochs = "1 pass" if config.epochs == 1 else f"{config.epochs} passes"
    rows = [
        ("model", describe(config.model, config.dataset)),
        ("numbers for an image", f"{config.model.latent_values} (it has {PIXELS} pixels)"),
    ]
    if pretrained:
        rows += [("training", "none: the repository's model, with its own beta and seed")]
    else:
        rows += [
            ("weight of the KL", f"beta = {config.beta:g}"),
            ("training", f"{epochs} over {images} training images, on {how}"),
        ]
    return Table(("setting", "here"), rows)


def show_parts(model: VAE) -> Table:
    """Every block of the model: what comes out of it for one image, and its parameters."""
    rows = []

    def record(name: str, part: nn.Module):
        def hook(_, inputs, output):
            shape = " × ".join(map(str, output.shape[1:]))
            rows.append((name, type(part).__name__, shape, f"{_parameters(part):,}"))

        return part.register_forward_hook(hook)

    hooks = []
    for side in ("encoder", "decoder"):
        for name, part in getattr(model, side).named_children():
            parts = part.named_children() if isinstance(part, nn.ModuleList) else [("", part)]
            hooks += [record(f"{side}.{name}" + (f"[{i}]" if i else ""), p) for i, p in parts]
    try:
        device = model.decoder.position.device
        labels = torch.zeros(1, dtype=torch.int64, device=device)
        with torch.no_grad():
            model(
                torch.zeros(1, 1, 28, 28, device=device),
                labels if model.config.num_classes else None,
            )
    finally:
        for hook in hooks:
            hook.remove()
    if model.couplings:
        count, values = len(model.couplings), model.config.latent_values
        size = f"{_parameters(model.couplings):,}"
        rows.append(("couplings", f"{count} × Coupling", f"{values}", size))
    caption = f"{_parameters(model):,} parameters in all"
    return Table(("part", "kind", "output for an image", "parameters"), rows, caption)


def show_latent_sizes(sizes: tuple[int, ...] = (2, 4, 16)) -> Table:
    """How many numbers a latent has, for each size and grid."""
    rows = []
    for grid in (1, 7):
        for size in sizes:
            config = VAEConfig(size, grid)
            values = config.latent_values
            shape = " × ".join(map(str, config.latent_shape))
            rows.append((size, f"{grid} × {grid}", shape, values, f"{values / PIXELS:.1%}"))
    return Table(("LATENT_SIZE", "LATENT_GRID", "shape", "numbers", "of the pixels' 784"), rows)


def show_results(run: Run) -> Table:
    """The run's metrics on its test set, beside the reference's where there is one.

    Raises `ValueError` for a run that was cut off.
    """
    if "test" not in run.metrics:
        raise ValueError(f"{run.directory} is not finished: run the training cell again to go on")
    test, config = run.metrics["test"], run.model.config
    rows = []
    for kind, name in (("sample", "z ~ q(z|x)"), ("mean", "the mean of q(z|x)")):
        m = test[kind]
        row = (name, f"{m['mse']:.5f}", f"{m['ssim']:.4f}", f"{m['psnr']:.2f}")
        rate = f"{test['kl']:.0f}" if "kl" in test else "unbounded"
        elbo = f"{test['neg_elbo']:.0f}" if "kl" in test else ""
        rows.append((*row, rate, elbo) if kind == "sample" else (*row, "", ""))  # a point: no rate
    dataset = run.metrics["config"]["dataset"]
    if dataset == "mnist" and config.latent_grid == 7 and config.latent_size in REFERENCE:
        mse, ssim, psnr = REFERENCE[config.latent_size]
        rows.append(("the reference", f"{mse:.4f}", f"{ssim:.4f}", f"{psnr:.2f}", "unbounded", ""))
    caption = (
        f"{describe(config, dataset)}: {test['latent_values']} numbers for an image; "
        f"{test['images']:,} test images in [-1, 1]"
    )
    header = ("reconstruction from", "MSE", "SSIM", "PSNR, dB", "KL, nats", "−ELBO, nats")
    return Table(header, rows, caption)


def summarize(run: Run) -> str:
    """One sentence about a run's training."""
    if "interrupted" in run.metrics:
        return f"Stopped at step {run.metrics['interrupted']:,}. Run this cell again to go on."
    last, environment = run.metrics["history"]["train"][-1], run.metrics["environment"]
    minutes = run.metrics["seconds"]["training"] / 60
    return (
        f"Trained for {last['step']:,} steps of {run.metrics['config']['batch_size']} images, "
        f"{minutes:.1f} minutes on {environment['hardware']}."
    )


def show_scores(model: VAE, dataset: str, prior: LatentPrior | None = None, n: int = 100) -> Table:
    """What the judge makes of `n` draws from N(0, I), and as many from a learned prior."""
    if dataset != "mnist":
        return Table(("the judge",), [("knows the digits of MNIST alone",)])
    labels = torch.arange(n) % 10
    rows = []
    for source, drawn_by in [("N(0, I)", None)] + ([("the learned prior", prior)] if prior else []):
        asked = labels if drawn_by or model.config.num_classes else None
        images = model.sample(n, asked, torch.Generator().manual_seed(0), drawn_by)
        scores = judge_images(images, asked, reference=images)
        read = f"{scores['accuracy']:.0%}" if "accuracy" in scores else ""
        rows.append((source, f"{scores['recognised']:.0%}", read))
    header = ("draws from", "recognised (> 0.9)", "read as the digit asked for")
    return Table(header, rows, f"{n} draws of each; the README has 10,000, and their digit-FID")


def latent_sliders(model: VAE | None):
    """A slider for each number of a global latent, and the digit that they decode to.

    Needs ipywidgets, as Colab and Jupyter have it. A conditional model has one for the class too.
    """
    if model is None:
        return Markdown(NO_ASSETS)
    import ipywidgets  # not needed to read a notebook, nor elsewhere

    def slider(name: str, kind=ipywidgets.FloatSlider, low=-3, high=3, step=0.1):
        layout = ipywidgets.Layout(width="260px")
        style = {"description_width": "3em"}
        return kind(0, min=low, max=high, step=step, description=name, layout=layout, style=style)

    values = [slider(f"z{i + 1}") for i in range(model.config.latent_values)]
    classes = model.config.num_classes
    digit = [slider("digit", ipywidgets.IntSlider, 0, classes - 1, 1)] if classes else []
    picture = ipywidgets.Image(format="png", width=224, height=224)
    device = model.decoder.position.device

    @torch.no_grad()
    def redraw(_=None) -> None:
        z = torch.tensor([one.value for one in values], dtype=torch.float32, device=device)
        label = torch.tensor([digit[0].value], device=device) if digit else None
        image = model.decode(z.view(1, *model.config.latent_shape), label)[0, 0].cpu()
        grey = ((image + 1) * 127.5).round().byte().numpy()
        buffer = io.BytesIO()
        PIL.Image.fromarray(grey).resize((224, 224), PIL.Image.Resampling.BICUBIC).save(
            buffer, "png"
        )
        picture.value = buffer.getvalue()

    for one in values + digit:
        one.observe(redraw, "value")
    redraw()
    half = -(-len(values) // 2) if len(values) > 8 else len(values)
    columns = [ipywidgets.VBox(part) for part in (values[:half] + digit, values[half:]) if part]
    return ipywidgets.HBox([picture, *columns])


def load_pretrained(config: TrainConfig) -> Run:
    """The shipped run of a model.

    Raises `ValueError` for a model that is not shipped and when `assets/` is not found.
    """
    model, names = config.model, {shipped: name for name, shipped in SHIPPED.items()}
    if config.dataset != "mnist" or model not in names:
        raise ValueError(
            f"USE_PRETRAINED=True is not allowed for {describe(model, config.dataset)}"
            f"{', conditional' if model.num_classes else ''}: LATENT_SIZE in {tuple(REFERENCE)}, "
            "DATASET='mnist' and CONDITIONAL=False are, and so is CONDITIONAL=True with "
            "LATENT_SIZE=16 and LATENT_GRID=1"
        )
    folder = asset(names[model])
    if folder is None:
        raise ValueError(
            f"USE_PRETRAINED=True needs assets/{names[model]} of the repository, here, one folder "
            "up, or in vae-mnist/: clone the repository, or set USE_PRETRAINED=False to train"
        )
    return Run.load(folder)


def global_model(run: Run) -> VAE | None:
    """A model with a latent of 1x1: the run's own, or the shipped one of its size, or of size 2.

    None where the repository's `assets/` is not found.
    """
    size = run.model.config.latent_size
    if run.model.config.latent_grid == 1:
        return run.model
    folder = asset(f"global_{size if size in REFERENCE else 2}")
    return VAE.from_pretrained(folder) if folder else None


def show_one_vector(model: VAE | None) -> Image | Markdown:
    """The plane of a global latent of two numbers, or draws from N(0, I) of a larger one."""
    if model is None:
        return Markdown(NO_ASSETS)
    name = f"latent size {model.config.latent_size} on 1×1"
    if model.config.latent_values == 2 and not model.config.num_classes:
        return show(plot_manifold(model, name))
    return show(plot_samples(model, name))


def show_digits(model: VAE, name: str, prior: LatentPrior | None) -> Image | Markdown:
    """A row for each digit that is asked for, of a learned prior or of a conditional model."""
    if prior is None and not model.config.num_classes:
        return Markdown("Digits can be asked for with `CONDITIONAL = True` or `LATENT_GRID = 7`.")
    return show(plot_digits(model, name, prior))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
