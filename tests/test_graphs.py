"""Steps as CUDA graphs: on a GPU where there is one, else by kernels that the CPU records."""

import contextlib
import warnings

import pytest
import torch
from helpers import TRAININGS, advance, begin_training, interrupt_at, make
from recorded import Graph, fuse, recorded
from torch.utils._python_dispatch import TorchDispatchMode

import vae
from vae import step
from vae.machinery import graphs, loop
from vae.machinery.cli import main
from vae.machinery.latents import fit_couplings


def weights(training):
    """All in one; but a bias before a norm has no gradient other than rounding."""
    named = training.averaged.named_parameters()
    return torch.cat([p.detach().flatten() for name, p in named if not name.endswith("up.bias")])


def plain(name, folder):
    """A training whose steps are not replayed, with the same form of Adam."""
    training = begin_training(name, folder, cuda_graphs=False)
    fuse(training.optimizers.values())
    return training


@pytest.fixture(autouse=True)
def few_codes(monkeypatch):
    """Two batches fill the queue: from then on a step's variants are few."""
    monkeypatch.setattr(step, "CODES", 32)


@pytest.mark.parametrize("name", [*TRAININGS, "1x1, coupled"])
def test_steps_that_are_replayed_do_what_steps_do(name, folder, monkeypatch):
    monkeypatch.setattr(graphs, "CHECKED", 0)
    alone, seen = plain(name, folder), []
    start = weights(alone)
    with recorded():
        replayed = begin_training(name, folder)
        for number in range(12):  # the third of each variant is the first that is replayed
            alone.take_step()
            replayed.take_step()
            ours, theirs = replayed.recent[-1], alone.recent[-1]
            assert ours.keys() == theirs.keys()
            seen.append({term: value.item() for term, value in ours.items()})
            for term, value in theirs.items():
                message = f"{term} of step {number}"
                assert ours[term].item() == pytest.approx(value.item(), rel=0.02, abs=5e-3), message
    assert len(replayed.graphs.recorded) == {"prior": 1, "sharpen": 2}.get(name, 3)
    recent = [{term: v.item() for term, v in row.items()} for row in replayed.recent]
    assert recent == seen[-len(recent) :]
    there, here = weights(alone), weights(replayed)
    assert (there - here).norm() < 0.05 * (there - start).norm()


@pytest.mark.filterwarnings("error:steps are not replayed")
@pytest.mark.parametrize("name", ["prior", "sharpen", "1x1, coupled", "plain", "bernoulli"])
def test_replays_pass_their_own_check_in_silence(name, folder):
    with recorded():
        training = advance(begin_training(name, folder), 12)
    assert training.graphs.active
    assert max(training.graphs.steps.values()) > graphs.CHECKED  # the next of this variant counts


def look_at_a_value(training):
    """As `print(loss.item())` in a step."""
    take = training.step_on

    def step_on(*batch):
        terms = take(*batch)
        next(iter(terms.values())).item()
        return terms

    training.step_on = step_on


def freeze_the_rate(training):
    """A learning rate that Python computes, and not the GPU."""
    optimizer = training.optimizer
    move = optimizer.step

    def move_at_a_number():
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, peak in zip(optimizer.param_groups, training.peaks, strict=True):
            group["lr"] = peak * training.schedule(training.steps_done)
        move()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    optimizer.step = move_at_a_number


def make_the_batch_anew(training):
    """A batch that Python builds lies in other memory every time."""
    take = training.step_on
    training.step_on = lambda x, *others: take(torch.tensor(x.tolist()), *others)


@pytest.mark.parametrize("fault", [look_at_a_value, freeze_the_rate, make_the_batch_anew])
def test_a_step_that_cannot_be_replayed_is_taken_as_ever_and_said_once(fault, folder):
    with recorded(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        alone, training = (begin_training("7x7, all four terms", folder) for _ in range(2))
        alone.graphs.active, start = False, weights(alone)
        for one in (alone, training):
            fault(one)
            advance(one, 12)
    assert len([one for one in said if "steps are not replayed as CUDA" in str(one.message)]) == 1
    assert not training.graphs.active
    there, here = weights(alone), weights(training)
    assert (there - here).norm() < 1e-3 * (there - start).norm()


@pytest.mark.filterwarnings("error:steps are not replayed")
@pytest.mark.parametrize("classes", [0, 10])
def test_the_fit_of_the_couplings_is_replayed(classes, tiny, monkeypatch):
    shape = {"latent_size": 4, "latent_grid": 1, "couplings": 2, "num_classes": classes}
    digits, found, replays = vae.load_digits("train"), [], []
    digits = vae.Digits(*(part[:64] for part in digits))
    replay = Graph.replay
    monkeypatch.setattr(Graph, "replay", lambda graph: replays.append(replay(graph)))
    for context in (contextlib.nullcontext(), recorded()):
        model = make(**shape, posterior="coupled").eval()
        start = [p.clone() for p in model.couplings.parameters()]
        with context:
            fit_couplings(model, digits, tiny(shape, learning_rate=3e-3), 12)
        found.append(torch.cat([p.flatten() for p in model.couplings.parameters()]))
    assert len(replays) == 11 or torch.cuda.is_available()
    moved = found[0] - torch.cat([p.flatten() for p in start])
    assert (found[0] - found[1]).norm() < 0.01 * moved.norm()


@pytest.mark.unix
def test_an_interrupt_and_a_resume_in_the_middle_of_replays(folder, monkeypatch, undrawn):
    name = "1x1, conditional"
    alone = plain(name, folder)
    start = weights(alone)
    advance(alone, 12)
    interrupt_at(monkeypatch, 7)
    with recorded():
        assert not loop.train(begin_training(name, folder, epochs=3), resume=False)
        training = begin_training(name, folder, epochs=3)
        assert loop.train(training, resume=True)
    assert training.graphs.recorded
    there, here = weights(alone), weights(training)
    assert (there - here).norm() < 0.05 * (there - start).norm()


def test_steps_are_replayed_on_one_gpu_if_nobody_says_otherwise(folder, tmp_path, capsys):
    with recorded():
        assert begin_training("prior", folder).graphs
        assert begin_training("prior", folder, cuda_graphs=False).graphs is None
    if not torch.cuda.is_available():
        assert begin_training("prior", folder).graphs is None
        flags = ["--budget", "tiny", "--run-dir", str(tmp_path / "run")]
        assert main(["train", "--cuda-graphs", *flags]) == 2
        message = "cuda_graphs=True is not allowed with 1 processes on cpu: one, on a CUDA GPU"
        assert message in capsys.readouterr().err


IDLE = ("empty", "_unsafe_view", "profiler::", "promote_types", "_local_scalar")  # no kernel
KERNELS = {  # of a GPU for an operation, by estimate, where it is not one
    "aten::convolution": lambda args: 1 + (args[2] is not None),  # and its bias
    "aten::convolution_backward": lambda args: sum(args[-1]),
    "aten::native_group_norm": lambda args: 4,  # with a copy to another order in memory
    "aten::native_group_norm_backward": lambda args: 7,  # with two
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": lambda args: 3,
}  # fmt: skip


class Counted(TorchDispatchMode):
    """Counts the kernels of a step."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        views = [one.alias_info for one in func._schema.returns if one.alias_info]
        is_view = any(not alias.is_write for alias in views)
        if not is_view and not any(name in func.name() for name in IDLE):
            self.count += KERNELS.get(func.name(), lambda _: 1)(args)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("options", "most"), [
    ({}, 1000), ({"w_perceptual": 0.0, "w_adversarial": 0.0}, 660)])  # fmt: skip
def test_a_step_has_few_kernels(options, most, tmp_path):
    few = {"epochs": 1, "adversarial_start": 0.0, "max_train_images": 32, "batch_size": 4}
    trainer = vae.Trainer(vae.TrainConfig(vae.VAEConfig(2), **few, **options), tmp_path)
    advance(trainer, 4)
    with Counted() as found:  # four, since one in four has LPIPS and R1
        advance(trainer, 4)
    assert found.count / 4 <= most
