"""Models as ONNX files: in onnxruntime they give what they give in PyTorch."""

import functools
import inspect
import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from common import ASSETS, ROOT
from helpers import make

import vae
from vae.data import gaussian
from vae.machinery import onnx_export
from vae.machinery.cli import main

RUNS = "latent_4", "coupled"  # shipped, with a small prior; coupled, with labels, and small
COUPLED = {"latent_size": 3, "latent_grid": 1, "couplings": 2, "num_classes": 10}
BARE = "coupled", "decoder"  # exported as `python -OO` does it


def without_docstring(part, getdoc=inspect.getdoc):
    return None if isinstance(part, onnx_export.Decode) else getdoc(part)


class File:
    """An ONNX file in onnxruntime, on one thread."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.about, self.path = self.session.get_modelmeta(), path
        self.config = json.loads(self.about.custom_metadata_map["config"])

    def __call__(self, **inputs):
        """Its outputs by their names, as tensors, of tensors."""
        arrays = {name: tensor.numpy() for name, tensor in inputs.items() if tensor is not None}
        names = [output.name for output in self.session.get_outputs()]
        found = map(torch.from_numpy, self.session.run(names, arrays))
        return SimpleNamespace(**dict(zip(names, found, strict=True)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of the runs."""
    return tmp_path_factory.mktemp("root") / "runs"


@pytest.fixture(scope="module")
def exported(root):
    """A function that gives a run's files, by their names; of the first, the command wrote them."""

    @functools.cache
    def export(name):
        if name == RUNS[1]:
            make(**COUPLED, posterior="coupled").save_pretrained(root / name)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(inspect, "getdoc", without_docstring)
                paths = map(str, vae.export_onnx(root / name))
        else:
            vae.VAE.from_pretrained(ASSETS / name).save_pretrained(root / name)
            prior = vae.LatentPrior(vae.PriorConfig(4, channels=16, blocks=1, steps=2))
            torch.nn.init.normal_(prior.conv_out.weight, std=0.1)
            prior.save_pretrained(root / name)
            with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as errors:
                assert main(["export", str(root / name)]) == 0
            assert errors.getvalue() == ""
            paths = said.getvalue().splitlines()
        out = root / name / "onnx"
        assert sorted(paths) == sorted(map(str, out.iterdir()))
        return {path.stem: File(path) for path in out.iterdir()}

    return export


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def given(folder, batch, digits):
    """A model in PyTorch, digits, their labels or None, and noise of the latent's shape."""
    model = vae.VAE.from_pretrained(folder)
    labels = vae.load_digits("test").labels[:batch] if model.config.num_classes else None
    noise = gaussian(batch, *model.config.latent_shape, generator=torch.Generator().manual_seed(1))
    return model, digits[:batch], labels, noise


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_a_file_gives_what_pytorch_gives(name, batch, exported, root, digits):
    files = exported(name)
    model, x, labels, noise = given(root / name, batch, digits)
    posterior = model.encode(x, labels)
    found = files["encoder"](image=x, label=labels)
    close(found.mean, posterior.mean)
    close(found.logvar, posterior.gaussian.logvar)
    for z in (noise, posterior.mean):
        close(files["decoder"](latent=z, label=labels).image, model.decode(z, labels))
    assert ("couplings" in files) == hasattr(found, "u") == (name != "latent_4")
    # a sample of the posterior, and its rate
    std, sizes = (found.logvar / 2).exp(), (1 + found.logvar).flatten(1).sum(1)
    if name == "latent_4":
        z = found.mean + std * noise
        squares = (found.mean.square() + found.logvar.exp()).flatten(1).sum(1)
        kl = (squares - sizes) / 2
        prior = vae.LatentPrior.from_pretrained(root / name)
        t, wanted = torch.linspace(0, 1, batch), torch.arange(10, 10 - batch, -1)  # and any class
        found = files["prior"](latent=noise, t=t, label=wanted)
        close(found.velocity, prior(noise, t, wanted))
        close((found.mean, found.std), (prior.mean, prior.std), tolerance=0)
    else:
        drawn = files["couplings"](u=found.u + std * noise, label=labels)
        z = drawn.latent
        kl = z.square().flatten(1).sum(1) / 2 - drawn.log_det - sizes / 2
    close(z, posterior.sample(noise))
    close(kl, posterior.kl(noise))


def test_a_digit_is_drawn_with_numpy_and_the_files_of_a_learned_prior(exported, root):
    files, folder = exported("latent_4"), root / "latent_4"
    model, prior = vae.VAE.from_pretrained(folder), vae.LatentPrior.from_pretrained(folder)
    labels = torch.tensor([2, 7, 4])
    expected = model.sample(3, labels, torch.Generator().manual_seed(5), prior)
    noise = gaussian(3, 4, 7, 7, generator=torch.Generator().manual_seed(5))
    run, about = files["prior"].session.run, files["prior"].config
    steps, any_class = about["steps"], np.full(3, about["num_classes"])

    def velocity(z, t):
        given = {"latent": z, "t": np.full(3, t, np.float32)}
        free, asked = (run(["velocity"], given | {"label": label})[0]
                       for label in (any_class, labels.numpy()))  # fmt: skip
        return free + about["guidance"] * (asked - free)

    z = noise.numpy()
    for step in range(steps):
        v = velocity(z, step / steps)
        z = z + (v + velocity(z + v / steps, (step + 1) / steps)) / (2 * steps)
    nothing = {"latent": z[:1], "t": np.zeros(1, np.float32), "label": any_class[:1]}
    mean, std = run(["mean", "std"], nothing)
    close(files["decoder"](latent=torch.from_numpy(z * std + mean)).image, expected)


def test_a_file_says_what_it_is_and_nothing_of_the_machine_that_wrote_it(exported, root):
    for name, files in ((name, exported(name)) for name in RUNS):
        model = vae.VAE.from_pretrained(root / name)
        for part, file in files.items():
            path, session = file.path, file.session
            assert not re.findall(rb"site-packages|\w+\.py\b", path.read_bytes())
            network = vae.LatentPrior.from_pretrained(root / name) if part == "prior" else model
            assert file.config == json.loads(json.dumps(asdict(network.config)))
            assert 0 < path.stat().st_size - size_of(part, network) < 2e5  # its own weights
            sizes = {one.name: one.shape for one in session.get_inputs()}
            for one in (*session.get_inputs(), *session.get_outputs()):
                if one.name != "label" and (name, part) != BARE:
                    assert f"`{one.name}`" in file.about.description, part
                assert one.shape[0] == "N" or one.name in ("mean", "std"), part
            if part == "decoder":
                assert sizes["latent"] == ["N", *model.config.latent_shape]
                assert ("label" in sizes) == bool(model.config.num_classes)


def size_of(part, network):
    """The bytes of the weights that a file needs."""
    used = {"couplings": ["couplings"], "prior": [""]}.get(part, [part, "couplings"])
    weights = [t for name in used for t in network.get_submodule(name).state_dict().values()]
    return sum(t.nbytes for t in weights)


def test_the_example_of_the_docs_runs(exported, monkeypatch):
    monkeypatch.chdir(exported("latent_4")["encoder"].path.parents[3])
    page = (ROOT / "docs" / "how-to.md").read_text("utf-8")
    [code] = [code for code in re.findall(r"```py\n(.*?)```", page, re.S) if "onnx" in code]
    assert len(code.strip().splitlines()) <= 12
    assert "torch" not in code
    exec(code, shown := {})
    assert np.abs(shown["image"] - shown["reconstruction"]).mean() < 0.05
    assert 100 < shown["kl"] < 10_000


def test_encode_and_decode_can_be_exported_with_a_free_batch(digits):
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make(**COUPLED).eval()

        def forward(self, x, labels):
            return self.model.decode(self.model.encode(x, labels).mean, labels)

    both, labels = Both(), torch.arange(10)
    how = {"dynamic_shapes": [{0: torch.export.Dim.DYNAMIC}] * 2, "strict": False}
    program = torch.export.export(both, (digits[:2], labels[:2]), **how).module()
    for n in (1, 5):
        close(program(digits[:n], labels[:n]), both(digits[:n], labels[:n]))
    with pytest.raises(ValueError, match="x has values from"):  # values are checked again
        both(torch.full((2, 1, 28, 28), torch.nan), labels[:2])


def test_what_cannot_be_exported_is_a_clear_error_and_leaves_no_file(folder, monkeypatch):
    def refused(message, error=vae.FileError, source=folder, out=None):
        with pytest.raises(error, match=message):
            vae.export_onnx(source, out)

    refused(r"^out='' is not allowed: a path", ValueError, out="")
    (folder / "file").write_text("mine")
    refused("file", OSError, out=folder / "file")
    assert (folder / "file").read_text() == "mine"
    vae.LatentPrior(vae.PriorConfig(4, channels=16)).save_pretrained(folder)
    refused(r"prior\.json is of other latents")
    (folder / "prior.safetensors").unlink()
    refused(r"prior\.safetensors does not exist")
    (folder / "config.json").write_text("{}")
    refused(r"model\.safetensors does not fit")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    refused(r"needs onnxscript.*pip install onnx", ValueError, ASSETS / "latent_2", folder / "out")
    assert not [*folder.rglob("*.onnx")]
