"""Steps as CUDA graphs: on a GPU where there is one, else by kernels that the CPU records."""

import pytest
import torch
from recorded import recorded
from test_devices import TRAININGS, begin

import vae
from vae import step
from vae.machinery.cli import main


def weights(training):
    """All in one; but a bias before a norm has no gradient other than rounding."""
    named = training.averaged.named_parameters()
    return torch.cat([p.detach().flatten() for name, p in named if not name.endswith("up.bias")])


@pytest.mark.parametrize("name", [*TRAININGS, "1x1, coupled"])
def test_steps_that_are_replayed_do_what_steps_do(name, folder, monkeypatch):
    if name == "sharpen" and not torch.cuda.is_available():
        pytest.skip("PyTorch's Adam takes no changing learning rate on a CPU")
    monkeypatch.setattr(step, "CODES", 64)  # of which a batch brings 32
    plain, seen = begin(name, folder), []
    start = weights(plain)
    with recorded():
        replayed = begin(name, folder, cuda_graphs=True)
        for number in range(12):  # the third of each variant is the first that is replayed
            plain.take_step()
            replayed.take_step()
            ours, theirs = replayed.log.recent[-1], plain.log.recent[-1]
            assert ours.keys() == theirs.keys()
            seen.append({term: value.item() for term, value in ours.items()})
            for term, value in theirs.items():
                message = f"{term} of step {number}"
                assert ours[term].item() == pytest.approx(value.item(), rel=0.02, abs=5e-3), message
    variants = {"prior": 1, "sharpen": 2}.get(name, 3)
    assert len(replayed.graphs.recorded) == variants
    recent = [{term: v.item() for term, v in row.items()} for row in replayed.log.recent]
    assert recent == seen[-len(recent) :]
    there, here = weights(plain), weights(replayed)
    assert (there - here).norm() < 0.05 * (there - start).norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_are_none(tmp_path, capsys):
    flags = ["--budget", "tiny", "--run-dir", str(tmp_path / "run")]
    assert main(["train", "--cuda-graphs", *flags]) == 2
    message = "cuda_graphs=True is not allowed with 1 processes on cpu: one CUDA GPU"
    assert message in capsys.readouterr().err
    assert not vae.TrainConfig().cuda_graphs
