"""A run as ONNX files, which run without PyTorch: in onnxruntime, or in a web page.

Numbers are float32 and labels int64; the size of a batch, N, is free. A model that is not
conditional takes no `label`. What a file takes and gives stands in its class below, and in itself.
"""

import contextlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from vae_store.files import FileError, as_path, write_atomically

from .model import VAE
from .prior import LatentPrior

SUBFOLDER = "onnx"  # of a run
OPSET = 18  # that of PyTorch's own translations: any other is converted from it, which can fail


class Part(nn.Module):
    """What one file computes by a network."""

    def __init__(self, network: VAE | LatentPrior):
        super().__init__()
        self.network = network


class Encode(Part):
    """`image`, (N, channels, H, W) in [-1, 1], to `mean` and `logvar`, (N, C, G, G), of q(z|x).

    A draw is z = mean + exp(logvar / 2) * noise, and the KL from N(0, I), in nats, the sum of
    (mean^2 + exp(logvar) - 1 - logvar) / 2. Where the posterior is coupled, there is a third
    output, `u`: then q is a Gaussian of u, with this mean and with `logvar`, and `mean` is the z
    of `u`. couplings.onnx makes z of a draw of u, and has the KL. Of a plain autoencoder, `logvar`
    is -inf.
    """

    def forward(self, image: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = self.network.encode(image, label)
        u = posterior.gaussian
        return posterior.mean, u.logvar, *([] if u is posterior else [u.mean])


class Uncouple(Part):
    """`u`, (N, C, 1, 1), to `latent`, its z, and `log_det`, (N,), which is log |det dz/du|.

    Of a draw of u, the KL of q(z|x) from N(0, I) is |z|^2 / 2 - log_det - sum(1 + logvar) / 2, in
    nats, with the encoder's `logvar`. It is not biased.
    """

    def forward(self, u: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.network.couplings.inverse(u, self.network.class_token(label, u.shape[0]))


class Decode(Part):
    """`latent`, (N, C, G, G), to `image`, (N, channels, H, W) in [-1, 1]."""

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.network.decode(latent, label)


class Velocity(Part):
    """`latent`, (N, C, G, G), at `t`, (N,) in [0, 1], to its `velocity`; `mean`, `std`: constants.

    A draw begins at t = 0 as N(0, I) and follows the velocity to t = 1, by Heun's method say.
    From where it ends, the decoder takes latent * std + mean. `label`, (N,): the digit wanted, or
    num_classes for any. With guidance w, the velocity is v(any) + w * (v(label) - v(any)).
    """

    def forward(self, latent: Tensor, t: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prior = self.network
        return prior(latent, t, label), prior.mean.clone(), prior.std.clone()


def export_onnx(directory: str | Path, out: str | Path | None = None) -> list[Path]:
    """Write a run as ONNX files; returns their paths.

    They are encoder.onnx and decoder.onnx, couplings.onnx where the posterior is coupled, and
    prior.onnx where the run has a learned prior. `directory`: the run's; `out`: theirs, `onnx/` in
    it if None. Each is written in one step, and none before all are made.

    Raises `FileError` (a `ValueError`) as `from_pretrained` does, and `ValueError` where what it
    takes to write ONNX is not installed.
    """
    directory = as_path(directory)
    out = directory / SUBFOLDER if out is None else as_path(out, "out")
    for name in ("onnx", "onnxscript"):
        try:
            import_module(name)
        except ImportError as error:
            how = "pip install onnx onnxscript onnxruntime, or this package's extra `export`"
            raise ValueError(f"an export needs {name}, which is not installed: {how}") from error
    model, prior = VAE.from_pretrained(directory), None
    if (path := directory / LatentPrior.config_name).is_file():
        prior = LatentPrior.from_pretrained(directory)
        if prior.latent_shape != model.config.latent_shape:
            raise FileError(f"{path} is of other latents than {directory / VAE.config_name}")
    out.mkdir(parents=True, exist_ok=True)
    made = {out / f"{name}.onnx": to_onnx(*part) for name, part in parts(model, prior).items()}
    for path, content in made.items():
        write_atomically(path, content)
    return list(made)


def parts(model: VAE, prior: LatentPrior | None) -> dict[str, tuple]:
    """The arguments of `to_onnx`, by the files' names."""
    image, z = torch.zeros(2, *model.config.image_shape), torch.zeros(2, *model.config.latent_shape)
    digit = {"label": torch.zeros(2, dtype=torch.int64)}
    label = digit if model.config.num_classes else {}
    gaussian = ["mean", "logvar"]
    found = {"decoder": (Decode(model), {"latent": z} | label, ["image"])}
    if model.config.posterior == "coupled":
        gaussian.append("u")
        found["couplings"] = Uncouple(model), {"u": z} | label, ["latent", "log_det"]
    if prior is not None:
        at = {"latent": z, "t": torch.zeros(2)} | digit
        found["prior"] = Velocity(prior), at, ["velocity", "mean", "std"]
    return {"encoder": (Encode(model), {"image": image} | label, gaussian)} | found


def to_onnx(part: Part, inputs: dict[str, Tensor], outputs: list[str]) -> bytes:
    """A file's content. `inputs`: two of each, whose first dimension is the batch."""
    import onnx

    free = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    with quiet(), torch.no_grad():
        program = torch.export.export(part, (), inputs, dynamic_shapes=free, strict=False)
        how = {"opset_version": OPSET, "output_names": outputs, "optimize": True, "verbose": False}
        model = torch.onnx.export(program, (), dynamo=True, **how).model_proto
    graph, network = model.graph, part.network
    ends = *graph.input, *graph.output
    for one in (graph, *graph.node, *graph.initializer, *ends):
        one.ClearField("metadata_props")  # the lines of Python behind it, with this machine's paths
    graph.ClearField("value_info")  # shapes in between, in the exporter's letters
    for size in (size for end in ends for size in end.type.tensor_type.shape.dim):
        if size.dim_param:
            size.dim_param = "N"
    about = {"network": type(network).__name__, "config": json.dumps(asdict(network.config))}
    onnx.helper.set_model_props(model, about)
    model.doc_string = inspect.getdoc(part)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of its own progress. What fails still raises."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
