"""The training of a VAE with all four loss terms: the step, and the loop around it."""

import contextlib
import copy
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from math import ceil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoint import (
    CHECKPOINT_NAME,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from .config import TrainConfig, check_same_settings, with_budget
from .data import PIXELS, Digits, load_digits, scale_images
from .discriminator import PatchDiscriminator
from .figures import render
from .files import FileError, remove_leftovers
from .frames import Frames
from .losses import (
    adaptive_weight,
    amplify_gradient,
    calibrated_nll,
    discriminator_loss,
    generator_loss,
    gradient_at,
    gradient_penalty,
)
from .metrics import AGREEMENT, evaluate
from .model import VAE
from .optimizer import Muon, one_cycle, update_average
from .perceptual import LPIPS
from .run import Run, describe_environment, is_finished, peak_memory_mb

RUNNING_LPIPS_IMAGES = 200  # LPIPS of all 10,000 would take longer than an epoch on a CPU
PENALTY = (0.05, 1e-4, 1.0)  # weight of R1: at the start, least, most
PENALTY_RATE = 0.1  # of its logarithm, for a step and an error in accuracy of 1
CHECKPOINT_SECONDS = 60  # at most between two checkpoints, give or take a step
LOG_EVERY = 20  # steps between two looks at the losses; each look waits for the device
LOCK_NAME = ".lock"
FREE_SPACE = 100 * 2**20  # bytes that a run's folder may come to need


def train(config: TrainConfig, run_dir: str | Path, *, resume: bool = True) -> Run:
    """Train a VAE; leave model, metrics and pictures in `run_dir`.

    What is there already with the same settings is used: a finished run is loaded, and one that
    was cut off goes on from its last checkpoint (on a CPU to the same weights, bit for bit).
    `resume=False` refuses the latter. An interrupt (Ctrl-C) finishes the step, saves a checkpoint
    and returns the run as it stands, with "interrupted" in its metrics.

    Raises, before any work, `ValueError` for a `run_dir` that holds a run with other settings and
    for settings that do not fit the data, and `OSError` when there is no space or when another
    training is at work in `run_dir`. Raises `FloatingPointError`, naming the term and the step,
    when a loss is no longer finite; the last checkpoint stays.
    """
    config, directory = with_budget(config), check_directory(Path(run_dir))
    if is_finished(directory):
        run = Run.load(directory)
        check_same_settings(run.metrics["config"], config, f"run_dir={directory}, finished,")
        return run
    trainer = Trainer(config, directory)
    with lock(directory, trainer.accelerator.is_main_process):
        if (directory / CHECKPOINT_NAME).is_file():
            if not resume:
                raise ValueError(
                    f"run_dir={str(directory)!r} holds a training that was cut off: "
                    "resume it (resume=True, --resume), name another folder, or delete it"
                )
            trainer.restore()
        return trainer.fit()


class Trainer:
    """One training. `training_step` is the method; all else is the loop around it."""

    def __init__(self, config: TrainConfig, run_dir: str | Path):
        self.directory = Path(run_dir)
        AcceleratorState._reset_state()  # or a second training could not have another precision
        precision = choose_precision(config.mixed_precision)
        self.accelerator = Accelerator(mixed_precision=precision)
        self.device = self.accelerator.device
        self.config = config = with_budget(config)
        self.train_set = self._load("train")
        self.test_set = self._load("test")
        classes = int(max(self.train_set.labels.max(), self.test_set.labels.max())) + 1
        if 0 < config.model.num_classes < classes:
            raise ValueError(
                f"num_classes={config.model.num_classes} is not allowed: dataset="
                f"{config.dataset!r} has {classes} classes (0: not conditional)"
            )
        processes = self.accelerator.num_processes
        self.steps_per_epoch = len(self.train_set.images) // config.batch_size
        if not self.steps_per_epoch or config.batch_size % processes:
            raise ValueError(
                f"batch_size={config.batch_size} is not allowed: a multiple of the {processes} "
                f"processes, and at most the {len(self.train_set.images)} training images"
            )
        self.total_steps = self.steps_per_epoch * config.epochs
        self.adversarial_from = round(config.adversarial_start * self.total_steps)

        torch.manual_seed(config.seed)
        model, discriminator = VAE(config.model).to(self.device), PatchDiscriminator()
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        needs_lpips = config.w_perceptual or config.lpips_images
        self.lpips = LPIPS(config.lpips_variant).to(self.device) if needs_lpips else None
        discriminator.to(self.device)
        optimizer, d_optimizer = (
            Muon(module, lr, config.weight_decay)
            for module, lr in (
                (model, config.learning_rate),
                (discriminator, config.discriminator_lr),
            )
        )
        self.model, self.discriminator, self.optimizer, self.d_optimizer = self.accelerator.prepare(
            model, discriminator, optimizer, d_optimizer
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, one_cycle(config.warmup, self.total_steps)
        )
        self.step = 0
        self.perceptual = torch.zeros((), device=self.device)  # as last measured
        self.penalty = torch.full((), PENALTY[0], device=self.device)  # R1's weight
        self.recent: list[dict[str, Tensor]] = []  # terms of the steps since the last look
        every = config.model.latent_values <= 2  # drawn as they are: no t-SNE, which is slow
        self.frames = Frames(self.test_set, 10**9 if every else config.projected_images)
        self.metrics = {
            "config": asdict(config),
            "environment": describe_environment(self.device, precision, processes),
            "history": {"train": [], "test": []},
        }
        self.training_seconds, self.clock = 0.0, 0.0
        self.order_epoch = -1  # whose order of the images is at hand

    def training_step(
        self, x: Tensor, labels: Tensor | None, noise: Tensor, adversarial: bool
    ) -> dict[str, Tensor]:
        """One step of both optimisers on images `x`: (B, 1, 28, 28) in [-1, 1].

        loss = -log p(x|z) + beta * KL + w_adversarial * adaptive weight * generator's loss, where
        the distortion in p is MSE + w_perceptual * LPIPS. The couplings of a global latent,
        and they alone, heed beta * w_marginal * the marginal KL besides: within the loss it is a
        few nats among hundreds. The terms that depend on the reconstruction alone are
        differentiated there first, since the adaptive weight needs their gradients apart; then
        everything passes backward through the model once. LPIPS is computed on every `lazy`-th step
        with as many times the gradient (lazy regularisation: Karras et al., "StyleGAN2", 2020, app.
        B); its value counts as constant in between.
        """
        config, terms = self.config, {}
        reconstruction, posterior = self.model(x, labels, noise)
        image = reconstruction.detach().requires_grad_()
        distortion = torch.zeros((), device=self.device)
        if config.w_mse:
            terms["mse"] = F.mse_loss(image, x)
            distortion = distortion + config.w_mse * terms["mse"]
        if config.w_perceptual:
            lazy = config.lazy if config.w_mse else 1  # every step needs a gradient
            if self.step % lazy == 0:
                share = ceil(config.perceptual_share * len(x))
                with self.half_precision():
                    perceptual = self.lpips(x[:share], image[:share]).mean()
                self.perceptual = perceptual.detach()
                perceptual = amplify_gradient(perceptual, lazy)
            else:
                perceptual = self.perceptual
            terms["perceptual"] = perceptual
            distortion = distortion + config.w_perceptual * perceptual
        variance = self.accelerator.reduce(distortion.detach(), "mean")
        terms["nll"] = calibrated_nll(distortion, variance)
        (gradient,) = torch.autograd.grad(terms["nll"], image)
        if adversarial:
            terms["generator"] = generator_loss(self.unwrap(self.discriminator)(image))
            (g_gradient,) = torch.autograd.grad(terms["generator"], image)
            last = self.unwrap(self.model).decoder.conv_out.weight
            both = [gradient_at(last, reconstruction, g) for g in (gradient, g_gradient)]
            both = self.accelerator.reduce(torch.stack(both), "mean")
            terms["adaptive_weight"] = adaptive_weight(*both)
            gradient = gradient + config.w_adversarial * terms["adaptive_weight"] * g_gradient
        objective = (reconstruction * gradient).sum()  # has the gradient that was just collected
        if config.beta:
            terms["kl"] = posterior.kl().mean()
            objective = objective + config.beta * terms["kl"]
            if config.w_marginal and self.unwrap(self.model).couplings:
                marginal = self.unwrap(self.model).marginal_nll(posterior.sample(noise), labels)
                terms["marginal"] = marginal.mean()
                objective = objective + config.beta * config.w_marginal * terms["marginal"]
        self.accelerator.backward(objective / PIXELS)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        if self.accelerator.mixed_precision != "fp16":  # there it may overflow: a step is skipped
            terms["gradient_norm"] = norm
        self.optimizer.step()
        self.optimizer.zero_grad()
        if adversarial:
            terms |= self.discriminator_step(x, image.detach())
        return {name: value.detach() for name, value in terms.items()}

    def discriminator_step(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """One step of the discriminator; `real`, `fake`: (B, 1, 28, 28), without a graph.

        How far apart real and fake are falls a hundredfold in a training. The weight of the R1
        penalty follows: it rises while the discriminator is right too often, and falls while it is
        not (the idea of Karras et al., "StyleGAN2-ADA", 2020, eq. 1, for their augmentations).
        """
        penalized = self.step % self.config.lazy == 0
        real = real.detach().requires_grad_(penalized)
        logits_real, logits_fake = self.discriminator(torch.cat([real, fake])).chunk(2)
        hinge = discriminator_loss(logits_real, logits_fake)
        # Within its margins the hinge is blind to a shift of all logits: this holds them centred,
        # so that neither real nor fake patches are right by default.
        loss = hinge + (logits_real.mean() + logits_fake.mean()).square()
        if penalized:
            weight = 0.5 * self.config.lazy * self.penalty
            loss = loss + weight * gradient_penalty(logits_real, real)
        self.accelerator.backward(loss)
        self.d_optimizer.step()
        self.d_optimizer.zero_grad()
        accuracy_real = (logits_real > 0).float().mean()
        accuracy_fake = (logits_fake < 0).float().mean()
        accuracy = self.accelerator.reduce((accuracy_real + accuracy_fake) / 2, "mean")
        error = accuracy - self.config.discriminator_accuracy
        self.penalty = (self.penalty * torch.exp(PENALTY_RATE * error)).clamp(*PENALTY[1:])
        return {
            "discriminator": hinge,
            "accuracy_real": accuracy_real,
            "accuracy_fake": accuracy_fake,
            "penalty_weight": self.penalty,
        }

    def fit(self) -> Run:
        """Train to the end, evaluating and saving on the way; returns the run."""
        early = self.config.early_evaluations
        first = {max(1, round(self.steps_per_epoch * k / (early + 1))) for k in range(1, early + 1)}
        main = self.accelerator.is_main_process
        self.directory.mkdir(parents=True, exist_ok=True)
        started = saved = time.perf_counter()
        options = {"initial": self.step, "total": self.total_steps, "unit": "step"}
        with (
            interrupts(self.accelerator.num_processes) as asked,
            tqdm(**options, disable=not main) as bar,
        ):
            self.clock = time.perf_counter()
            while self.step < self.total_steps:
                if self.step == self.adversarial_from:
                    self.log_losses(bar)  # from here on there are more terms
                self.optimize()
                bar.update()
                at_end = self.step % self.steps_per_epoch == 0
                measured = at_end or self.step in first
                if measured or len(self.recent) == LOG_EVERY:
                    self.log_losses(bar)
                if measured:
                    self.measure()
                if measured or asked or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.perf_counter()
                if asked:
                    self.metrics["interrupted"] = self.step
                    return self.run
        return self.finish(started)

    def optimize(self) -> None:
        """Run `training_step` on the next batch, then move the schedule and the average."""
        adversarial = self.config.w_adversarial > 0 and self.step >= self.adversarial_from
        self.model.train()
        self.recent.append(self.training_step(*self.next_batch(), adversarial))
        self.scheduler.step()
        update_average(self.ema, self.unwrap(self.model), self.config.ema_decay, self.step)
        self.step += 1

    def next_batch(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images, labels and noise of the current step: this process's part of the batch.

        Order and noise depend on the seed and the step alone, so that any number of processes
        sees the same batches. The processes deal a batch out one image at a time, so that what
        LPIPS sees, the first images of each part, is the first of the batch.
        """
        config = self.config
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            self.order_epoch = epoch
            generator = seeded_generator(config.seed, 0, epoch)
            n = len(self.train_set.images)
            self.order = torch.randperm(n, generator=generator).to(self.device)
        generator = seeded_generator(config.seed, 1, self.step)
        noise = torch.randn(config.batch_size, *config.model.latent_shape, generator=generator)
        part = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        index = self.order[position * config.batch_size :][: config.batch_size][part]
        x = scale_images(self.train_set.images[index])
        labels = self.train_set.labels[index] if config.model.num_classes else None
        return x, labels, noise[part].to(self.device)

    def log_losses(self, bar: tqdm) -> None:
        """Average the terms since the last look into the history; stop if one is not finite."""
        if not self.recent:
            return
        names = list(self.recent[0])
        values = torch.stack([torch.stack([terms[n] for n in names]) for terms in self.recent])
        values = self.accelerator.reduce(values.float(), "mean").cpu()
        for row, finite in enumerate(values.isfinite()):
            if not finite.all():
                name, step = names[int(finite.int().argmin())], self.step - len(values) + row + 1
                raise FloatingPointError(
                    f"{name} is {values[row, names.index(name)].item()} at step {step}; the last "
                    f"checkpoint is in {self.directory}. Try a lower learning_rate, or "
                    "mixed_precision='no', in another run_dir."
                )
        elapsed = time.perf_counter() - self.clock
        self.training_seconds += elapsed
        row = dict(zip(names, values.mean(0).tolist(), strict=True))
        row |= {"images_per_second": len(self.recent) * self.config.batch_size / elapsed}
        epoch = self.step / self.steps_per_epoch
        self.metrics["history"]["train"].append({"step": self.step, "epoch": epoch} | row)
        speed = f"{row['images_per_second']:.0f} images/s"
        bar.set_description(f"epoch {epoch:.2f}/{self.config.epochs}, {speed}")
        shown = ("mse", "perceptual", "kl", "generator", "discriminator")
        bar.set_postfix({name: f"{row[name]:.3g}" for name in shown if name in row})
        self.recent.clear()
        self.clock = time.perf_counter()

    def measure(self) -> None:
        """Evaluate the averaged weights, record a frame, and save model, metrics and frames."""
        if self.accelerator.is_main_process:
            epoch = self.step / self.steps_per_epoch
            lpips_images = min(RUNNING_LPIPS_IMAGES, self.config.lpips_images)
            measured = self.evaluate(mean=False, lpips_images=lpips_images)
            rate = {k: measured[k] for k in ("kl", "neg_elbo") if k in measured}
            flat = measured.pop("sample") | rate
            row = {"step": self.step, "epoch": epoch, "training_seconds": self.training_seconds}
            self.metrics["history"]["test"].append(row | flat)
            self.frames.record(self.ema, self.test_set, epoch)
            self.run.save()
        self.accelerator.wait_for_everyone()
        self.clock = time.perf_counter()

    def save(self) -> None:
        """Write a checkpoint: everything that `restore` needs to go on from this step.

        Nobody waits for anybody: each process has its own clock, by which it comes here.
        """
        started = time.perf_counter()
        if self.accelerator.is_main_process:
            parts = {name: module.state_dict() for name, module in self.modules.items()}
            parts |= {name: optimizer_tensors(o) for name, o in self.optimizers.items()}
            parts["frames"] = {k: torch.from_numpy(v) for k, v in self.frames.arrays().items()}
            names = list(self.recent[0]) if self.recent else []
            parts["recent"] = {n: torch.stack([terms[n] for terms in self.recent]) for n in names}
            tensors = {f"{part}.{k}": t for part, named in parts.items() for k, t in named.items()}
            tensors |= {"perceptual": self.perceptual, "penalty": self.penalty}
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "metrics": self.metrics,
                "recent": names,  # in this order, on which the last bit of a mean depends
                "training_seconds": self.training_seconds + started - self.clock,
                "scaler": scaler.state_dict() if scaler else None,
            }
            save_checkpoint(self.directory / CHECKPOINT_NAME, tensors, state)
        self.clock += time.perf_counter() - started  # that was no training

    def restore(self) -> None:
        """Go back to the checkpoint in the run's folder.

        Raises `ValueError` for one of other settings, and `FileError` for one that is damaged.
        """
        path = self.directory / CHECKPOINT_NAME
        tensors, state = load_checkpoint(path)
        place = f"run_dir={self.directory}, cut off,"
        check_same_settings(state["metrics"]["config"], self.config, place)
        if state["step"] > self.total_steps:
            raise FileError(f"{path}: step {state['step']} of {self.total_steps} is not possible")
        try:
            for name, module in self.modules.items():
                module.load_state_dict(under(name, tensors))
            for name, optimizer in self.optimizers.items():
                restore_optimizer(optimizer, under(name, tensors))
            self.frames.restore({name: t.numpy() for name, t in under("frames", tensors).items()})
            recent = [tensors[f"recent.{name}"].to(self.device) for name in state["recent"]]
            self.recent = [
                dict(zip(state["recent"], values, strict=True))
                for values in zip(*recent, strict=True)
            ]
            self.perceptual = tensors["perceptual"].to(self.device)
            self.penalty = tensors["penalty"].to(self.device)
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
            raise FileError(f"{path} does not fit this training: {error!r}") from error
        self.metrics, self.step = state["metrics"], state["step"]
        self.training_seconds = state["training_seconds"]
        self.scheduler.last_epoch = self.step
        for group, peak in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = peak * one_cycle(self.config.warmup, self.total_steps)(self.step)

    def evaluate(self, **options) -> dict:
        """`vae.evaluate` of the averaged weights on the test set."""
        images, labels = self.test_set
        return evaluate(self.ema, images, labels, lpips=self.lpips, **options)

    def finish(self, started: float) -> Run:
        """Measure the final table by scikit-image, draw the pictures, mark the run as finished."""
        if self.accelerator.is_main_process:
            test = self.evaluate(lpips_images=self.config.lpips_images, reference=True)
            if test["skimage_difference"] > AGREEMENT:
                warnings.warn(
                    f"MSE, SSIM or PSNR differs from scikit-image's by "
                    f"{test['skimage_difference']:.2g}, more than {AGREEMENT}",
                    stacklevel=2,
                )
            self.metrics["seconds"] = {
                "training": self.training_seconds,
                "all": time.perf_counter() - started,
            }
            self.metrics["peak_memory_mb"] = peak_memory_mb(self.device)
            render(self.run)
            self.metrics["test"] = test  # which is what makes it finished
            self.run.save()
            (self.directory / CHECKPOINT_NAME).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return self.run

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint holds the weights of."""
        return {
            "model": self.unwrap(self.model),
            "ema": self.ema,
            "discriminator": self.unwrap(self.discriminator),
        }

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """What a checkpoint holds the state of."""
        return {"optimizer": self.optimizer.optimizer, "d_optimizer": self.d_optimizer.optimizer}

    @property
    def run(self) -> Run:
        """The run as it stands: the averaged weights, the metrics and the frames so far."""
        return Run(self.directory, self.ema, self.metrics, self.frames)

    def unwrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module without what `accelerate` put around it."""
        return self.accelerator.unwrap_model(module, keep_fp32_wrapper=True)

    def half_precision(self) -> contextlib.AbstractContextManager:
        """Autocast to bf16 where that is used; fp16 would lose the small gradients of LPIPS."""
        bf16 = self.accelerator.mixed_precision == "bf16"
        return self.accelerator.autocast() if bf16 else contextlib.nullcontext()

    def _load(self, split: str) -> Digits:
        config = self.config
        with self.accelerator.main_process_first():  # one process downloads, the others read
            images, labels = load_digits(split, config.dataset, config.data_root)
        n = config.max_train_images if split == "train" else config.max_test_images
        return Digits(images[:n].to(self.device), labels[:n].to(self.device))


def check_directory(directory: Path) -> Path:
    """Raise unless a run can be written to `directory`."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"run_dir={str(directory)!r} is a file: a folder is expected")
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise OSError(f"run_dir={str(directory)!r} is not allowed: {existing} cannot be written to")
    free = shutil.disk_usage(existing).free
    if free < FREE_SPACE:
        raise OSError(
            f"run_dir={str(directory)!r} has {free / 2**20:.0f} MiB free; "
            f"a run may need {FREE_SPACE / 2**20:.0f}"
        )
    return directory


def choose_precision(requested: str) -> str:
    """ "auto" becomes bf16 where the hardware computes in it, fp16 on an older GPU, or "no"."""
    if requested == "fp16" and not torch.cuda.is_available():  # accelerate would ignore it
        raise ValueError("mixed_precision='fp16' is not allowed without a CUDA GPU: 'no' or 'bf16'")
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    probes = (
        getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile")
    )
    return "bf16" if any(probe() for probe in probes) else "no"


@contextlib.contextmanager
def lock(directory: Path, needed: bool) -> Iterator[None]:
    """Let one training at a time write to `directory`. Raises `OSError` for a second one."""
    if not needed:  # not the process that writes
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / LOCK_NAME, timeout=0):
            remove_leftovers(directory)
            yield
    except Timeout as error:
        raise OSError(f"run_dir={str(directory)!r} is in use by another training") from error


@contextlib.contextmanager
def interrupts(processes: int) -> Iterator[list[int]]:
    """A list that an interrupt (Ctrl-C) makes non-empty; a second interrupt stops at once.

    With several processes, which could not agree on a step, and outside of the main thread, which
    alone gets signals, an interrupt stops at once, as always.
    """
    asked: list[int] = []
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream is decided by `key`, independent of any other key's."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))
