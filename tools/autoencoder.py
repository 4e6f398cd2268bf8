"""Compare each variational autoencoder with the same network as a plain one.

    python tools/autoencoder.py

Reads the plain ones from `runs/results/autoencoder` (`tools/results.py` trains them), the others
from `assets/`. Writes `assets/autoencoder.json` and `assets/autoencoder.png`. A model of the
same weights is not measured again.
"""

import matplotlib.pyplot as plt
import torch
from latents import CHUNK, decode, encode
from results import ASSETS, AUTOENCODERS, RUNS, fingerprint, read_json, write_json
from torch import Tensor

from vae import VAE, Judge, judge_images, load_digits, mse, scale_images
from vae.figures import tile
from vae.run import is_finished, read_metrics

DRAWS, DRAWN = 10_000, 40  # scored, and shown
DRAWN_PAIR = "16 on 1x1"
ABOUT = ("config", "environment", "test")  # kept of a run's metrics
MOVED = 2000  # test digits whose codes are moved
NOISE = (0.1, 0.2, 0.5, 1.0, 2.0)  # standard deviations of the codes
RESULT, PICTURE = ASSETS / "autoencoder.json", ASSETS / "autoencoder.png"


def folders() -> dict[str, tuple]:
    """The two folders of each pair: the plain autoencoder and the variational one."""
    return {
        f"{size} on {grid}x{grid}": (
            RUNS / "autoencoder" / f"{size} on {grid}x{grid}",
            ASSETS / (f"global_{size}" if grid == 1 else f"latent_{size}"),
        )
        for size, grid in AUTOENCODERS
    }


def fitted_draws(codes: Tensor, noise: torch.Generator) -> Tensor:
    """Draws of a Gaussian with the mean and the covariance of `codes`."""
    flat = codes.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T).reshape(flat.shape[1], -1))
    draws = torch.randn(DRAWS, flat.shape[1], generator=noise, dtype=torch.float64)
    draws = (draws * values.clamp_min(0).sqrt()) @ vectors.T + flat.mean(0)
    return draws.float().view(-1, *codes.shape[1:])


@torch.no_grad()
def read_right(judge: Judge, images: Tensor, labels: Tensor) -> float:
    read = torch.cat([judge(part).argmax(1) for part in images.split(CHUNK)])
    return (read == labels).double().mean().item()


def measure(model: VAE) -> dict:
    """Everything about one model: reconstruction, generation, noise, midpoints.

    A code is z ~ q(z|x), as the decoder saw it in training; of a plain one, the point itself.
    """
    generator = torch.Generator().manual_seed(0)
    (images, labels), train = load_digits("test"), load_digits("train").images[:DRAWS]
    x, judge = scale_images(images), Judge.from_pretrained()
    codes = encode(model, images, generator=generator)
    known = encode(model, train, generator=generator)
    std = known.std(0)
    unit = torch.randn(DRAWS, *codes.shape[1:], generator=generator)
    draws = {"N(0, I)": unit, "fitted Gaussian": fitted_draws(known, generator)}
    result = {"mse": mse(x, decode(model, codes)).mean().item(), "code_std": std.mean().item()}
    for name, z in draws.items():
        scores = judge_images(decode(model, z))
        result[name] = {key: scores[key] for key in ("fid", "recognised")}
    result["noise"] = {}
    moved = torch.randn(MOVED, *codes.shape[1:], generator=generator) * std
    for share in NOISE:
        y = decode(model, codes[:MOVED] + share * moved)
        result["noise"][str(share)] = {
            "mse": mse(x[:MOVED], y).mean().item(),
            "accuracy": read_right(judge, y, labels[:MOVED]),
        }
    order = torch.randperm(len(codes), generator=generator)
    middle = judge_images(decode(model, (codes + codes[order]) / 2), reference=images)
    return result | {"midpoints": middle["recognised"]}


def draw(rows: dict) -> None:
    """The curves over the noise, and draws of the largest global pair."""
    figure = plt.figure(figsize=(11, 6.3), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    for axis, key, title in zip(
        top.subplots(1, 2),
        ("mse", "accuracy"),
        ("MSE of the reconstruction", "share read as the digit it was"),
        strict=True,
    ):
        for colour, name in enumerate(folders()):
            for kind, style in (("plain", "--"), ("variational", "-")):
                values = [rows[name][kind]["noise"][str(share)][key] for share in NOISE]
                label = f"{name.replace('x', '×')}, {kind}"
                axis.plot(NOISE, values, f"o{style}", color=f"C{colour}", label=label, ms=4)
        axis.set(xscale="log", xlabel="noise on the code, in its standard deviations", title=title)
        axis.set_xticks(NOISE, [f"{share:g}" for share in NOISE], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    top.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    plain, variational = (VAE.from_pretrained(folder) for folder in folders()[DRAWN_PAIR])
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(DRAWN, *plain.config.latent_shape, generator=generator)
    fitted = fitted_draws(encode(plain, load_digits("train").images[:DRAWS]), generator)[:DRAWN]
    panels = {
        "plain, N(0, I)": decode(plain, unit),
        "plain, fitted Gaussian": decode(plain, fitted),
        "variational, N(0, I)": decode(variational, unit),
    }
    for axis, (title, images) in zip(bottom.subplots(1, 3), panels.items(), strict=True):
        axis.imshow(tile(images[:, 0].numpy(), DRAWN // 4), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(f"16 on 1×1, {title}", fontsize=11)
        axis.set_axis_off()
    figure.savefig(PICTURE, dpi=90)
    plt.close(figure)


def main() -> None:
    rows = read_json(RESULT)
    for name, pair in folders().items():
        for kind, folder in zip(("plain", "variational"), pair, strict=True):
            if not is_finished(folder):  # the plain ones are not shipped
                continue
            row, of = rows.setdefault(name, {}), fingerprint(folder / "model.safetensors")
            if row.get(kind, {}).get("weights") == of:
                continue
            about = {part: read_metrics(folder)[part] for part in ABOUT}
            row[kind] = measure(VAE.from_pretrained(folder)) | about | {"weights": of}
            write_json(RESULT, {there: rows[there] for there in folders() if there in rows})
            print(name, kind, {k: v for k, v in row[kind].items() if k not in ABOUT}, flush=True)
    if all(len(row) == 2 for row in rows.values()) and all(map(is_finished, folders()[DRAWN_PAIR])):
        draw(rows)


if __name__ == "__main__":
    main()
