"""Files that were damaged in many ways, and hostile ones.

    FUZZ_FILES=10000 python -m pytest tests/test_fuzz.py

Whatever was done to a file, reading it ends in a `FileError` that names it, or in right work; never
in another error, in code that runs, or in a gigabyte of memory.
"""

import io
import json
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from helpers import a_gigabyte_more, advance
from safetensors.torch import save

import vae
from vae import pretrained
from vae.machinery import loop
from vae.machinery.folder import CHECKPOINT_NAME, load_checkpoint, read_metrics
from vae.machinery.frames import Frames

FILES = int(os.environ.get("FUZZ_FILES", "1000"))


class Bomb:
    """A hostile pickle, which would make a file when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def header(descr, shape):
    buffer = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def hostile_archives():
    """Archives whose arrays claim to be huge or negative, hold a pickle, or expand to 1.1 GB."""
    for shape in ((10**6, 10**6), (-1, 3)):
        with zipfile.ZipFile(claims := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("labels", "originals", "epochs", "points", "reconstructions"):
                archive.writestr(f"{name}.npy", header("<f4", shape) + b"\0" * 4096)
        yield claims.getvalue()
    np.savez_compressed(pickled := io.BytesIO(), labels=np.array([Bomb()], dtype=object))
    yield pickled.getvalue()
    expands = io.BytesIO()
    with (
        zipfile.ZipFile(expands, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("labels.npy", "w", force_zip64=True) as file,
    ):
        file.write(header("<i8", (1100 * 2**17,)))
        for _ in range(1100):
            file.write(bytes(2**20))
    yield expands.getvalue()


def hostile_safetensors():
    """Whole files, with matching checksums, of the wrong content."""
    for tensors, metadata in (
        ({}, {}),
        ({"a": torch.zeros(3)}, {"state": "[]"}),
        ({"a": torch.zeros(3)}, {"state": "[" * 100_000}),
        ({"a": torch.zeros(3)}, {"state": '{"step": -1, "training_seconds": 0, "metrics": {}}'}),
        ({"a": torch.full((3,), float("nan"))}, {"state": "{}"})):  # fmt: skip
        digest = pretrained._digest(tensors, metadata)
        yield save(tensors, {"format": "pt", "sha256": digest} | metadata)


def variants(whole, others, count, chance):
    """Truncated, bit-flipped, spliced and swapped versions of a file."""
    yield from (b"", b"\0" * 4096, *others)
    for number in range(count):
        changed = bytearray(whole)
        way = number % 4
        if way == 0:
            del changed[chance.randrange(len(whole)) :]
        elif way == 1:
            for _ in range(chance.choice((1, 1, 8))):
                changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        elif way == 2:
            start = chance.randrange(len(whole))
            changed[start : start + 64] = chance.randbytes(64)
        else:  # where headers are
            changed[chance.randrange(min(400, len(whole)))] = chance.randrange(256)
        yield bytes(changed)


@pytest.fixture
def run(tiny, tmp_path):
    """A folder with every kind of file that this package reads, whole."""
    trainer = vae.Trainer(tiny(max_train_images=64, max_test_images=20, projected_images=20,
                           lpips_images=0, w_perceptual=0, early_evaluations=0),
                      tmp_path / "run")  # fmt: skip
    trainer.directory.mkdir()
    advance(trainer, 2).recorder.record_frame()
    trainer.recorder.measure()
    loop.save(trainer)
    vae.LatentPrior(vae.PriorConfig(channels=8, blocks=1)).save_pretrained(trainer.directory)
    return trainer.directory


@pytest.mark.unix
def test_damaged_and_hostile_files_are_refused_by_name_or_read_right(
    run, tmp_path, monkeypatch, request
):
    monkeypatch.chdir(tmp_path)
    a_gigabyte_more(request)
    torch.save({"model": Bomb()}, torch_bomb := io.BytesIO())
    bombs = [pickle.dumps(Bomb()), torch_bomb.getvalue()]
    crafted, deep = list(hostile_safetensors()), [b"[" * 200_000, b"[1]"]
    huge = {"channels": [1024, 1024, 1024], "blocks": 8, "latent_size": 64}
    huge_model, huge_prior = (json.dumps(config).encode()
                              for config in (huge, {"channels": 1024, "blocks": 16}))  # fmt: skip
    readers = {
        "prior.safetensors": (vae.LatentPrior.from_pretrained, run, crafted),
        "prior.json": (vae.LatentPrior.from_pretrained, run, [*deep, huge_prior]),
        "model.safetensors": (vae.VAE.from_pretrained, run, crafted),
        "config.json": (vae.VAE.from_pretrained, run, [*deep, huge_model]),
        "metrics.json": (read_metrics, run, [*deep, b'{"history": 1}', b"1" * 10_000]),
        "frames.npz": (Frames.load, run / "frames.npz", list(hostile_archives())),
        CHECKPOINT_NAME: (load_checkpoint, run / CHECKPOINT_NAME, crafted),
    }
    whole, chance, tried, refused = {}, random.Random(0), 0, 0
    for name, (read, argument, _) in readers.items():
        read(argument)
        whole[name] = (run / name).read_bytes()
    for name, (read, argument, others) in readers.items():
        swapped = [content for other, content in whole.items() if other != name]
        extra = [*bombs, *others, *swapped]
        for variant in variants(whole[name], extra, -(-FILES // len(readers)), chance):
            (run / name).write_bytes(variant)
            tried += 1
            try:
                read(argument)
            except vae.FileError as error:
                if str(run) not in str(error):
                    raise
                refused += 1
        (run / name).write_bytes(whole[name])
    assert not (tmp_path / "exploded").exists(), "a pickle was executed"
    assert refused > 0.8 * tried, (refused, tried)  # most of the rest are spaces, digits in JSON
    print(f"{tried:,} damaged files: {refused:,} refused by name, {tried - refused:,} read right")
