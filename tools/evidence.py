"""Every claim with its command, its number, its spread and its machine: docs/evidence.md."""

import statistics

import likelihood
import seeds
import speedrun
from common import ASSETS, read_json, row
from peer_rows import ROWS as PEERS
from terms import ALL, BLURRED, spread

from vae_show.showcase import REFERENCE
from vae_store.folder import read_metrics

TESTS = {  # what a test holds: the claim; the test; what it demands
    "SSIM and PSNR are scikit-image's": (
        "test_metrics.py::test_ssim_and_psnr_are_scikit_images", "within 1e-12, and 1e-10 dB"),
    "LPIPS is its authors'": (
        "test_perceptual.py::test_shift_tolerant_equals_the_authors_own", "within 1e-5"),
    "The bound of log p(x) goes to what is known in closed form": (
        "test_likelihood.py::test_the_bound_of_a_linear_gaussian_model_is_its_likelihood_in_closed_form",
        "within 0.1 nats"),
    "A training that was cut off ends as if it had not been": (
        "test_reliability.py::test_a_run_that_was_interrupted_anywhere_ends_bit_for_bit_the_same",
        "bit for bit"),
    "No step waits for a GPU (counted on a device that is not there)": (
        "test_devices.py::test_nothing_waits_for_the_device_between_two_looks_at_the_losses",
        "0 waits in the steps between two looks at the losses"),
    "A step that is replayed as a CUDA graph is the step (recorded on the CPU where no GPU is)": (
        "test_graphs.py::test_steps_that_are_replayed_do_what_steps_do",
        "12 steps: terms within 2 %, weights within 5 % of their way"),
    "The page computes what PyTorch computes with the same weights": (
        "test_explorer.py::test_the_page_computes_what_pytorch_computes", "within 1e-3"),
}  # fmt: skip


def rows() -> list[list[str]]:
    """Claim, command, number, spread, machine; the most important first."""
    found = [*quality(), *speed(), *generation(), *likelihoods(), *peers()]
    for claim, (test, demanded) in TESTS.items():
        found.append([claim, f"`python -m pytest tests/{test}`", demanded, "–", "any"])
    return found


def machine(environment: dict) -> str:
    """Hardware and threads."""
    threads, known = environment.get("threads"), {1: ", 1 thread", None: ""}
    return environment["hardware"] + known.get(threads, f", {threads} threads")


def of_draws(share: float, images: int = 10_000) -> str:
    """The standard error of a share of so many draws."""
    return f"± {100 * (share * (1 - share) / images) ** 0.5:.1f} %, of 10,000 draws"


def quality() -> list[list[str]]:
    found = []
    for size, (mse, ssim, psnr) in REFERENCE.items():
        metrics = read_metrics(ASSETS / f"latent_{size}")
        of, latent = metrics["test"]["sample"], f"{size} on 7x7"
        in_full, short = seeds.rows_of(latent + seeds.IN_FULL), seeds.rows_of(latent)
        deviation = statistics.stdev(run["psnr"] for run in in_full or short)
        trained = f"{len(in_full)} seeds" if in_full else f"{len(short)} seeds of a short training"
        found.append([
            f"Size {size} on 7×7 reconstructs better than the reference "
            f"({mse:.4f}, {ssim:.4f}, {psnr:.2f} dB)",
            f"`python -m vae evaluate assets/latent_{size}`",
            f"MSE {of['mse']:.5f}, SSIM {of['ssim']:.4f}, PSNR {of['psnr']:.2f} dB",
            f"± {deviation:.2f} dB, {trained}",
            machine(metrics["environment"]),
        ])  # fmt: skip
    grey = [spread(variant, lambda r: 100 * r["reconstructions"]["grey"])
            for variant in (BLURRED, ALL)]  # fmt: skip
    (before, first), (after, second) = grey
    found.append([
        "The perceptual and the adversarial term cure the blur of four numbers",
        "`python tools/results.py --only terms`",
        f"grey pixels {before:.1f} % without, {after:.1f} % with them",
        f"± {first:.2f} %, ± {second:.2f} %, 3 seeds", "–",
    ])  # fmt: skip
    return found


def speed() -> list[list[str]]:
    found = []
    for size in REFERENCE:
        if kept := row(f"speedrun/{size}"):
            seconds = kept["seconds"]
            found.append([
                f"Size {size} has the reference's quality in less than 90 s of training",
                f"`python tools/speedrun.py --only {size}`",
                f"{statistics.median(seconds):.0f} s",
                f"{min(seconds):.0f} to {max(seconds):.0f} s, {len(seconds)} seeds, all better",
                machine(kept),
            ])  # fmt: skip
    if kept := row(f"speedrun/{speedrun.RUN}"):
        found.append([
            "`make run` takes less than three minutes and 1.5 GB",
            f"`python tools/speedrun.py --only {speedrun.RUN}`",
            f"{kept['seconds']:.0f} s, {kept['share']:.0%} of them training; "
            f"{kept['peak_memory_mb'] / 1024:.2f} GiB; MSE {kept['mse']:.4f}, KL {kept['kl']:.0f}",
            "one run", machine(kept),
        ])  # fmt: skip
    return found


def generation() -> list[list[str]]:
    scored, found = read_json(ASSETS / "generation.json"), []
    for claim, name in (
        ("A learned prior draws digits of size 4 on 7×7", "latent_4, prior"),
        ("16 numbers draw digits from N(0, I)", "global_16, N(0, I)"),
        ("Four numbers do so with a sharpened decoder", "sharp_4, N(0, I)"),
    ):
        scores, folder = scored[name], name.partition(",")[0]
        found.append([
            claim, "`python tools/results.py --only generation`",
            f"{scores['recognised']:.1%} recognised, digit-FID {scores['fid']:.1f}",
            of_draws(scores["recognised"]), machine(read_metrics(ASSETS / folder)["environment"]),
        ])  # fmt: skip
    pair = read_json(ASSETS / "autoencoder.json")["16 on 1x1"]
    plain, variational = (pair[kind]["N(0, I)"] for kind in ("plain", "variational"))
    found.append([
        "A plain autoencoder of 16 numbers draws none",
        "`python tools/results.py --only autoencoder`",
        f"{plain['recognised']:.0%} recognised, digit-FID {plain['fid']:.0f}; "
        f"a variational one {variational['recognised']:.0%}, {variational['fid']:.1f}",
        of_draws(plain["recognised"]),
        machine(read_metrics(ASSETS / "plain_16")["environment"]),
    ])  # fmt: skip
    return found


def likelihoods() -> list[list[str]]:
    found = []
    for name, size in likelihood.SIZES.items():
        kept, (gaussian, sphere) = likelihood.numbers_of(name), likelihood.PUBLISHED[size]
        if "neg_bound" not in kept:
            continue
        exact = f"; {kept['neg_log_p']:.2f} by a sum over the plane" if "neg_log_p" in kept else ""
        found.append([
            f"−log p(x) of {size} numbers, against {gaussian} and {sphere} published",
            "`python tools/results.py --only likelihood`",
            f"at most {kept['neg_bound']:.2f} nats, by the published protocol{exact}",
            f"± {kept['neg_bound_std_error']:.2f}, of 10,000 digits", machine(kept),
        ])  # fmt: skip
    return found


def peers() -> list[list[str]]:
    made, found = read_json(ASSETS / "peers.json"), []
    for name, peer in PEERS.items():
        if peer.like and (theirs := made.get(name)) and (ours := made.get(peer.like)):
            found.append([
                f"Ours beside {peer.title}, {peer.latent}, {theirs['seconds']:.0f} s each",
                f"`python benchmarks/peers.py --only {peer.like} {name}`",
                f"MSE {ours['mse']:.4f} at {ours['kl']:.0f} nats, theirs {theirs['mse']:.4f} at "
                f"{theirs['kl']:.0f}",
                "one seed", machine(theirs),
            ])  # fmt: skip
    return found
