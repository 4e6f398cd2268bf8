"""The loop of every training: a subclass of `Loop` says what is trained, by which step."""

import copy
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..store.checkpoint import CHECKPOINT_NAME, gather, load_checkpoint, save_checkpoint, scatter
from ..store.files import FileError
from ..store.settings import check_same_settings
from .environment import describe_environment
from .machine import Machine, interrupts, seeded_generator
from .optimizer import Muon, one_cycle, update_average

CHECKPOINT_SECONDS = 60  # at most between two checkpoints, give or take a step
LOG_EVERY = 20  # steps between two looks at the losses; each look waits for the device


class Loop:
    """One training: order, noise, schedule, average, log, evaluations, checkpoints.

    Order and noise depend on the seed and the step alone, so that any number of processes sees the
    same batches, and a training that was cut off goes on as if it had never stopped.

    A subclass calls `prepare`, and defines `select` and `draw`, which make a batch of this
    process's part; `training_step`, which ends in the optimiser's step; `measure`; `finish`.
    """

    checkpoint_name = CHECKPOINT_NAME
    early: frozenset[int] = frozenset()  # steps after which to evaluate, beside an epoch's end

    def __init__(self, config, directory: Path, machine: Machine, count: int):
        """`config`: of the training; `count`: of the images. Raises `ValueError`."""
        self.config, self.directory, self.machine = config, directory, machine
        self.count, self.device = count, machine.device
        if config.batch_size > count or config.batch_size % machine.processes:
            raise ValueError(
                f"batch_size={config.batch_size} is not allowed: a multiple of the "
                f"{machine.processes} processes, and at most the {count} training images"
            )
        self.steps_per_epoch = count // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self.schedule = one_cycle(config.warmup, self.total_steps)
        self.step, self.order_epoch = 0, -1
        self.memory: dict[str, Tensor] = {}  # what a step leaves for the next
        self.recent: list[dict[str, Tensor]] = []  # terms of the steps since the last look
        self.training_seconds = self.clock = 0.0
        self.bar = tqdm(disable=True)
        self.metrics = {
            "config": asdict(config),
            "environment": describe_environment(
                machine.device, machine.precision, machine.processes
            ),
            "history": {"train": [], "test": []},
        }

    def prepare(self, modules: dict[str, nn.Module], rates: dict[str, float]) -> list:
        """Give each module an optimiser, of the names and learning rates in `rates`.

        The first is the one whose average is the result, and whose learning rate is scheduled.
        Returns the modules, then the optimisers, as several processes share them.
        """
        first = next(iter(modules.values()))
        self.ema = copy.deepcopy(first).eval().requires_grad_(False)
        optimizers = [
            Muon(module, rate, self.config.weight_decay)
            for module, rate in zip(modules.values(), rates.values(), strict=True)
        ]
        self.modules = modules | {"ema": self.ema}
        self.optimizers = dict(zip(rates, optimizers, strict=True))
        self.averaged, self.scheduled = first, optimizers[0]
        self.peaks = [group["lr"] for group in self.scheduled.param_groups]
        return list(self.machine.accelerator.prepare(*modules.values(), *optimizers))

    def fit(self) -> bool:
        """Train to the end, with evaluations and checkpoints; False if it was interrupted."""
        self.directory.mkdir(parents=True, exist_ok=True)
        options = {"initial": self.step, "total": self.total_steps, "unit": "step"}
        with (
            interrupts(self.machine.processes) as asked,
            tqdm(**options, disable=not self.machine.is_main) as self.bar,
        ):
            self.clock = saved = time.perf_counter()
            while self.step < self.total_steps:
                self.optimize()
                self.bar.update()
                measured = self.step % self.steps_per_epoch == 0 or self.step in self.early
                if measured or len(self.recent) == LOG_EVERY:
                    self.log_losses()
                if measured:
                    if self.machine.is_main:
                        self.measure()
                    self.machine.accelerator.wait_for_everyone()
                    self.clock = time.perf_counter()
                if measured or asked or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = time.perf_counter()
                if asked:
                    self.metrics["interrupted"] = self.step
                    return False
        return True

    def optimize(self) -> None:
        """A step on the next batch, at the learning rate of the schedule; then the average."""
        for group, peak in zip(self.scheduled.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.schedule(self.step)
        terms = self.training_step(*self.next_batch())
        if self.recent and self.recent[0].keys() != terms.keys():
            self.log_losses()  # from here on there are other terms
        self.recent.append({name: value.detach() for name, value in terms.items()})
        update_average(self.ema, self.averaged, self.config.ema_decay, self.step)
        self.step += 1

    def next_batch(self) -> tuple:
        """This process's part of the current step's batch: what `select` gives, then `draw`."""
        config = self.config
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            self.order_epoch = epoch
            generator = seeded_generator(config.seed, 0, epoch)
            self.order = torch.randperm(self.count, generator=generator).to(self.device)
        index = self.order[position * config.batch_size :][: config.batch_size]
        drawn = self.draw(config.batch_size, seeded_generator(config.seed, 1, self.step))
        return *self.select(self.machine.deal(index)), *map(self.machine.deal, drawn)

    def log_losses(self) -> None:
        """Average the terms since the last look into the history; stop if one is not finite."""
        names = list(self.recent[0])
        values = torch.stack([torch.stack([terms[n] for n in names]) for terms in self.recent])
        values = self.machine.mean(values.float()).cpu()
        self.check_finite(names, values)
        elapsed = time.perf_counter() - self.clock
        self.training_seconds += elapsed
        row = dict(zip(names, values.mean(0).tolist(), strict=True))
        row |= {"images_per_second": len(self.recent) * self.config.batch_size / elapsed}
        self.metrics["history"]["train"].append(self.place() | row)
        speed = f"{row['images_per_second']:.0f} images/s"
        self.bar.set_description(f"epoch {self.place()['epoch']:.2f}/{self.config.epochs}, {speed}")
        shown = ("mse", "perceptual", "kl", "generator", "discriminator", "loss")
        self.bar.set_postfix({name: f"{row[name]:.3g}" for name in shown if name in row})
        self.recent.clear()
        self.clock = time.perf_counter()

    def check_finite(self, names: list[str], values: Tensor) -> None:
        """Raise `FloatingPointError` for the first of the last steps' values that is not finite."""
        for row, finite in enumerate(values.isfinite()):
            if not finite.all():
                name, step = names[int(finite.int().argmin())], self.step - len(values) + row + 1
                raise FloatingPointError(
                    f"{name} is {values[row, names.index(name)].item()} at step {step}; the last "
                    f"checkpoint is in {self.directory}. Try a lower learning_rate, or "
                    "mixed_precision='no', in another run_dir."
                )

    def place(self) -> dict:
        """Where the training stands: what each row of the history begins with."""
        return {"step": self.step, "epoch": self.step / self.steps_per_epoch}

    def save(self) -> None:
        """Write a checkpoint: everything that `restore` needs to go on from this step.

        Nobody waits for anybody: each process has its own clock, by which it comes here.
        """
        started = time.perf_counter()
        if self.machine.is_main:
            tensors = gather(self.modules, self.optimizers, self.recent)
            scaler = self.machine.scaler
            state = {
                "step": self.step,
                "metrics": self.metrics,
                "recent": list(self.recent[0]) if self.recent else [],  # in this order
                "training_seconds": self.training_seconds + started - self.clock,
                "scaler": scaler.state_dict() if scaler else None,
            }
            path = self.directory / self.checkpoint_name
            save_checkpoint(path, tensors | self.memory | self.record(), state)
        self.clock += time.perf_counter() - started  # that was no training

    def restore(self) -> None:
        """Go back to the checkpoint in the folder.

        Raises `ValueError` for one of other settings, and `FileError` for one that is damaged.
        """
        path = self.directory / self.checkpoint_name
        tensors, state = load_checkpoint(path)
        self.check_saved(state["metrics"])
        if state["step"] > self.total_steps:
            raise FileError(f"{path}: step {state['step']} of {self.total_steps} is not possible")
        try:
            recent = scatter(tensors, self.modules, self.optimizers, state.get("recent", []))
            self.recent = [{k: v.to(self.device) for k, v in terms.items()} for terms in recent]
            self.memory = {name: tensors[name].to(self.device) for name in self.memory}
            self.take_record(tensors)
            if self.machine.scaler:
                self.machine.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
            raise FileError(f"{path} does not fit this training: {error!r}") from error
        self.metrics, self.step = state["metrics"], state["step"]
        self.training_seconds = state["training_seconds"]

    def check_saved(self, metrics: dict) -> None:
        """Raise `ValueError` for the metrics of a checkpoint of other settings."""
        place = f"run_dir={self.directory}, cut off,"
        check_same_settings(metrics["config"], self.config, place)

    def record(self) -> dict[str, Tensor]:
        """What else a checkpoint keeps."""
        return {}

    def take_record(self, tensors: dict[str, Tensor]) -> None:
        """Take back, from a checkpoint's tensors, what `record` gave."""
