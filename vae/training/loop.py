"""The loop of every training: a subclass of `Loop` says what is trained, by which step."""

import contextlib
import copy
import time
import zlib
from collections.abc import Hashable
from dataclasses import asdict
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from vae_store import checkpoint
from vae_store.environment import describe_environment
from vae_store.files import FileError
from vae_store.folder import lock
from vae_store.graphs import StepGraphs
from vae_store.interrupts import interrupts
from vae_store.pace import Pace
from vae_store.progress import Bar
from vae_store.settings import REMEDY, check_same_settings

from .machine import Machine, seeded_generator, send
from .optimizer import Muon, one_cycle, update_average

CHECKPOINT_SECONDS = 60  # at most between two checkpoints, give or take a step
MOST_MEASURED = 25  # epochs after which to measure
LOG_EVERY = 20  # steps between two looks at the losses; each look waits for the device
SHOWN = ("mse", "perceptual", "kl", "generator", "discriminator", "loss")  # beside the bar


class Loop:
    """One training. Order and noise depend on the seed and the step alone.

    So any number of processes sees the same batches, and a training that was cut off goes on as if
    it had never stopped. A subclass calls `prepare`, and defines `select` and `draw`, which make a
    batch; `training_step`, which ends in the optimiser's step; `measure`; and `finish`. If it has
    steps that are `noted`, it also defines `note`.
    """

    what, remedy = "training", REMEDY  # said of one that was cut off
    checkpoint_name = checkpoint.CHECKPOINT_NAME
    early: set[int] = frozenset()  # steps after which to measure, beside an epoch's end
    noted: set[int] = frozenset()  # steps after which to note something for the pictures
    kind: Hashable = ()  # of the step: what decides, beside its batch, what it computes

    def __init__(self, config, directory: Path, machine: Machine, *data: Tensor):
        """`data`: all that is learned from and measured on, the training images first.

        Raises `ValueError` for a batch size that does not fit.
        """
        count = len(data[0])
        if config.batch_size > count or config.batch_size % machine.num_processes:
            of, most = f"the {machine.num_processes} processes", f"the {count} training images"
            given = f"batch_size={config.batch_size} is not allowed"
            raise ValueError(f"{given}: a multiple of {of}, and at most {most}")
        self.config, self.directory, self.machine = config, directory, machine
        self.count, self.device, self.step = count, machine.device, 0
        self.steps_per_epoch = count // config.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self.measured_every = self.steps_per_epoch * ceil(config.epochs / MOST_MEASURED)
        self.schedule = one_cycle(config.warmup, self.total_steps)
        self.memory: dict[str, Tensor] = {}  # what a step leaves for the next
        if config.cuda_graphs and not machine.replays:
            given = f"mixed_precision={machine.mixed_precision!r} on {machine.device}: one CUDA GPU"
            raise ValueError(f"cuda_graphs=True is not allowed with {given}, and 'bf16' or 'no'")
        self.graphs = StepGraphs(self.memory) if config.cuda_graphs else None
        self.order_epoch, self.log = -1, Log()
        self.metrics = {"config": asdict(config), "data": checksum(data),
                        "environment": describe_environment(machine),
                        "history": {"train": [], "test": []}}  # fmt: skip

    def prepare(self, modules: dict[str, nn.Module], rates: dict[str, float]) -> list:
        """Give each module an optimiser, of the names and learning rates in `rates`.

        The first one's average is the result, and its learning rate is scheduled. Returns modules,
        then optimisers, as several processes share them.
        """
        self.averaged = next(iter(modules.values()))
        self.ema = copy.deepcopy(self.averaged).eval().requires_grad_(False)
        pairs = zip(modules.values(), rates.values(), strict=True)
        optimizers = [self.optimizer_for(module, rate) for module, rate in pairs]
        self.modules, self.scheduled = modules | {"ema": self.ema}, optimizers[0]
        self.optimizers = dict(zip(rates, optimizers, strict=True))
        self.peaks = [group["lr"] for group in self.scheduled.param_groups]
        if self.graphs:  # which take no numbers that change
            for group in (group for one in optimizers for group in one.param_groups):
                rate = torch.tensor(group["lr"], dtype=torch.float32, device=self.device)
                group |= {"capturable": True, "lr": rate}
        return list(self.machine.prepare(*modules.values(), *optimizers))

    def optimizer_for(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        return Muon(module, rate, self.config.weight_decay)

    def fit(self) -> bool:
        """Train, with evaluations and checkpoints on the way; False if it was interrupted."""
        with interrupts(self.machine.num_processes) as asked, self.log.progress(self):
            saved = time.perf_counter()
            while self.step < self.total_steps:
                self.optimize()
                noted = self.step in self.noted
                measured = self.step % self.measured_every == 0 or self.step == self.total_steps
                measured = measured or self.step in self.early
                if noted or measured or len(self.log.recent) == LOG_EVERY:
                    self.log.look(self)
                if noted or measured:
                    if self.machine.is_main_process:
                        if noted:
                            self.note()
                        if measured:
                            self.measure()
                    self.machine.wait_for_everyone()
                    self.log.clock = time.perf_counter()
                if measured or asked or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    save(self)
                    saved = time.perf_counter()
                if asked:
                    self.metrics["interrupted"] = self.step
                    return False
        return True

    def optimize(self) -> None:
        """A step on the next batch, at the learning rate of the schedule; then the average."""
        started = time.perf_counter()
        for group, peak in zip(self.scheduled.param_groups, self.peaks, strict=True):
            rate = peak * self.schedule(self.step)
            group["lr"] = group["lr"].fill_(rate) if self.graphs else rate
        step, batch = self.training_step, self.next_batch()
        terms = self.graphs(self.kind, step, batch) if self.graphs else step(*batch)
        if self.log.recent and self.log.recent[0].keys() != terms.keys():
            self.log.look(self)  # from here on there are other terms
        self.log.recent.append({name: value.detach() for name, value in terms.items()})
        update_average(self.ema, self.averaged, self.config.ema_decay, self.step)
        self.step += 1
        self.log.bar.update()
        self.log.pace.note(time.perf_counter() - started)

    def next_batch(self) -> tuple:
        """This process's part of the current step's batch: what `select` gives, then `draw`."""
        size, seed = self.config.batch_size, self.config.seed
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            order = torch.randperm(self.count, generator=seeded_generator(seed, 0, epoch))
            self.order, self.order_epoch = send(order, self.device), epoch
        index = self.order[position * size :][:size]
        drawn = self.draw(size, seeded_generator(seed, 1, self.step))
        return *self.select(self.machine.deal(index)), *map(self.machine.deal, drawn)

    def place(self) -> dict:
        """Where the training stands: what each row of the history begins with."""
        return {"step": self.step, "epoch": self.step / self.steps_per_epoch}

    def keep(self, split: str, row: dict) -> None:
        """Add a row to the history of "train" or "test", and tell it to a tracker."""
        self.metrics["history"][split].append(row)
        self.machine.log({f"{split}/{k}": v for k, v in row.items() if k != "step"}, self.step)

    def check_saved(self, metrics: dict) -> None:
        """Raise `ValueError` for a checkpoint of other settings or other data."""
        place = f"run_dir={self.directory}, whose {self.what} was cut off,"
        check_same_settings(metrics["config"], self.config, place, self.remedy)
        if metrics.get("data", self.metrics["data"]) != self.metrics["data"]:
            raise ValueError(f"{place} saw other data than there is now (data_root): {self.remedy}")

    def record(self) -> dict[str, Tensor]:
        """What else a checkpoint keeps."""
        return {}

    def take_record(self, tensors: dict[str, Tensor]) -> None:
        """Take back, from a checkpoint's tensors, what `record` gave."""


def checksum(data: tuple[Tensor, ...]) -> str:
    """CRC-32 of some tensors' bytes, by which a resumed training knows its data again."""
    found = 0
    for tensor in data:
        found = zlib.crc32(tensor.cpu().contiguous().numpy(), found)
    return f"{found:08x}"


class Log:
    """The terms of the last steps, the clock, and the progress bar."""

    def __init__(self):
        self.recent: list[dict[str, Tensor]] = []  # terms of the steps since the last look
        self.seconds, self.clock = 0.0, 0.0  # of training so far, and when it went on
        self.bar, self.pace = Bar(disable=True), Pace()

    def progress(self, loop: Loop) -> Bar:
        """A bar over all steps; the clock starts."""
        self.clock, hidden = time.perf_counter(), not loop.machine.is_main_process
        self.bar = Bar(initial=loop.step, total=loop.total_steps, unit="step", disable=hidden)
        return self.bar

    def look(self, loop: Loop) -> None:
        """Average the terms into the history; `FloatingPointError` if one is not finite."""
        names = list(self.recent[0])
        values = torch.stack([torch.stack([terms[n] for n in names]) for terms in self.recent])
        values = loop.machine.mean(values.float()).cpu()
        for row, column in (~values.isfinite()).nonzero().tolist():
            raise FloatingPointError(
                f"{names[column]} is {values[row, column].item()} at step "
                f"{loop.step - len(values) + row + 1}; the last checkpoint is in {loop.directory}. "
                "Try a lower learning_rate, or mixed_precision='no', in another run_dir."
            )
        elapsed = time.perf_counter() - self.clock
        speed = len(self.recent) * loop.config.batch_size / elapsed
        row = loop.place() | dict(zip(names, values.mean(0).tolist(), strict=True))
        loop.keep("train", row | {"images_per_second": speed})
        progress = f"epoch {row['epoch']:.2f}/{loop.config.epochs}, {speed:.0f} images/s"
        self.bar.set_description(progress)
        self.bar.set_postfix({name: f"{row[name]:.3g}" for name in SHOWN if name in row})
        if said := self.pace.advice(elapsed / len(self.recent)):
            self.bar.say(said)
        self.recent.clear()
        self.seconds, self.clock = self.seconds + elapsed, time.perf_counter()


def complete(loop: Loop, resume: bool) -> bool:
    """Go on where a checkpoint is, if `resume`; train; finish. False if it was interrupted.

    Raises `ValueError` for a checkpoint that may not be used, `OSError` beside another training.
    """
    path, writes = loop.directory / loop.checkpoint_name, loop.machine.is_main_process
    with lock(loop.directory, writes):
        there = path.is_file()
        loop.machine.wait_for_everyone()
        if there and not resume:
            held = f"run_dir={str(loop.directory)!r} holds a {loop.what} that was cut off"
            raise ValueError(f"{held}: resume it (resume=True, --resume), or {loop.remedy}")
        started = loop.log.clock = time.perf_counter()
        restore(loop) if there else save(loop)  # a folder that takes no checkpoint is found out now
        alone = loop.device.type == "cpu" and loop.machine.num_processes == 1
        if alone and loop.log.pace.measure(lambda: loop.training_step(*loop.next_batch())):
            restore(loop)  # as if those steps had never been
        loop.machine.track(loop.config.log_with, loop.directory, asdict(loop.config))
        if (finished := loop.fit()) and writes:
            loop.finish(started)
            with contextlib.suppress(OSError):
                path.unlink()
        for tracker in loop.machine.trackers:
            tracker.finish()
        loop.machine.wait_for_everyone()
        return finished


def save(loop: Loop) -> None:
    """Write a checkpoint from which to go on. Each process comes by its own clock: none waits."""
    started, log, scaler = time.perf_counter(), loop.log, loop.machine.scaler
    if loop.machine.is_main_process:
        tensors = checkpoint.gather(loop.modules, loop.optimizers, log.recent)
        state = loop.place() | {
            "metrics": loop.metrics,
            "recent": list(log.recent[0]) if log.recent else [],  # their mean depends on the order
            "training_seconds": log.seconds + started - log.clock,
            "scaler": scaler.state_dict() if scaler else None,
        }
        path = loop.directory / loop.checkpoint_name
        checkpoint.save_checkpoint(path, tensors | loop.memory | loop.record(), state)
    log.clock += time.perf_counter() - started  # that was no training


def restore(loop: Loop) -> None:
    """Go back to the folder's checkpoint. `ValueError`: other settings; `FileError`: damage."""
    path, log = loop.directory / loop.checkpoint_name, loop.log
    tensors, state = checkpoint.load_checkpoint(path)
    loop.check_saved(state["metrics"])
    if state["step"] > loop.total_steps:
        raise FileError(f"{path}: step {state['step']} of {loop.total_steps} is not possible")
    try:
        recent = checkpoint.scatter(tensors, loop.modules, loop.optimizers, state.get("recent", []))
        log.recent = [{k: v.to(loop.device) for k, v in terms.items()} for terms in recent]
        loop.memory.update({k: tensors[k].to(loop.device) for k in loop.memory})
        loop.take_record(tensors)
        if loop.machine.scaler:
            loop.machine.scaler.load_state_dict(state["scaler"])
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} does not fit this training: {error!r}") from error
    here = ("config", "environment")  # data and machine may be others
    loop.metrics = state["metrics"] | {name: loop.metrics[name] for name in here}
    loop.step = state["step"]
    log.seconds = state["training_seconds"]
