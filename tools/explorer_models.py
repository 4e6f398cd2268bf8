"""Write what the page in `explorer/` loads: the models of `assets/`, ten digits, the decoded plane.

    python tools/explorer_models.py

`assets/explorer.json`, which `tools/results.py` writes, lists the models. A weight is stored
as a whole number of its channel's steps, and computed with in float32 (docs/architecture.md). The
files are in the repository, and are made again when a model, or this code, has changed.
"""

import base64
import copy
import gzip
import io
import itertools
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import ASSETS, JUDGE, ROOT, Part, fingerprint, read_json
from PIL import Image
from torch import Tensor, nn

from vae import VAE, Judge, LatentPrior, VAEConfig, load_digits, mse, scale_images
from vae.couplings import Couplings
from vae.machinery import onnx_export
from vae.machinery.folder import METRICS_NAME
from vae.machinery.onnx_export import Part as File
from vae.pretrained import sha256, write_atomically, write_json
from vae.settings import from_saved

OUT = ROOT / "explorer" / "public" / "models"
LIST, INDEX = ASSETS / "explorer.json", "index.json"
# From 0 to a channel's largest weight; on a grid, where errors are least. With 80 for all, single
# MSEs were up to 31% off.
STEPS, FINE = 230, 350
LEAST = 512  # weights of a tensor that is rounded to them; smaller ones are kept in float16
USED = VAE.config_name, VAE.weights_name, LatentPrior.config_name, LatentPrior.weights_name
SIDE, EXTENT = 25, 3.0  # images along the plane's edge; where it ends, in standard deviations
DOTS = 1000  # test digits on the plane


class Encode(File):
    """`image` to the encoder's Gaussian: `mean` and `logvar`, (N, C, G, G); without couplings."""

    def forward(self, image: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gaussian = self.network.encode(image, label).gaussian
        return gaussian.mean, gaussian.logvar


class Decode(File):
    """`code`, as couplings leave it, (N, C, G, G), to `image`, (N, 1, 28, 28) in [-1, 1]."""

    def forward(self, code: Tensor, label: Tensor | None = None) -> Tensor:
        return self.network.decoder(code, self.network.class_token(label, code.shape[0]))


class Couple(File):
    """Both ways: `code` to `latent` and `log_det`, and `z` to `u`; (N, C, 1, 1), log_det (N,)."""

    def forward(self, code: Tensor, z: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        token = self.network.class_token(label, code.shape[0])
        return *self.network.couplings.inverse(code, token), self.network.couplings(z, token)


class Read(File):
    """`image` to `logits`, (N, 10)."""

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


def models() -> dict[str, dict]:
    """The models that the page shows, by their folder in `assets/`, the fewest numbers first.

    They are those with one vector for a digit, of the conditional ones that which was trained with
    all terms, and the smallest of those with a grid; none of black and white digits.
    """
    found = {}
    for folder in sorted(ASSETS.iterdir()):
        metrics = read_json(folder / METRICS_NAME)
        settings = metrics.get("config", {})
        if settings.get("dataset") != "mnist" or "bernoulli" in settings["model"].values():
            continue
        config = from_saved(VAEConfig, settings["model"])
        sharp = settings["w_perceptual"] or settings["w_adversarial"] or "sharpen" in metrics
        terms = "all" if sharp else "kl"
        found[folder.name] = {
            "size": config.latent_size, "grid": config.latent_grid,
            "numbers": config.latent_values, "classes": config.num_classes,
            "terms": terms if config.variational else "plain",
        }  # fmt: skip
        if config.variational:  # in nats, of a test digit
            found[folder.name]["rate"] = round(metrics["test"]["kl"], 1)
    least = min(row["numbers"] for row in found.values() if row["grid"] > 1)
    shown = {name: row for name, row in found.items()
             if (row["grid"] == 1 or row["numbers"] == least)
             and (not row["classes"] or row["terms"] == "all")}  # fmt: skip
    return dict(sorted(shown.items(), key=lambda item: (item[1]["numbers"], item[0])))


def parts() -> list[Part]:
    """The list, made anew when a model came or went."""
    return [Part("explorer", lambda: read_json(LIST) == models(),
                 lambda: write_json(LIST, models()))]  # fmt: skip


def round_weights(network: nn.Module, steps: int = STEPS) -> nn.Module:
    """Round the weights, in place, to the values that the files hold."""
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and weight.numel() >= LEAST:
            largest = weight.data.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
            step = largest.clamp_min(1e-12) / steps
            weight.data = (weight.data / step).round() * step
        elif not name.startswith("couplings"):  # twelve maps in a row add up their errors
            weight.data = weight.data.half().float()
    return network


def pack(model: bytes) -> bytes:
    """An ONNX file with its rounded weights as whole numbers, which are scaled when it is loaded.

    They are as before, but for float32's last digit: what is no whole number of its channel's steps
    stays as it is.
    """
    import onnx

    whole = onnx.load_from_string(model)
    graph, kept, scaling = whole.graph, [], []
    for tensor in graph.initializer:
        found, name = split(onnx.numpy_helper.to_array(tensor)), tensor.name
        kept += [onnx.numpy_helper.from_array(part, f"{name}.{key}") for key, part in found.items()]
        scaling += restoring(name, found)
        kept += [] if found else [tensor]
    for field, values in (("initializer", kept), ("node", [*scaling, *graph.node])):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    onnx.checker.check_model(whole, full_check=True)
    return whole.SerializeToString()


def split(weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weights as (`low` + `base` * `high`) * `step`, channel by channel; {} if they are not so.

    Bytes apart are smaller in a zip. What float16 can hold is `low` alone.
    """
    if weights.dtype != np.float32 or weights.ndim == 0:
        return {}
    if np.array_equal(half := weights.astype(np.float16), weights):
        return {"low": half}
    for steps, axis in itertools.product((STEPS, FINE), range(weights.ndim)):
        others = tuple(other for other in range(weights.ndim) if other != axis)
        step = np.abs(weights).max(others, keepdims=True) / np.float32(steps)
        count = weights / np.where(step, step, 1)
        if weights.size >= LEAST and np.abs(count - count.round()).max() < 1e-3:
            count = count.round().astype(np.int16)
            low, high = (count & 255).astype(np.uint8), (count >> 8).astype(np.int8)
            return {"low": low, "high": high, "base": np.array(256, np.float32), "step": step}
    return {}


def restoring(name: str, parts: dict[str, np.ndarray]) -> list:
    """The nodes that make a weight of its `split` parts."""
    from onnx import TensorProto, helper

    node, cast = helper.make_node, partial(helper.make_node, "Cast", to=TensorProto.FLOAT)
    if "step" not in parts:
        return [cast([f"{name}.low"], [name])] * len(parts)
    return [
        cast([f"{name}.low"], [f"{name}.low.float"]),
        cast([f"{name}.high"], [f"{name}.high.float"]),
        node("Mul", [f"{name}.high.float", f"{name}.base"], [f"{name}.based"]),
        node("Add", [f"{name}.low.float", f"{name}.based"], [f"{name}.count"]),
        node("Mul", [f"{name}.count", f"{name}.step"], [name]),
    ]


def model_files(model: VAE, prior: LatentPrior | None) -> dict[str, bytes]:
    """A model's files, by what they do."""
    found = onnx_export.parts(model, prior)  # of which the prior is as it is there
    image, label = found["encoder"][1], found["decoder"][1].copy()
    z = label.pop("latent")
    bare = copy.deepcopy(model)
    bare.couplings = Couplings()
    found["encoder"] = Encode(bare), image, ["mean", "logvar"]
    found["decoder"] = Decode(model), {"code": z} | label, ["image"]
    if len(model.couplings):
        both = {"code": z, "z": z.clone()} | label  # one tensor would be taken for one input
        found["couplings"] = Couple(model), both, ["latent", "log_det", "u"]
    return {name: pack(onnx_export.to_onnx(*part)) for name, part in found.items()}


def load(folder: Path) -> tuple[VAE, LatentPrior | None]:
    """A model and its learned prior, if it has one, with weights as the page has them."""
    model, prior = VAE.from_pretrained(folder), None
    steps = FINE if model.config.latent_grid > 1 else STEPS
    if (folder / LatentPrior.weights_name).is_file():
        prior = round_weights(LatentPrior.from_pretrained(folder), steps)
    return round_weights(model, steps), prior


def plane(model: VAE) -> tuple[bytes, dict]:
    """The plane of two numbers, decoded, as a PNG; its edges, and where test digits lie on it."""
    images, labels = load_digits("test")
    parts = scale_images(images).split(1000)
    codes = torch.cat([model.encode(part).mean.flatten(1) for part in parts])
    if model.config.variational:
        edges = torch.tensor([[-EXTENT, EXTENT]] * 2)
    else:  # nothing holds the codes near N(0, I)
        edges = codes.quantile(torch.tensor([0.005, 0.995]), dim=0).T
    across, down = (torch.linspace(*edge.tolist(), 2 * SIDE + 1)[1::2] for edge in edges)
    z = torch.stack(torch.meshgrid(across, down.flip(0), indexing="xy"), -1).view(-1, 2, 1, 1)
    tiles = model.decode(z).view(SIDE, SIDE, 28, 28).permute(0, 2, 1, 3).reshape(SIDE * 28, -1)
    picture = Image.fromarray(((tiles + 1) * 127.5).round().byte().numpy()).quantize(16)
    picture.save(buffer := io.BytesIO(), "PNG", optimize=True)
    codes, labels = codes[:DOTS].tolist(), labels[:DOTS].tolist()
    dots = [[round(x, 2), round(y, 2), label] for (x, y), label in zip(codes, labels, strict=True)]
    return buffer.getvalue(), {"edges": edges.tolist(), "side": SIDE, "dots": dots}


@torch.no_grad()
def rounding(folder: Path, images: int) -> dict[str, float]:
    """The effect of rounding on a model's reconstructions of the first test digits.

    They are the mean absolute difference, of 2 from black to white; the largest change of an MSE
    but for one in a hundred, as a share; and how many digits of which the judge was certain change.
    """
    digits, reader = load_digits("test"), Judge.from_pretrained()
    x, labels = scale_images(digits.images[:images]), digits.labels[:images]
    both = VAE.from_pretrained(folder), load(folder)[0]
    told = labels if both[0].config.num_classes else None
    before, after = (model.decode(model.encode(x, told).mean, told) for model in both)
    chances, read = reader(before).softmax(1), reader(after).argmax(1)
    return {
        "difference": (before - after).abs().mean().item(),
        "mse": (mse(x, after) / mse(x, before) - 1).abs().quantile(0.99).item(),
        "changed": ((chances.argmax(1) != read) & (chances.amax(1) > 0.9)).sum().item(),
    }


def keep(content: bytes, ending: str = "onnx.gz") -> dict:
    """Write a file under the name of its content, so that what two models share is one file."""
    content = gzip.compress(content, 9, mtime=0) if ending == "onnx.gz" else content
    name = f"{sha256(content)[:12]}.{ending}"
    write_atomically(OUT / name, content)
    return {"file": name, "bytes": len(content)}


@torch.no_grad()
def describe(name: str) -> dict:
    """Write a model's files. Returns what the index says of it, beside its row of the list."""
    print(name, flush=True)
    model, prior = load(ASSETS / name)
    config = model.config
    files = {k: keep(v) for k, v in model_files(model, prior).items()}
    found = {"posterior": config.posterior, "files": files}
    if prior:
        found["prior"] = {"steps": prior.config.steps, "guidance": prior.config.guidance}
    if config.latent_values == 2 and not config.num_classes:
        picture, about = plane(model)
        dots = json.dumps(about, separators=(",", ":")).encode()
        found["plane"] = keep(picture, "png") | {"about": keep(dots, "json")}
    if not config.variational:  # latents lie anywhere: where those of test digits do
        z = model.encode(scale_images(load_digits("test").images[:DOTS])).mean.flatten(1)
        found |= {"mean": z.mean(0).tolist(), "std": z.std(0).tolist()}
    return found


def write(listed: dict[str, dict]) -> dict:
    """Write all files. Returns the index."""
    rows = [{"name": name} | row | describe(name) for name, row in listed.items()]
    images, labels = load_digits("test")
    first = [images[(labels == digit).nonzero()[0, 0]] for digit in range(10)]
    digits = [base64.b64encode(image.numpy().tobytes()).decode() for image in first]
    judge = Read(round_weights(Judge.from_pretrained()))
    read = onnx_export.to_onnx(judge, {"image": torch.zeros(2, 1, 28, 28)}, ["logits"])
    return {"judge": keep(pack(read)), "digits": digits, "models": rows}


def main() -> None:
    listed, code = read_json(LIST), [Path(__file__), Path(onnx_export.__file__)]
    used = [path for name in listed for file in USED if (path := ASSETS / name / file).is_file()]
    made_of = fingerprint(*code, LIST, JUDGE, *used)
    if read_json(OUT / INDEX).get("made_of") == made_of:
        print(f"{OUT} is of these models already")
        return
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    write_json(OUT / INDEX, {"made_of": made_of} | write(listed), indent=None)


if __name__ == "__main__":
    main()
