"""What users bring, tried on every public function: each is the right number or a clear error."""

import copy
import inspect
import re
import warnings
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from common import ASSETS
from helpers import make, make_prior

import vae
from vae.machinery import figures
from vae.prior import LatentPrior

U, LABELS = (part[:8] for part in vae.load_digits("test"))
X = vae.scale_images(U)
Z = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(0))
T = torch.linspace(0, 1, 8)


M, C = make(latent_size=3).eval(), make(latent_size=3, num_classes=10).eval()
G = make(latent_size=3, latent_grid=1, num_classes=10).eval()  # with couplings
PRIOR, JUDGE = make_prior(latent_size=3, steps=2).eval(), vae.Judge.from_pretrained()
torch.manual_seed(0)
DISCRIMINATOR, LPIPS = vae.PatchDiscriminator().eval(), vae.LPIPS(pretrained=False)
OF_IMAGES = vae.ImageDiscriminator().eval()
SEEDED, BOUND = torch.Generator().manual_seed, vae.importance_weighted_bound
GAUSSIANS = {n: vae.DiagonalGaussian(Z[: n or 8], Z[: n or 8]) for n in (0, 1, 8)}


def flat(*found) -> torch.Tensor:
    """Whatever a function gives, as one row of numbers."""
    return torch.cat([torch.as_tensor(x, dtype=torch.float64).detach().flatten() for x in found])


def refused(said: str, *calls) -> None:
    for call in calls:
        with pytest.raises(ValueError, match=said):
            call()


def scores(**options) -> torch.Tensor:
    found = vae.judge_images(**{"images": X, "reference": U, "judge": JUDGE} | options)
    return flat(*found.values())


def measured(images, labels=None, model=M, **options) -> torch.Tensor:
    found = vae.evaluate(model, images, labels, **{"lpips": LPIPS, "lpips_images": 2} | options)
    return flat(*found["sample"].values(), *found["mean"].values(), found["kl"])


IMAGES = {  # function of images: the argument's name in the error, and a call
    "VAE.encode": ("x", lambda x: M.encode(x).kl()),
    "VAE.forward": ("x", lambda x: M(x, noise=Z[: len(x)] if len(x) < 8 else Z)[0]),
    "PatchDiscriminator.forward": ("x", lambda x: DISCRIMINATOR(x)),
    "ImageDiscriminator.forward": ("x", lambda x: OF_IMAGES(x, LABELS[: len(x)])),
    "LPIPS.forward": ("x", lambda x: LPIPS(x, X[: len(x)].roll(1, 2))),
    "LPIPS.forward, y": ("y", lambda y: LPIPS(X[: len(y) or 8].roll(1, 2), y)),
    "Judge.forward": ("x", lambda x: JUDGE(x)),
    "Judge.features": ("x", lambda x: JUDGE.features(x)),
    "mse": ("x", lambda x: vae.mse(x, X[: len(x)].roll(1, 2))),
    "psnr": ("y", lambda y: vae.psnr(X[: len(y) or 8].roll(1, 2), y)),
    "ssim": ("x", lambda x: vae.ssim(x, X[: len(x)].roll(1, 2))),
    "evaluate": ("images", measured),
    "active_units": ("images", lambda x: vae.active_units(M, x)),
    "importance_weighted_bound": ("images", lambda x: BOUND(M, x, 0.1, samples=3)),
    "judge_images": ("images", lambda x: scores(images=x, neighbours=U)),
    "judge_images, reference": ("reference", lambda x: scores(reference=x)),
    "judge_images, neighbours": ("neighbours", lambda x: scores(neighbours=x)),
}
TAKES_UINT8 = {"mse", "psnr", "ssim", *(name for name in IMAGES if IMAGES[name][0] not in "xy")}
NEEDS_TWO = {"active_units", "judge_images", "judge_images, reference"}
LATENTS = {  # the same of latents and noise
    "VAE.decode": ("z", lambda z: M.decode(z)),
    "VAE.forward, noise": ("noise", lambda z: M(X[: len(z) or 8], noise=z)[0]),
    "LatentPrior.forward": ("z", lambda z: PRIOR(z, T[: len(z)], LABELS[: len(z)])),
    "LatentPrior.loss": ("latents", lambda z: PRIOR.loss(z, Z[: (n := len(z))], T[:n], LABELS[:n])),
    "LatentPrior.sample": ("noise", lambda z: PRIOR.sample(n := len(z) or 8, LABELS[:n], noise=z)),
    "DiagonalGaussian": ("mean", lambda z: vae.DiagonalGaussian(z, z).kl()),
    "DiagonalGaussian.sample": ("noise", lambda z: GAUSSIANS[len(z)].sample(z)),
}
FINE = {  # what else some of them take; a NaN in noise shows in the result
    "VAE.forward, noise": ("NaN", "infinite"),
    "DiagonalGaussian.sample": ("NaN", "infinite"),
    "DiagonalGaussian": ("NaN", "infinite", "three channels too many", "another size"),
}
SAME = {  # inputs that are as good as float32's, and how far their rounding may lead
    "float16": (lambda x: x.half(), 2e-2),
    "bfloat16": (lambda x: x.bfloat16(), 1e-1),
    "float64": (lambda x: x.double(), 1e-5),
    "not contiguous": (lambda x: x.transpose(2, 3).contiguous().transpose(2, 3), 1e-5),
    "another order in memory": (lambda x: x.contiguous(memory_format=torch.channels_last), 1e-5),
    "requires a gradient": (lambda x: x.clone().requires_grad_(), 1e-5),
}
REFUSED = {  # and what the error says of others
    "int64": (lambda x: (x * 5).long(), "int64"),
    "bool": (lambda x: x > 0, "bool"),
    "complex": (lambda x: x + 0j, "complex"),
    "sparse": (lambda x: x.to_sparse(), "sparse"),
    "NumPy": (lambda x: x.numpy(), "ndarray"),
    "a list": (lambda x: x.tolist(), "list"),
    "3-D": (lambda x: x[:, 0], r"shape \(8, \d+, \d+\)"),
    "three channels too many": (lambda x: x.repeat(1, 4, 1, 1), r"shape \(8, (4|12), \d+, \d+\)"),
    "another size": (lambda x: x[..., :5], r"shape \(8, \d, \d+, 5\)"),
    "none of them": (lambda x: x[:0], r"shape \(0, \d, \d+, \d+\)"),
    "NaN": (lambda x: x.where(x < x.max(), torch.nan), "nan|not finite"),
    "infinite": (lambda x: x.where(x < x.max(), torch.inf), "inf|not finite"),
}  # fmt: skip
TABLE = [(name, X, *call) for name, call in IMAGES.items()]
TABLE += [(name, Z, *call) for name, call in LATENTS.items()]


@pytest.mark.parametrize(("name", "plain", "argument", "call"), TABLE, ids=[t[0] for t in TABLE])
def test_every_kind_of_tensor_is_the_right_number_or_a_clear_error(name, plain, argument, call):
    expected = flat(call(plain))
    for kind, (change, tolerance) in SAME.items():
        found = flat(call(change(plain)))
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=kind)
    for kind, (change, said) in REFUSED.items():
        if kind in FINE.get(name, ()):
            continue
        with pytest.raises(ValueError, match=rf"^(x has shape.*, y|{argument} (is|has))") as error:
            call(change(plain))
        assert re.search(rf"{said}|not the same", str(error.value)), (kind, error.value)
        assert "expected" in str(error.value), (kind, error.value)
    if name in NEEDS_TWO:
        refused("two or more", lambda: call(plain[:1]))
    else:
        first = flat(call(plain[:1]))
        assert first.isfinite().all()
        if plain is X and len(expected) == 8 * len(first):  # a batch of one is the first of many
            torch.testing.assert_close(first, expected[: len(first)], rtol=1e-4, atol=1e-4)
    if plain is X:
        refused("has values from 0 to 255", lambda: call(U.float()))
        if name in TAKES_UINT8:
            torch.testing.assert_close(flat(call(U)), expected, rtol=1e-5, atol=1e-5)
        else:
            refused(rf"{argument} is torch.uint8.*scale_images", lambda: call(U))


def test_every_public_function_is_in_the_table():
    checked_elsewhere = {
        "FileError", "DATASETS", "Digits", "load_digits", "scale_images",  # test_data.py, below
        "class_names", "read_picture",  # test_pictures.py
        "PriorConfig", "PriorTrainConfig", "SharpenConfig", "TrainConfig", "VAEConfig",
        "CoupledGaussian", "sharpen",  # test_settings.py, test_couplings.py, test_sharpen.py
        "run_name", "with_budget", "train", "train_prior", "render", "Run", "Trainer",  # below
        "export_onnx",  # below, and in test_export.py
    }  # fmt: skip
    done = {key.split(",")[0] for key in IMAGES | LATENTS}
    assert {name.split(".")[0] for name in done} | checked_elsewhere == set(vae.__all__)
    discriminators = vae.PatchDiscriminator, vae.ImageDiscriminator
    for kind in (vae.VAE, *discriminators, vae.LPIPS, vae.Judge, LatentPrior):
        own = {f"{kind.__name__}.{name}" for name, function in vars(kind).items()
               if inspect.isfunction(function) and not name.startswith("_")}  # fmt: skip
        inside = {"VAE.class_token", "VAE.decoder_input", "VAE.observed", "VAE.sample",
                  "LatentPrior.standardise", "LPIPS.train"}  # fmt: skip
        assert own - done <= inside, own - done


ASKED = {  # functions of labels
    "VAE.encode": lambda y: C.encode(X, y).mean,
    "VAE.forward": lambda y: C(X, y, Z)[0],
    "VAE.decode": lambda y: C.decode(Z, y),
    "VAE.sample": lambda y: C.sample(8, y, SEEDED(0)),
    "VAE.sample, prior": lambda y: M.sample(8, y, SEEDED(0), PRIOR),
    "LatentPrior.sample": lambda y: PRIOR.sample(8, y, SEEDED(0)),
    "LatentPrior.forward": lambda y: PRIOR(Z, T, y),
    "evaluate": lambda y: measured(X, y, C),
    "active_units": lambda y: vae.active_units(C, X, y),
    "importance_weighted_bound": lambda y: BOUND(C, X, 0.1, y, samples=2),
    "judge_images": lambda y: scores(labels=y),
}
LABELS_TAKEN = {
    "int32": LABELS.int(), "uint8": LABELS.byte(), "a list": LABELS.tolist(),
    "a tuple": tuple(LABELS.tolist()), "NumPy": LABELS.numpy(), "NumPy uint8": np.uint8(LABELS),
    "big-endian": LABELS.numpy().astype(">i4"), "read only": np.broadcast_to(LABELS.numpy(), 8),
    "a list of tensors": list(LABELS), "not contiguous": torch.stack([LABELS, LABELS], 1)[:, 0],
}  # fmt: skip
LABELS_REFUSED = {
    "too few": (LABELS[:7], r"are torch.int64 \(7,\)"), "words": (["seven"] * 8, "are <U5"),
    "one for eight": (LABELS[:1], r"are torch.int64 \(1,\)"), "an object": (object(), "are object"),
    "a list of floats": ([0.5] * 8, "are float64"), "booleans": (LABELS > 3, "are torch.bool"),
    "one-hot": (torch.eye(10, dtype=torch.int64)[LABELS], r"are torch.int64 \(8, 10\)"),
    "ragged": ([[1], [1, 2]], "="), "floats": (LABELS.float(), "are torch.float32"),
    "sparse": (LABELS.to_sparse(), r"are torch.int64 \(8"), "negative": (LABELS - 8, "from 0 to"),
    "too large": (LABELS + 2, "from 0 to"), "one too large": (11, "from 0 to .* not 11 to 11"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_labels_are_taken_as_people_have_them_or_refused_by_name(name):
    call = ASKED[name]
    expected = flat(call(LABELS))
    for kind, labels in LABELS_TAKEN.items():
        assert torch.equal(flat(call(labels)), expected), kind
    sevens = torch.full((8,), 7)
    for one in (7, np.int64(7), torch.tensor(7)):
        assert torch.equal(flat(call(one)), flat(call(sevens)))
    for kind, (labels, said) in LABELS_REFUSED.items():
        with pytest.raises(ValueError, match=rf"labels ?{said}") as error:
            call(labels)
        assert re.search("expected|allowed", str(error.value)), (kind, error.value)
    if "prior" not in name and name not in ("judge_images", "LatentPrior.sample"):
        refused("labels", lambda: call(None))


COUNTS = {
    "n": lambda n: M.sample(n),
    "steps": lambda n: PRIOR.sample(2, steps=n),
    "samples": lambda n: BOUND(M, X, 0.1, samples=n),
    "batch_size": lambda n: measured(X, batch_size=n),
    "lpips_images": lambda n: measured(X, lpips_images=n),
    "seed": lambda n: measured(X, seed=n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_generators_are_checked(name):
    for wrong in (-1, 2.5, "3", True, [1], float("nan"), torch.tensor([1, 2]), 2**70):
        refused(rf"^{name}=.*whole number, at least [01]", partial(COUNTS[name], wrong))
    COUNTS[name](np.int64(3))
    refused("generator=0 is not", *(partial(of.sample, 2, generator=0) for of in (M, PRIOR)))
    refused(r"^width=", *(partial(vae.PatchDiscriminator, width) for width in (0, 2.5)))
    refused("prior='assets' is not allowed", lambda: M.sample(2, prior="assets"))
    assert BOUND(M, X[:1], Fraction(1, 10), samples=1).isfinite()
    variances = (0.0, -1, float("inf"), float("nan"), "1", True)
    refused("variance=", *(partial(BOUND, M, X, wrong) for wrong in variances))
    if name == "steps":
        PRIOR.sample(2, guidance=None)
        refused("guid", *(partial(PRIOR.sample, 2, guidance=x) for x in (-1, float("inf"), "2")))


@pytest.mark.parametrize(("dtype", "tolerance"), [
    (torch.float16, 0.02), (torch.bfloat16, 0.1), (torch.float64, 1e-5)])  # fmt: skip
@torch.no_grad()
def test_a_network_in_half_or_double_precision_gives_nearly_the_same(dtype, tolerance):
    def compare(call, plain, rtol=tolerance, atol=tolerance):
        found, expected = call(copy.deepcopy(plain).to(dtype).eval()), call(plain)
        torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=atol)
        return found.dtype

    for plain, labels, z in ((M, None, Z), (G, LABELS, Z[..., :1, :1])):
        one = None if labels is None else 1
        compare(lambda m, y=labels: m.encode(X, y).mean, plain)
        compare(lambda m, y=labels, z=z: m.encode(X, y).kl(z), plain)
        wide = compare(lambda m, y=labels: m.encode(X, y).gaussian.logvar, plain)
        assert wide == torch.promote_types(dtype, torch.float32)
        assert compare(lambda m, y=labels: m.decode(m.encode(X, y).mean, y), plain) == dtype
        assert copy.deepcopy(plain).to(dtype).sample(4, one).dtype == dtype
        compare(lambda m, y=labels: measured(X, y, m), plain, 2 * tolerance, 0.1 * tolerance)
    for plain, call in (
        (PRIOR, lambda prior: prior(Z, T, LABELS)), (JUDGE, lambda judge: judge(X)),
        (DISCRIMINATOR, lambda discriminator: discriminator(X)),
    ):  # fmt: skip
        compare(call, plain, tolerance, 5 * tolerance)
    compare(lambda prior: prior.sample(8, LABELS, noise=Z), PRIOR, 0.05, 0.05)
    assert scores(judge=copy.deepcopy(JUDGE).to(dtype)).isfinite().all()


def test_in_half_precision_the_couplings_and_their_inverse_still_cancel():
    u, errors = 3 * Z[..., :1, :1], []
    for model in (make(latent_size=3, latent_grid=1), make(latent_size=3, latent_grid=1).half()):
        with torch.no_grad():
            errors.append((model.couplings(model.couplings.inverse(u)[0]) - u).abs().max())
    assert errors[0] == errors[1] < 1e-2


def test_images_that_were_scaled_are_not_scaled_again_and_stay_as_they_are():
    for wrong in (U.float() / 255, U.float(), X, U.int(), U.numpy(), U.tolist(), None, 7):
        refused(r"^images is .*; a uint8 tensor, 0 to 255", partial(vae.scale_images, wrong))
    before = U.clone()
    torch.testing.assert_close(vae.scale_images(U), (U.double() / 127.5 - 1).float())
    assert torch.equal(before, U)


def test_the_range_of_every_image_is_checked():
    for place in (0, -1):
        images = torch.zeros(3, 1, 28, 28)
        images[place, 0, 14, 14] = 2
        with pytest.raises(ValueError, match=r"x has values from 0 to 2; \[-1, 1\] is expected"):
            make().encode(images)


def test_a_measure_of_two_kinds_of_the_same_images_is_the_same():
    y = (X + 0.1 * torch.sin(50 * X.cumsum(3))).clamp(-1, 1)
    v = (127.5 * (y + 1)).round().byte()
    expected = vae.psnr(X, y)
    for pair in ((U, y), (X.double(), y.double())):
        torch.testing.assert_close(vae.psnr(*pair), expected, rtol=0, atol=1e-4, check_dtype=False)
    for pair in ((X, v), (U, v)):
        torch.testing.assert_close(vae.psnr(*pair), expected, rtol=0, atol=0.05)
    shipped = vae.VAE.from_pretrained(ASSETS / "latent_2")
    with torch.no_grad():
        decoded = shipped.decode(shipped.encode(X).mode())
    assert vae.psnr(X, decoded).mean().item() == pytest.approx(36.80, abs=0.005)
    for measure in (vae.mse, vae.psnr, vae.ssim, LPIPS):
        refused(r"\(8, 1, 28, 28\), y \(8, 28, 28\)", lambda of=measure: of(X, y.squeeze(1)))
        refused(r"\(8, 1, 28, 28\), y \(1, 1, 28, 28\)", lambda of=measure: of(X, y[:1]))
    refused(r"shape \(8, 1, 5, 28\).*H and W >= 7", lambda: vae.ssim(X[..., :5, :], X[..., :5, :]))


def test_a_set_in_0_to_1_is_pointed_out_once_and_no_number_changes():
    light = (vae.load_digits("test").images[:12] / 255).float()
    for call in (
        measured, lambda x: flat(M.encode(x).mean), lambda x: flat(vae.mse(x, 0.5 * x - 0.5)),
        lambda x: scores(images=x), lambda x: flat(vae.active_units(M, x)),
        lambda x: flat(BOUND(M, x, 0.1, samples=1)),
        lambda x: measured((127.5 * (x + 1)).byte() // 255 * (1 if x.min() >= 0 else 255)),
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=r"all values lie between 0 and 1") as caught:
            found = call(light)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            call(2 * light - 1)
            call(light[:9])  # too few to tell
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(found, call(light))


@pytest.mark.parametrize("grad", [True, False])
def test_the_callers_state_is_left_alone(grad):
    modules = [part for one in (M, C, PRIOR, JUDGE, LPIPS) for part in one.modules()]
    calls = (
        lambda: measured(X, lpips=None, reference=True), lambda: vae.active_units(M, X),
        lambda: BOUND(M, X, 0.1, samples=2), lambda: vae.judge_images(X, reference=X),
        lambda: M.sample(2, generator=SEEDED(0)), lambda: PRIOR.sample(2, generator=SEEDED(0)),
        lambda: M.encode(X).kl(), lambda: vae.LPIPS()(X, X), lambda: vae.psnr(X, X),
    )  # fmt: skip

    def state():
        flags = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
        modes = [module.training for module in modules]
        asked = [p.requires_grad for module in modules for p in module.parameters(recurse=False)]
        numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return *flags, modes, asked, numpy, torch.get_rng_state().tolist()

    M.train()
    M.encoder.eval()  # a mixture, to be kept
    try:
        with torch.set_grad_enabled(grad):
            before = state()
            for call in calls:
                call()
                assert state() == before
    finally:
        M.eval()


def test_a_default_type_of_float64_and_a_default_device_change_nothing(tmp_path, request):
    C.save_pretrained(tmp_path)
    with torch.device("meta"):
        lpips = vae.LPIPS()
    assert torch.equal(lpips(X, X.roll(1, 2)), vae.LPIPS()(X, X.roll(1, 2)))

    def all_of_it():
        model = vae.VAE.from_pretrained(tmp_path)
        images = model.sample(8, LABELS, SEEDED(0))
        found = measured(U, LABELS, model, lpips=vae.LPIPS()), scores(images=images), images
        bound = BOUND(model, U, 0.1, LABELS, samples=2)
        return flat(*found, PRIOR.sample(8, LABELS, SEEDED(0)), bound)

    expected = all_of_it()
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    assert torch.equal(all_of_it(), expected)
    model = vae.VAE(vae.VAEConfig(3, channels=(8, 16, 16)))  # float64, as any new module is
    assert measured(torch.from_numpy(U.numpy() / 127.5 - 1), model=model).isfinite().all()


def test_figures_take_images_as_they_come_and_refuse_what_does_not_fit():
    raw, scaled = (figures.plot_grid(x, 4, "x").axes[0].images[0].get_array() for x in (U, X))
    assert np.array_equal(raw, scaled)
    distances = [figures.plot_distances(x, LPIPS).axes[0].images[0].get_array() for x in (U, X)]
    assert np.array_equal(*distances)
    for labels in (LABELS.tolist(), LABELS.numpy()):
        assert len(figures.plot_examples(vae.Digits(U, labels), "x").axes[0].get_yticks()) == 6
    none = vae.Digits(U[:0], LABELS[:0])
    refused("columns=3 is not allowed", lambda: figures.plot_grid(U, 3, "x"))
    refused("images has shape", lambda: figures.plot_grid(U[:0], 4, "x"))
    refused("digits.images has", lambda: figures.plot_examples(none, "x"))


@pytest.mark.parametrize("wrong", ["", 3, None, b"bytes", ["a"], "~no such user/x", "a\0b"])
def test_what_is_no_path_is_refused(wrong, tiny):
    said = "=.* is not allowed: a path"
    refused(f"^root{said}", lambda: vae.load_digits("test", "kmnist", wrong))
    readers = vae.VAE.from_pretrained, M.save_pretrained, vae.Run.load, vae.train_prior
    refused(f"^directory{said}", *(partial(f, wrong) for f in (*readers, vae.export_onnx)))
    refused(f"^run_dir{said}", *(partial(f, tiny(), wrong) for f in (vae.train, vae.Trainer)))


def test_settings_of_the_wrong_kind_are_refused(tmp_path):
    refused(
        r"^config=.*TrainConfig",
        lambda: vae.train(vae.PriorTrainConfig(), tmp_path), lambda: vae.run_name("latent_2"),
        lambda: vae.train_prior(tmp_path, vae.TrainConfig()), lambda: vae.with_budget(None, "tiny"),
        lambda: vae.train({"beta": 1}, tmp_path),
    )  # fmt: skip
    wrong = {"latent_size": 2}, 4, vae.TrainConfig()
    pairs = [(of, one) for of in (vae.VAE, vae.LatentPrior, vae.Judge) for one in wrong]
    refused(r"^config=.* is not allowed: a .*Config", *(partial(*pair) for pair in pairs))
    refused(r"^model=.*a PriorConfig", partial(vae.PriorTrainConfig, vae.VAEConfig()))
    refused(r"^split=", *(partial(vae.load_digits, split) for split in (None, 0, ["test"])))
    refused(r"^dataset=", lambda: vae.load_digits("test", ["mnist"]))
