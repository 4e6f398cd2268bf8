"""The command line. Its flags are the fields of the configs, read from them."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from vae_store.files import FileError, as_path
from vae_store.folder import METRICS_NAME, check_directory, is_finished, own_images, read_metrics
from vae_store.settings import from_saved, options_of

from .data import load_digits
from .metrics import evaluate
from .model import VAE, VAEConfig
from .perceptual import LPIPS
from .prior import PriorConfig
from .training.config import (
    BUDGETS,
    PriorTrainConfig,
    SharpenConfig,
    TrainConfig,
    run_name,
    with_budget,
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status. What a user got wrong is one line on stderr."""
    flags = parser().parse_args(arguments)
    try:
        for name in {"run_dir", "directory"} & vars(flags).keys():
            setattr(flags, name, as_path(getattr(flags, name), name))
        flags.command(flags)
        if sys.stdout:  # which may be closed
            sys.stdout.flush()
    except BrokenPipeError:  # `| head -1`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it at the exit
    except (ValueError, OSError, FloatingPointError) as error:
        return say(f"vae: {error}", 2)
    except KeyboardInterrupt:
        how = "; --resume goes on from the last checkpoint" if hasattr(flags, "resume") else ""
        return say(f"vae: interrupted{how}", 130)
    return 0


def say(text: str, status: int) -> int:
    """Write to stderr, if anybody reads it; returns the exit status."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    root = argparse.ArgumentParser(
        prog="python -m vae", description="VAEs on digits, and on pictures of your own."
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
        how = {"help": help, "formatter_class": argparse.ArgumentDefaultsHelpFormatter}
        one = commands.add_parser(name, **how)
        one.set_defaults(command=run)
        return one

    train = command("train", run_train, "train a model")
    what = "folder of the run; default: runs/latent_N"
    train.add_argument("--run-dir", default=argparse.SUPPRESS, help=what)
    prior = command("train-prior", run_train_prior, "train a prior on a model's latents")
    prior.add_argument("directory", help="folder of a run; the prior is put there")
    sharper = command("sharpen", run_sharpen, "train a model's decoder to draw sharp digits")
    sharper.add_argument("directory", help="folder of a run, which stays as it is")
    what = "folder of the sharper run; default: sharp/ in the other"
    sharper.add_argument("--run-dir", default=argparse.SUPPRESS, help=what)
    measure = command("evaluate", run_evaluate, "measure a trained model on the test set")
    draw = command("render", run_render, "draw a run's pictures again")
    export = command("export", run_export, "write a run as ONNX files, for use without PyTorch")
    for one in (measure, draw, export):
        one.add_argument("directory", help="folder of a run")
    export.add_argument("--out", help="folder of the files; default: onnx/ in the run's")
    what = "test images for LPIPS; default: the run's"
    measure.add_argument("--lpips-images", type=int, help=what)
    measure.add_argument("--data-root", help="folder of the data set; default: the run's")
    what = "decides --epochs and --max-*-images where not given; auto: full with a GPU, or quick"
    for one, budget, *configs in (
        (train, "auto", VAEConfig, TrainConfig),
        (prior, "full", PriorConfig, PriorTrainConfig),
        (sharper, "auto", SharpenConfig),
    ):
        for config in configs:
            add_flags(one.add_argument_group(config.__name__), config)
        one.add_argument("--budget", choices=("auto", *BUDGETS), default=budget, help=what)
        one.add_argument("--resume", action="store_true", help="go on if it was cut off")
    return root


def add_flags(group: argparse._ArgumentGroup, config: type) -> None:
    """A flag for each option of a config."""
    for one in options_of(config):
        if config is PriorConfig and one.name in ("latent_size", "latent_grid"):
            continue  # the VAE's
        kind, how = one.metadata["kind"], {"default": one.default, "help": one.metadata["help"]}
        how |= {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        how |= {"nargs": "+"} if isinstance(one.default, tuple) else {}
        group.add_argument("--" + one.name.replace("_", "-"), **how)


def from_flags(config: type, flags: argparse.Namespace, **extra):
    """An instance of `config` from the parsed flags."""
    names = [one.name for one in options_of(config) if hasattr(flags, one.name)]
    return config(**{name: getattr(flags, name) for name in names}, **extra)


def in_main_process() -> bool:
    """Whether this is the one of several processes that speaks."""
    return os.environ.get("RANK", "0") == "0"


def run_train(flags: argparse.Namespace) -> None:
    from .training.vae import train  # accelerate, which no other command needs

    config = from_flags(TrainConfig, flags, model=from_flags(VAEConfig, flags))
    directory = getattr(flags, "run_dir", Path("runs") / run_name(config))
    finished = is_finished(directory)
    report(train(with_budget(config, flags.budget), directory, resume=flags.resume), finished)


def run_sharpen(flags: argparse.Namespace) -> None:
    from .training.sharpen import SUBFOLDER, sharpen

    config = from_flags(SharpenConfig, flags)
    config = with_budget(config, flags.budget, own_images(flags.directory))
    directory = getattr(flags, "run_dir", flags.directory / SUBFOLDER)
    finished = is_finished(directory)
    report(sharpen(flags.directory, directory, config, resume=flags.resume), finished)


def report(run, finished: bool) -> None:
    """Say what a training left, or that it was `finished` before."""
    if "interrupted" in run.metrics:
        raise KeyboardInterrupt
    if finished and in_main_process():
        print(f"{run.directory}/ holds a finished run: nothing is trained")
    if "test" in run.metrics and in_main_process():
        print_table(run.metrics["test"])
        print(f"Model, metrics and pictures are in {run.directory}/")


def run_train_prior(flags: argparse.Namespace) -> None:
    from .training.prior import train_prior

    config = from_flags(PriorTrainConfig, flags, model=from_flags(PriorConfig, flags))
    config = with_budget(config, flags.budget, own_images(flags.directory))
    train_prior(flags.directory, config, resume=flags.resume)
    if in_main_process():
        print(f"The prior and its pictures are in {flags.directory}/")


def run_evaluate(flags: argparse.Namespace) -> None:
    model, saved = VAE.from_pretrained(flags.directory), read_metrics(flags.directory)
    try:
        config = from_saved(TrainConfig, saved["config"])
    except (TypeError, ValueError) as error:
        raise FileError(f"{flags.directory / METRICS_NAME}: {error}") from error
    root = config.data_root if flags.data_root is None else flags.data_root
    channels, size, _ = model.config.image_shape
    test_set = load_digits("test", config.dataset, root, size=size, channels=channels)
    images, labels = (tensor[: config.max_test_images] for tensor in test_set)
    there = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if there else "cpu"
    count = config.lpips_images if flags.lpips_images is None else flags.lpips_images
    lpips = LPIPS(config.lpips_variant).to(device) if count else None
    test = evaluate(model.to(device), images, labels, lpips=lpips, lpips_images=count,
                    reference=True, progress=True)  # fmt: skip
    print_table(test)
    if "test" in saved:
        places = [(kind, n) for kind in ("sample", "mean") for n in ("mse", "ssim", "psnr")]
        pairs = [(test[kind][n], saved["test"][kind][n]) for kind, n in places]
        pairs += [(test["kl"], saved["test"]["kl"])] if "kl" in test else []
        difference = max(abs(a - b) for a, b in pairs)
        print(f"Largest difference from {METRICS_NAME} in MSE, SSIM, PSNR, KL: {difference:.2g}")


def run_render(flags: argparse.Namespace) -> None:
    from vae_show.run import Run, render

    run = Run.load(flags.directory)
    check_directory(flags.directory)
    print(*render(run), sep="\n")


def run_export(flags: argparse.Namespace) -> None:
    from .onnx_export import export_onnx

    print(*export_onnx(flags.directory, flags.out), sep="\n")


def print_table(test: dict) -> None:
    """The metrics of `vae.evaluate`, for people."""
    print(f"\n{test['images']:,} test images, {test['latent_values']} latent values each")
    print(f"{'reconstruction from':<20}{'MSE':>9}{'SSIM':>9}{'PSNR dB':>9}{'LPIPS':>9}")
    for kind, name in (("sample", "z ~ q(z|x)"), ("mean", "the mean of q(z|x)")):
        row = test[kind]
        lpips = f"{row['lpips']:9.4f}" if "lpips" in row else f"{'-':>9}"
        print(f"{name:<20}{row['mse']:9.5f}{row['ssim']:9.4f}{row['psnr']:9.2f}{lpips}")
    if "kl" in test:
        print(f"KL {test['kl']:.1f} nats per image; -ELBO {test['neg_elbo']:.1f} nats per image")
    print(f"(images in [-1, 1], data range 2; LPIPS on the first {test['lpips_images']:,})\n")
