"""Train a peer's VAE for some seconds, in the peer's own environment.

    python -I tools/peer_worker.py pythae DATA FOLDER 250

Nothing of this project is imported, and nothing comes from the network. DATA holds `train.npy` and
`test.npy`, uint8 (N, 1, 28, 28). Left in FOLDER: `reconstructions.npy`, of every test image from
z ~ q(z|x), `draws.npy`, as many images decoded from N(0, I), both float32 as the model gives them,
and `report.json`. `tools/peers.py` starts this and measures what it leaves.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter as now

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 500  # images at once where nothing is learned
BETA = 0.1  # of the KL in the calibrated loss: that of our training with the same latent
KL_SCALE = 1e-6  # of diffusers' training script


@dataclass
class Peer:
    """A peer's model, and how its authors train it."""

    model: nn.Module
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]  # images: mean and logvar of q(z|x)
    decode: Callable[[Tensor], Tensor]  # latents: images
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]  # images, reconstructions, KL (B,): a scalar
    optimizer: torch.optim.Optimizer | None  # None: it has a trainer of its own
    batch_size: int
    latent_shape: tuple[int, ...]
    black: float  # in its images, whose white is 1
    clip_norm: float = math.inf
    falls: bool = False  # its learning rate, along half a cosine, to zero when the time is over


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, I)) in nats, summed over an image's latent: (B,)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def draw(mean: Tensor, logvar: Tensor) -> Tensor:
    """z ~ N(mean, exp(logvar)), reparameterised."""
    return mean + (0.5 * logvar).exp() * torch.randn_like(mean)


def calibrated_loss(x: Tensor, y: Tensor, kl: Tensor) -> Tensor:
    """(D/2 (log(2 pi MSE) + 1) + BETA KL) / D for D pixels."""
    pixels = x[0].numel()
    nll = pixels / 2 * (torch.log(2 * math.pi * F.mse_loss(y, x)) + 1)
    return (nll + BETA * kl.mean()) / pixels


def script_loss(x: Tensor, y: Tensor, kl: Tensor) -> Tensor:
    """That of diffusers' training script: squared error, summed over an image, + 1e-6 KL.

    Its LPIPS is computed without a gradient, and its discriminator begins at step 50,001: neither
    moves a weight here.
    """
    return F.mse_loss(y, x, reduction="sum") / len(x) + KL_SCALE * kl.mean()


def autoencoder_kl(loss: Callable, learning_rate: float, batch_size: int) -> Peer:
    """diffusers' `AutoencoderKL`, 2 channels on 7x7, with its training script's AdamW and cosine.

    Two blocks a level, as in Stable Diffusion's; the widths are those with which it has about as
    many parameters as ours.
    """
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, sample_size=28, layers_per_block=2,
        block_out_channels=(16, 32, 48), norm_num_groups=16,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    adamw = torch.optim.AdamW(model.parameters(), learning_rate)  # other defaults: the script's

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = model.encode(x).latent_dist
        return posterior.mean, posterior.logvar

    return Peer(model, encode, lambda z: model.decode(z).sample, loss, adamw, batch_size, (2, 7, 7),
                black=-1, clip_norm=1.0, falls=True)  # fmt: skip


def pytorch_example() -> Peer:
    """PyTorch's example (pytorch/examples, vae), written anew: binary cross-entropy, Adam, 128.

    Its network is 784 - 400 - 20 numbers - 400 - 784.
    """
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 2 * 20))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid(),
                            nn.Unflatten(1, (1, 28, 28)))  # fmt: skip
    model = nn.ModuleList([encoder, decoder])
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Peer(model, lambda x: encoder(x).chunk(2, dim=1), decoder,
                lambda x, y, kl: F.binary_cross_entropy(y, x, reduction="sum") + kl.sum(),
                adam, 128, (20,), black=0)  # fmt: skip


def pythae_vae() -> Peer:
    """pythae's VAE with its convolutional networks for MNIST, 16 numbers, and its default loss."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
    from pythae.trainers import BaseTrainerConfig

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16)
    model = VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        found = model.encoder(x)
        return found.embedding, found.log_covariance

    def loss(x: Tensor, y: Tensor, kl: Tensor) -> Tensor:
        return 0.5 * F.mse_loss(y, x, reduction="sum") / len(x) + kl.mean()

    return Peer(model, encode, lambda z: model.decoder(z).reconstruction, loss, None,
                BaseTrainerConfig().per_device_train_batch_size, (16,), black=0)  # fmt: skip


PEERS = {  # a row: the peer, made with the learning rate that is asked for, or its own
    "diffusers_calibrated": lambda rate: autoencoder_kl(calibrated_loss, rate or 1e-3, 32),
    "diffusers_script_loss": lambda rate: autoencoder_kl(script_loss, rate or 1e-3, 32),
    "diffusers_script": lambda rate: autoencoder_kl(script_loss, rate or 4.5e-6, 4),
    "pythae": lambda rate: pythae_vae(),
    "pytorch_example": lambda rate: pytorch_example(),
}


def in_range_of(peer: Peer, images: Tensor) -> Tensor:
    """uint8 images (B, 1, 28, 28) as the peer takes them, from its black to 1."""
    return images.float() / 255 * (1 - peer.black) + peer.black


def train(peer: Peer, images: Tensor, seconds: float, most: float) -> tuple[int, float]:
    """Train on uint8 images (N, 1, 28, 28): returns how many it saw, and the seconds that it took.

    It ends when the time is over, or after `most` images.
    """
    peer.model.train()
    (group,) = peer.optimizer.param_groups
    passes = (torch.randperm(len(images)).split(peer.batch_size) for _ in itertools.count())
    order, peak = itertools.chain.from_iterable(passes), group["lr"]
    seen, share, started = 0, 0.0, now()
    while share < 1:
        if peer.falls:
            group["lr"] = peak * (0.5 + 0.5 * math.cos(math.pi * share))
        x = in_range_of(peer, images[index := next(order)])
        mean, logvar = peer.encode(x)
        loss = peer.loss(x, peer.decode(draw(mean, logvar)), gaussian_kl(mean, logvar))
        peer.optimizer.zero_grad()
        loss.backward()
        if peer.clip_norm < math.inf:
            nn.utils.clip_grad_norm_(peer.model.parameters(), peer.clip_norm)
        peer.optimizer.step()
        seen += len(index)
        share = max((now() - started) / seconds, seen / most)
    return seen, now() - started


def train_with_pythae(peer: Peer, images: Tensor, seconds: float, most: float,
                      folder: Path) -> tuple[int, float, float]:  # fmt: skip
    """The same by pythae's own trainer with its defaults, and its learning rate."""
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Done(Exception):
        pass

    class Clock(TrainingCallback):
        started, seconds, seen = 0.0, 0.0, 0

        def on_train_begin(self, training_config, **kwargs):
            self.started = now()

        def on_train_step_end(self, training_config, **kwargs):
            self.seen += peer.batch_size
            self.seconds = now() - self.started
            if self.seconds >= seconds or self.seen >= most:
                raise Done

    passes = 10**6  # the clock ends it
    settings = BaseTrainerConfig(str(folder / "output"), no_cuda=True, num_epochs=passes)
    pipeline, clock = TrainingPipeline(model=peer.model, training_config=settings), Clock()
    with contextlib.suppress(Done):
        pipeline(train_data=in_range_of(peer, images).numpy(), callbacks=[clock])
    return clock.seen, clock.seconds, settings.learning_rate


@torch.no_grad()
def test(peer: Peer, images: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Reconstructions of uint8 images, as many draws, and the mean KL and loss."""
    peer.model.eval()
    torch.manual_seed(0)
    made, kl, losses = [], [], []
    for part in images.split(CHUNK):
        x = in_range_of(peer, part)
        mean, logvar = peer.encode(x)
        made.append(peer.decode(draw(mean, logvar)))
        kl.append(gaussian_kl(mean, logvar))
        losses.append(peer.loss(x, made[-1], kl[-1]).item())
    z = torch.randn(len(images), *peer.latent_shape)
    drawn = torch.cat([peer.decode(part) for part in z.split(CHUNK)])
    found = {"kl": torch.cat(kl).double().mean().item(), "loss": sum(losses) / len(losses)}
    return torch.cat(made), drawn, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(PEERS))
    parser.add_argument("data", type=Path, help="folder of train.npy and test.npy")
    parser.add_argument("folder", type=Path, help="of what is left")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--images", type=float, default=math.inf, help="most that it sees")
    parser.add_argument("--learning-rate", type=float, help="default: the peer's own")
    options = parser.parse_args()
    folder, until = options.folder, (options.seconds, options.images)
    train_set, test_set = (torch.from_numpy(np.load(options.data / f"{split}.npy"))
                           for split in ("train", "test"))  # fmt: skip
    torch.manual_seed(0)
    peer = PEERS[options.name](options.learning_rate)
    if peer.optimizer:
        rate = peer.optimizer.param_groups[0]["lr"]
        seen, seconds = train(peer, train_set, *until)
    else:
        seen, seconds, rate = train_with_pythae(peer, train_set, *until, folder)
    reconstructions, draws, found = test(peer, test_set)
    np.save(folder / "reconstructions.npy", reconstructions.numpy())
    np.save(folder / "draws.npy", draws.numpy())
    versions = {name: version(name) for name in ("diffusers", "pythae") if name in sys.modules}
    report = {
        "parameters": sum(p.numel() for p in peer.model.parameters()),
        "images": seen, "seconds": seconds, "batch_size": peer.batch_size, "learning_rate": rate,
        "black": peer.black, **found, "versions": versions | {"torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main()
