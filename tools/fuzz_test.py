"""Damage the files of a run in many ways, and read each.

    python tools/fuzz_test.py [--files 2500] [--seed 0]

Whatever was done to a file, reading it ends in a `FileError` that names it, or in right work; never
in another error, in code that runs, or in a gigabyte of memory.
"""

import argparse
import io
import json
import os
import pickle
import random
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

import vae
from vae.prior import LatentPrior, PriorConfig
from vae.training import loop
from vae.training.vae import Trainer
from vae_show.frames import Frames
from vae_store.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vae_store.files import FileError, save_tensors
from vae_store.folder import read_metrics


class Bomb:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def hostile_npz(shape):
    """A small archive whose arrays claim to be huge."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("labels", "originals", "epochs", "points", "reconstructions"):
            archive.writestr(f"{name}.npy", header.getvalue() + b"\0" * 4096)
    return buffer.getvalue()


def bomb_npz():
    """A megabyte that expands to more than a gigabyte."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("labels.npy", "w", force_zip64=True) as file,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (1100 * 2**17,)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(1100):
            file.write(bytes(2**20))
    return buffer.getvalue()


def hostile_safetensors(tmp_path):
    """Whole files, with matching checksums, of the wrong content."""
    path = tmp_path / "crafted.safetensors"
    for tensors, metadata in (
        ({}, {}),
        ({"a": torch.zeros(3)}, {"state": "[]"}),
        ({"a": torch.zeros(3)}, {"state": "[" * 100_000}),
        ({"a": torch.zeros(3)}, {"state": '{"step": -1, "training_seconds": 0, "metrics": {}}'}),
        ({"a": torch.full((3,), float("nan"))}, {"state": "{}"}),
    ):
        save_tensors(path, tensors, metadata)
        yield path.read_bytes()


def variants(whole, others, count, chance):
    """Truncated, bit-flipped, spliced and swapped versions of a file."""
    yield from (b"", b"\0" * 4096, *others)
    for number in range(count):
        changed = bytearray(whole)
        kind = number % 4
        if kind == 0:
            del changed[chance.randrange(len(whole)) :]
        elif kind == 1:
            for _ in range(chance.choice((1, 1, 8))):
                changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        elif kind == 2:
            start = chance.randrange(len(whole))
            changed[start : start + 64] = chance.randbytes(64)
        else:  # where headers are
            changed[chance.randrange(min(400, len(whole)))] = chance.randrange(256)
        yield bytes(changed)


def make_run(folder: Path) -> None:
    """Every kind of file that this package reads, whole."""
    config = vae.TrainConfig(
        model=vae.VAEConfig(channels=(8, 16, 16)), epochs=1, max_train_images=64,
        max_test_images=20, projected_images=20, lpips_images=0, w_perceptual=0,
        early_evaluations=0, mixed_precision="no",
    )  # fmt: skip
    trainer = Trainer(config, folder)
    folder.mkdir()
    for _ in range(2):
        trainer.optimize()
    trainer.note()
    trainer.measure()
    loop.save(trainer)
    LatentPrior(PriorConfig(channels=8, blocks=1)).save_pretrained(folder)


def run(files: int, seed: int, parent: Path) -> tuple[int, int, int]:
    """Read `files` damaged files or a few more; how many there were, were refused, and read right.

    Raises on anything else.
    """
    source, target = parent / "whole", parent / "damaged"
    make_run(source)
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    bomb = pickle.dumps(Bomb())
    torch.save({"model": Bomb()}, torch_bomb := io.BytesIO())
    crafted = list(hostile_safetensors(parent))
    deep, pickled = b"[" * 200_000, npz(labels=np.array([Bomb()], dtype=object))
    huge_model = json.dumps({"channels": [1024, 1024, 1024], "blocks": 8, "latent_size": 64})
    archives = [hostile_npz((10**6, 10**6)), hostile_npz((-1, 3)), pickled, bomb_npz()]
    huge_prior = json.dumps({"channels": 1024, "blocks": 16}).encode()
    readers = {
        "prior.safetensors": (LatentPrior.from_pretrained, target, crafted),
        "prior.json": (LatentPrior.from_pretrained, target, [deep, huge_prior, b"[1]"]),
        "model.safetensors": (vae.VAE.from_pretrained, target, crafted),
        "config.json": (vae.VAE.from_pretrained, target, [deep, huge_model.encode(), b"[1]"]),
        "metrics.json": (read_metrics, target, [deep, b'{"history": 1}', b"1" * 10_000]),
        "frames.npz": (Frames.load, target / "frames.npz", archives),
        CHECKPOINT_NAME: (load_checkpoint, target / CHECKPOINT_NAME, crafted),
    }
    chance, tried, refused = random.Random(seed), 0, 0
    for name, (read, argument, others) in readers.items():
        path = target / name
        whole = path.read_bytes()
        read(argument)
        swapped = [(source / other).read_bytes() for other in readers if other != name]
        extra = [bomb, torch_bomb.getvalue(), *others, *swapped]
        for variant in variants(whole, extra, -(-files // len(readers)), chance):
            path.write_bytes(variant)
            tried += 1
            try:
                read(argument)
            except FileError as error:
                if str(target) not in str(error):
                    raise
                refused += 1
        path.write_bytes(whole)
    if Path("exploded").exists():
        raise AssertionError("a pickle was executed")
    return tried, refused, tried - refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        os.chdir(parent)
        tried, refused, right = run(options.files, options.seed, Path(parent))
    print(f"{tried:,} damaged files: {refused:,} refused by name, {right:,} read as they should be")


if __name__ == "__main__":
    main()
