"""What the notebooks display: tables, source code, pictures. Needs IPython, as a notebook has."""

import importlib.util
import inspect
import io
import math
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import PIL.Image
import torch
from IPython.display import Image, Markdown
from matplotlib.figure import Figure
from torch import Tensor, nn

from vae.data import BATCH, batches, load_digits, scale_images
from vae.judge import judge_images
from vae.metrics import grey_share
from vae.model import VAE, VAEConfig
from vae.prior import LatentPrior
from vae.training.config import BUDGETS, TrainConfig, with_budget

from .figures import plot_digits, plot_manifold, plot_samples, to_png
from .names import describe
from .run import Run
from .showcase import NO_ASSETS, REFERENCE, SHARPENED, SHIPPED, asset

NEEDED = "torchvision skimage sklearn imageio accelerate safetensors stlpips_pytorch"


def set_up(repository: str = "", branch: str = "", torch_before: str = "") -> None:
    """Say where the code is from, what became of torch, and how long a training takes here.

    `torch_before`: its version before the package was installed, if that was done just now. Raises
    `ModuleNotFoundError`, naming what is missing.
    """
    if missing := [name for name in NEEDED.split() if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(f"missing here: {', '.join(missing)} (see requirements.txt)")
    from vae.training.vae import training_minutes  # accelerate, which may be what is missing

    place = f"github.com/{repository}, branch {branch}" if repository else "the code beside it"
    there = version("torch")
    state = f"torch {there} as it was"
    if torch_before not in ("", there):
        state = f"torch {there} in place of {torch_before}: restart the session"
    config = with_budget(TrainConfig(), os.environ.get("VAE_BUDGET", "auto"))
    minutes, hardware = training_minutes(config)
    about = "a minute" if minutes < 1.5 else f"{minutes:.0f} minutes"
    print(f"{place}; {state}; {hardware}: the training takes about {about}.")


def table(header: tuple, rows: list[tuple], caption: str = "") -> Markdown:
    """A Markdown table, as notebooks show it, above a caption."""
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption}")


def show(picture: Figure | Path) -> Image | Markdown:
    """A figure, or a PNG or GIF file, as a cell's output."""
    if isinstance(picture, Figure):
        return Image(to_png(picture), format="png")
    if not Path(picture).is_file():
        return Markdown(f"`{picture}` is not there: a warning of the training may say why.")
    # a GIF too is labelled PNG, which is all that GitHub shows
    return Image(Path(picture).read_bytes(), format="png")


def show_source(function: Callable) -> Markdown:
    """The source code of a function of the package, highlighted."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function))}```")


def show_plan(config: TrainConfig, pretrained: bool = False) -> Markdown:
    """What is about to be trained, on what, and why that long; or that a model is loaded."""
    channels, size, _ = config.model.image_shape
    pixels = f"{size**2:,} pixels{' of three colours' if channels == 3 else ''}"
    values = f"{config.model.latent_values:,} (it has {pixels})"
    rows = [("model", describe(config.model, config.dataset)), ("numbers for an image", values)]
    if pretrained:
        rows += [("training", "none: the repository's model, with its own beta and seed")]
        return table(("setting", "here"), rows)
    images = f"{config.max_train_images:,}" if config.max_train_images else "all"
    epochs = "1 pass" if config.epochs == 1 else f"{config.epochs} passes"
    how = "a GPU" if torch.accelerator.is_available() else "the CPU"
    quick = all(getattr(config, name) == value for name, value in BUDGETS["quick"].items())
    if how == "the CPU" and quick:
        how += ": the quick budget, since there is no GPU"
    rows += [("weight of the KL", f"beta = {config.beta:g}")]
    rows += [("training", f"{epochs} over {images} training images, on {how}")]
    return table(("setting", "here"), rows)


def show_parts(model: VAE) -> Markdown:
    """Every block of the model: what comes out of it for one image, and its parameters."""
    rows = []

    def size(part: nn.Module) -> str:
        return f"{sum(p.numel() for p in part.parameters()):,}"

    def note(name: str, part: nn.Module, inputs: tuple, output: Tensor) -> None:
        rows.append((name, type(part).__name__, " × ".join(map(str, output.shape[1:])), size(part)))

    x = torch.zeros(1, *model.config.image_shape, device=model.device)
    labels = torch.zeros(1, dtype=torch.int64, device=x.device)
    with torch.no_grad(), ExitStack() as hooks:
        for name, part in model.named_modules():
            if re.fullmatch(r"(encoder|decoder)\.\w+(\.\d+)?", name):  # a block, not what is in it
                name = re.sub(r"\.(\d+)$", r"[\1]", name)
                hooks.enter_context(part.register_forward_hook(partial(note, name)))
        model(x, labels if model.config.num_classes else None)
    if model.couplings:
        kind = f"{len(model.couplings)} × Coupling"
        rows.append(("couplings", kind, model.config.latent_values, size(model.couplings)))
    caption = f"{size(model)} parameters in all"
    return table(("part", "kind", "output for an image", "parameters"), rows, caption)


def show_latent_sizes(of: VAEConfig | None = None,
                      sizes: tuple[int, ...] = (2, 4, 16)) -> Markdown:  # fmt: skip
    """How many numbers a latent has, for each size and grid, of images as `of` has them."""
    of, rows = VAEConfig() if of is None else of, []
    images = {"image_size": of.image_size, "image_channels": of.image_channels}
    pixels = math.prod(of.image_shape)
    for config in (VAEConfig(size, grid, **images) for grid in (1, of.map_size) for size in sizes):
        size, grid, _ = config.latent_shape
        shape, values = " × ".join(map(str, config.latent_shape)), config.latent_values
        rows.append((size, f"{grid} × {grid}", shape, values, f"{values / pixels:.1%}"))
    header = ("LATENT_SIZE", "LATENT_GRID", "shape", "numbers", f"of the pixels' {pixels:,}")
    return table(header, rows)


def show_results(run: Run) -> Markdown:
    """A run's test metrics, beside the reference's; `ValueError` for a run that was cut off."""
    if "test" not in run.metrics:
        raise ValueError(f"{run.directory} is not finished: run the training cell again to go on")
    test, config = run.metrics["test"], run.model.config
    rates = [f"{test[k]:.0f}" for k in ("kl", "neg_elbo")] if "kl" in test else ["unbounded", ""]
    rows = []
    for kind, name in (("sample", "z ~ q(z|x)"), ("mean", "the mean of q(z|x)")):
        m, beside = test[kind], rates if kind == "sample" else ["", ""]  # a point: no rate
        rows.append((name, f"{m['mse']:.5f}", f"{m['ssim']:.4f}", f"{m['psnr']:.2f}", *beside))
    dataset = run.metrics["config"]["dataset"]
    alike = dataset == "mnist" and config.latent_grid == 7 and config.likelihood == "calibrated"
    if alike and config.latent_size in REFERENCE:
        mse, ssim, psnr = REFERENCE[config.latent_size]
        rows.append(("the reference", f"{mse:.4f}", f"{ssim:.4f}", f"{psnr:.2f}", "unbounded", ""))
    caption = (
        f"{describe(config, dataset)}: {test['latent_values']} numbers for an image; "
        f"{test['images']:,} test images in [-1, 1]. A quarter of the MSE is that in [0, 1]."
    )
    header = ("reconstruction from", "MSE", "SSIM", "PSNR, dB", "KL, nats", "−ELBO, nats")
    return table(header, rows, caption)


def summarize(run: Run) -> str:
    """One sentence about a run's training."""
    if "interrupted" in run.metrics:
        return f"Stopped at step {run.metrics['interrupted']:,}. Run this cell again to go on."
    steps = f"{run.metrics['history']['train'][-1]['step']:,} steps"
    size, hardware = run.metrics["config"]["batch_size"], run.metrics["environment"]["hardware"]
    minutes = f"{run.metrics['seconds']['training'] / 60:.1f} minutes"
    return f"Trained for {steps} of {size} images, {minutes} on {hardware}."


def show_scores(model: VAE, dataset: str, prior: LatentPrior | None = None,
                n: int = 100) -> Markdown:  # fmt: skip
    """What the judge makes of `n` draws from N(0, I), and as many from a learned prior."""
    if dataset != "mnist":
        return table(("the judge",), [("knows the digits of MNIST alone",)])
    rows, sources = [], {"N(0, I)": None} | ({"the learned prior": prior} if prior else {})
    for source, drawn_by in sources.items():
        asked = torch.arange(n) % 10 if drawn_by or model.config.num_classes else None
        images = model.sample(n, asked, torch.Generator().manual_seed(0), drawn_by)
        scores = judge_images(images, asked, reference=images)
        read = f"{scores['accuracy']:.0%}" if "accuracy" in scores else ""
        rows.append((source, f"{scores['recognised']:.0%}", read))
    header = ("draws from", "recognised (> 0.9)", "read as the digit asked for")
    return table(header, rows, f"{n} draws of each; docs/generation.md has 10,000 of each")


def latent_sliders(model: VAE | None):
    """A slider for each number of a global latent, and for the class, and the decoded digit."""
    if model is None:
        return Markdown(NO_ASSETS)
    import ipywidgets  # as Colab and Jupyter have it; not needed to read a notebook

    def slider(name: str, kind=ipywidgets.FloatSlider, low=-3, high=3, step=0.1):
        look = {"layout": {"width": "260px"}, "style": {"description_width": "3em"}}
        return kind(0, min=low, max=high, step=step, description=name, **look)

    values = [slider(f"z{i + 1}") for i in range(model.config.latent_values)]
    classes = model.config.num_classes
    digit = [slider("class", ipywidgets.IntSlider, 0, classes - 1, 1)] if classes else []
    picture = ipywidgets.Image(format="png", width=224, height=224)

    @torch.no_grad()
    def redraw(_=None) -> None:
        z = torch.tensor([one.value for one in values], dtype=torch.float32)
        label = digit[0].value if digit else None
        image = model.decode(z.view(1, *model.config.latent_shape), label)[0].float().cpu()
        image = ((image + 1) * 127.5).round().byte().movedim(0, -1).numpy()
        image = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        image.resize((224, 224), PIL.Image.Resampling.BICUBIC).save(buffer := io.BytesIO(), "png")
        picture.value = buffer.getvalue()

    for one in values + digit:
        one.observe(redraw, "value")
    redraw()
    half = (len(values) + 1) // 2 if len(values) > 8 else len(values)
    columns = [ipywidgets.VBox(part) for part in (values[:half] + digit, values[half:]) if part]
    return ipywidgets.HBox([picture, *columns])


def load_pretrained(config: TrainConfig, sharpened: bool = False) -> Run | None:
    """The shipped run of a model; `ValueError` if there is none, or `assets/` is not found.

    `sharpened`: that of the 1x1 model whose decoder was trained on, or None if there is none.
    """
    model, names = config.model, {shipped: name for name, shipped in SHIPPED.items()}
    if config.dataset != "mnist" or model not in names:
        raise ValueError(
            f"USE_PRETRAINED=True is not allowed for {describe(model, config.dataset)}"
            f"{', conditional' if model.num_classes else ''}: LATENT_SIZE in {tuple(REFERENCE)}, "
            "DATASET='mnist' and CONDITIONAL=False are, and so is CONDITIONAL=True with "
            "LATENT_SIZE=16 and LATENT_GRID=1"
        )
    name = names[model]
    if sharpened:
        name = next((sharp for sharp, before in SHARPENED.items() if before == name), None)
        if name is None:
            return None
    if (folder := asset(name)) is None:
        raise ValueError(
            f"USE_PRETRAINED=True needs assets/{name} of the repository, here, one folder "
            "up, or in vae-mnist/: clone the repository, or set USE_PRETRAINED=False to train"
        )
    return Run.load(folder)


def show_sharpening(before: Run, after: Run | None, n: int = 1000) -> Markdown:
    """What sharpening did to reconstructions of `n` test images, and to as many draws."""
    if after is None:
        return Markdown("Nothing was sharpened. (On a 7 × 7 grid there is no blur to cure.)")
    of = before.metrics["config"]
    channels, size, _ = before.model.config.image_shape
    there = load_digits("test", of["dataset"], of["data_root"], size=size, channels=channels)
    images, labels = (part[:n] for part in there)
    rows = [("real images", "0", "0", f"{grey_share(scale_images(images)):.1%}", "")]
    for name, run in (("before", before), ("after", after)):
        model, sample = run.model, run.metrics["test"]["sample"]
        given = labels if model.config.num_classes else None
        drawn = model.sample(n, given, torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = torch.cat(
                [model(*part)[0] for part in batches(BATCH, scale_images(images), given)]
            )
        shares = [f"{grey_share(part):.1%}" for part in (made, drawn)]
        lpips = f"{sample['lpips']:.3f}" if "lpips" in sample else ""
        rows.append((name, f"{sample['mse']:.4f}", lpips, *shares))
    header = ("", "MSE", "LPIPS", "grey pixels of reconstructions", "of draws")
    stays = "The latents, and so the rate, stay."
    if channels == 3:  # of colours there is no such share
        return table(header[:3], [row[:3] for row in rows], stays)
    return table(header, rows, f"Grey: neither black nor white. {stays}")


def global_model(run: Run) -> VAE | None:
    """The run's model if its latent is 1x1, or a shipped one of its size or 2, if it is found."""
    size = run.model.config.latent_size
    if run.model.config.latent_grid == 1:
        return run.model
    folder = asset(f"sharp_{size if size in REFERENCE else 2}")
    return VAE.from_pretrained(folder) if folder else None


def show_one_vector(model: VAE | None) -> Image | Markdown:
    """The plane of a global latent of two numbers, or draws from N(0, I) of a larger one."""
    if model is None:
        return Markdown(NO_ASSETS)
    plane = model.config.latent_values == 2 and not model.config.num_classes
    name = f"latent size {model.config.latent_size} on 1×1"
    return show((plot_manifold if plane else plot_samples)(model, name))


def show_digits(model: VAE, name: str, prior: LatentPrior | None,
                names: Sequence[str] = ()) -> Image | Markdown:  # fmt: skip
    """A row for each class that is asked for, of a learned prior or of a conditional model."""
    if prior is None and not model.config.num_classes:
        return Markdown("Digits can be asked for with `CONDITIONAL = True` or `LATENT_GRID = 7`.")
    return show(plot_digits(model, name, prior, names=names))
