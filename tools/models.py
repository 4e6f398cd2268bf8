"""The models that `assets/` ships: their trainings, and how they compare to the reference."""

import shutil
from functools import partial

from common import ASSETS, FULL_SECONDS, RUNS, Part, read_json, run, training

from vae_show.showcase import REFERENCE, SHARPENED
from vae_store.folder import PRIOR_METRICS_NAME as PRIOR_METRICS

# At size 16 a smaller beta than 0.3 buys MSE that the eye does not see.
SHIPPED_BETA = {16: 0.3, 4: 0.1, 2: 0.1}
PLAIN = "--w-perceptual 0 --w-adversarial 0"  # MSE and KL alone
GLOBAL = "--latent-grid 1 --budget full"  # one vector for an image; MSE and KL alone
SHARPER = {"sharp_2": "--w-adversarial 1.4"}  # of two numbers there is most blur to cure
CONDITIONAL = "conditional_16"  # the global model of size 16 that is told the digit
SHARPEN_SECONDS = 900
REFERENCE_SECONDS = 24_000  # 20 epochs of 1,204 s on two cores


def runs() -> dict[str, str]:
    """The name of every shipped model and the flags of its `python -m vae train`."""
    commands = {
        f"latent_{size}": f"--latent-size {size} --beta {beta} --budget full"
        for size, beta in SHIPPED_BETA.items()
    }
    commands |= {f"global_{size}": f"--latent-size {size} {GLOBAL}" for size in SHIPPED_BETA}
    # of each class there are few codes to fit, which are learned by heart the sooner
    told = f"--latent-size 16 {GLOBAL} --epochs 3 --num-classes 10 --coupling-steps 1"
    return commands | {CONDITIONAL: told}


def parts() -> list[Part]:
    """Each model's training, that of sharper decoders, and of priors on a 7x7 latent."""
    found = [training(name, flags, FULL_SECONDS, publish) for name, flags in runs().items()]
    for name, before in SHARPENED.items():
        flags = f"assets/{before} --budget full {SHARPER.get(name, '')}".strip()
        found.append(training(name, flags, SHARPEN_SECONDS, publish, "sharpen"))
    for size in SHIPPED_BETA:
        metrics = ASSETS / f"latent_{size}" / PRIOR_METRICS
        seconds = read_json(metrics).get("seconds", FULL_SECONDS)
        command = f"python -m vae train-prior assets/latent_{size} --resume"
        made = metrics.is_file, partial(run, command)
        found.append(Part("train a prior", f"prior/latent_{size}", seconds, *made, command))
    return found


def publish(name: str, leave_out: tuple[str, ...] = ()) -> None:
    """Copy a finished run to `assets/`, but for files of these patterns."""
    target, whole = ASSETS / name, ASSETS / f".{name}"
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(RUNS / name, whole, ignore=shutil.ignore_patterns(".*", *leave_out))
    shutil.rmtree(target, ignore_errors=True)
    whole.rename(target)


def beats_reference(size: int, row: dict) -> bool:
    """Whether MSE, SSIM and PSNR are all better than the reference's."""
    mse, ssim, psnr = REFERENCE[size]
    return row["mse"] < mse and row["ssim"] > ssim and row["psnr"] > psnr
