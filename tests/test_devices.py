"""Other devices and precisions than a CPU's: tensors that lie elsewhere, as on a GPU."""

import pytest
import torch
from elsewhere import DEVICE, WAITS, Elsewhere, present
from helpers import TRAININGS, advance, begin_training

import vae
from vae.machinery import loop
from vae.machinery.latents import fit_couplings
from vae.machinery.machine import Machine


class Away(Machine):
    """A machine whose device is not the CPU."""

    def __init__(self, *precision):
        super().__init__(*precision)
        self.device = DEVICE


@pytest.mark.parametrize("name", TRAININGS)
def test_no_tensor_is_left_on_the_cpu(name, folder, unpainted):
    """All of it: steps, evaluations, frames, checkpoints, draws, figures that are not painted."""
    with present():
        few = {"epochs": 2, "max_train_images": 32}  # four steps, with a discriminator from 1 on
        training = begin_training(name, folder, Away, **few)
        training.take_step()
        loop.save(training)
        training = begin_training(name, folder, Away, **few)
        assert loop.train(training, resume=True)
        assert {type(p.data) for p in training.ema.parameters()} == {Elsewhere}
        terms = training.metrics["history"]["train"][-1]
        assert "generator" in terms or name == "prior"
        if name == "prior":
            prior, model = training.ema, training.vae
            assert type(model.sample(2, [3, 4], prior=prior)) is Elsewhere
        else:
            if name != "sharpen":  # whose first frame is of step 0
                assert len(training.recorder.frames.epochs) == 3  # of the steps from 1 on
            labels, model = 7 if name.startswith("1x1") else None, training.recorder.model
            assert type(model.sample(2, labels)) is Elsewhere
            images, digits = (part[:4] for part in training.recorder.test_set)
            found = vae.evaluate(model.train(), images, digits, lpips_images=2)
            bound = vae.importance_weighted_bound(model, images, 0.1, digits, samples=4)
            assert found["images"] == len(bound) == 4
            assert vae.active_units(model, images, digits) <= model.config.latent_values
            judged = vae.judge_images(images, digits, reference=images, neighbours=images)
            assert judged["nearest"] == 0


def test_a_tensor_that_is_left_on_the_cpu_is_noticed(folder, monkeypatch):
    with present():
        with pytest.raises(RuntimeError, match=r"tensors on lazy:0, and on the CPU of shape \[\(2"):
            torch.ones(2).to(DEVICE) + torch.ones(2)
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            torch.stack([torch.ones(()).to(DEVICE), torch.ones(())])
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            torch.ones(2)[torch.zeros(2, dtype=torch.int64).to(DEVICE)]
        with pytest.raises(TypeError, match="no float64"):
            torch.ones(2).double().to(DEVICE)
        monkeypatch.setattr(Away, "shard", lambda self, batch: batch)
        with pytest.raises(RuntimeError, match="on the CPU of shape"):
            begin_training("prior", folder, Away).take_step()


@pytest.mark.parametrize("name", [*TRAININGS, "1x1, coupled", "sharpen, conditional"])
def test_nothing_waits_for_the_device_between_two_looks_at_the_losses(name, folder):
    with present():
        training = begin_training(name, folder, Away)
        training.steps_done = 3  # the first step with all terms
        training.take_step()
        training.recent.clear()
        WAITS.clear()
        advance(training, 2)  # the first of a pass, with LPIPS and the penalty, and one without
        assert not WAITS
        training.write_row()
        assert len(WAITS) == 1


def test_nor_does_a_step_of_the_couplings(folder):
    with present():
        training, waits = begin_training("1x1, conditional", folder, Away), []
        for steps in (1, 3):
            WAITS.clear()
            fit_couplings(training.ema, training.train_set, training.config, steps)
            waits.append(len(WAITS))
    assert waits[0] == waits[1]


def test_a_wait_is_noticed():
    with present():
        x, picked = torch.ones(2).to(DEVICE), torch.ones(2)
        for wait in (
            x.sum().item, x.cpu, x.tolist, x.nonzero, lambda: bool(x.sum()), lambda: x[x > 0],
            lambda: picked.copy_(x), lambda: picked.to(DEVICE), lambda: x.unique(),
            lambda: picked.pin_memory().to(DEVICE), lambda: picked.to(DEVICE, non_blocking=True),
            lambda: x.masked_select(x > 0), lambda: torch.equal(x, x),
            lambda: x.index_put_((x > 0,), x.sum()),
        ):  # fmt: skip
            WAITS.clear()
            wait()
            assert len(WAITS) == 1, wait
        WAITS.clear()
        picked.pin_memory().to(DEVICE, non_blocking=True).clamp(0, 1).masked_fill(x > 0, 1)
        assert not WAITS
