"""Files: whole or not there, and none is trusted."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from helpers import a_gigabyte_more, interrupt_at, make

import vae
from vae.prior import LatentPrior, PriorConfig
from vae.show.frames import Frames
from vae.store.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vae.store.files import FileError, save_tensors
from vae.store.folder import LOCK_NAME, lock, read_metrics


def test_save_and_load_give_the_same_model(tmp_path, digits):
    model = make(latent_size=4, num_classes=10).eval()
    model.save_pretrained(tmp_path)
    loaded = vae.VAE.from_pretrained(tmp_path)
    assert loaded.config == model.config
    labels = torch.zeros(64, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(model.encode(digits, labels).mean, loaded.encode(digits, labels).mean)
    model.bfloat16().save_pretrained(tmp_path)
    halved = vae.VAE.from_pretrained(tmp_path).decoder.position
    assert torch.equal(halved, loaded.decoder.position.bfloat16().float())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def damage(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(data[:-10])
    elif kind == "altered":
        data[-20] ^= 64
        path.write_bytes(data)
    else:
        path.write_bytes(b"not at all such a file")


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("model.safetensors", "config.json")
     for kind in ("missing", "truncated", "altered", "other")],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(name, kind, tmp_path):
    make().save_pretrained(tmp_path)
    damage(tmp_path / name, kind)
    with pytest.raises(vae.FileError, match=name):
        vae.VAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"latent_size": 4}, {"latent_grid": 5}, {"speed": 9}])
def test_config_and_weights_that_do_not_fit_are_refused(change, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(vae.FileError, match=r"config\.json"):
        vae.VAE.from_pretrained(tmp_path)


def test_what_a_kill_left_half_written_is_removed(small, tmp_path):
    for name in (".model.123.safetensors", ".latent.9.gif", ".keep", "notes.1.txt"):
        (tmp_path / name).touch()
    with lock(tmp_path, True):
        names = {path.name for path in tmp_path.iterdir()}
    assert names == {".keep", "notes.1.txt", LOCK_NAME}


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


def test_2000_damaged_and_hostile_files_are_refused_by_name_or_read_right(
    small, tmp_path, monkeypatch, request
):
    config, _ = small
    source, target = tmp_path / "whole", tmp_path / "damaged"
    monkeypatch.chdir(tmp_path)
    interrupt_at(monkeypatch, 7)
    vae.train(config, source)
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    bomb = pickle.dumps(Bomb())
    torch_bomb = io.BytesIO()
    torch.save({"model": Bomb()}, torch_bomb)
    crafted = list(hostile_safetensors(tmp_path))
    deep, pickled = b"[" * 200_000, npz(labels=np.array([Bomb()], dtype=object))
    huge_model = json.dumps({"channels": [1024, 1024, 1024], "blocks": 8, "latent_size": 64})
    archives = [hostile_npz((10**6, 10**6)), hostile_npz((-1, 3)), pickled, bomb_npz()]
    LatentPrior(PriorConfig(channels=8, blocks=1)).save_pretrained(source)
    LatentPrior(PriorConfig(channels=8, blocks=1)).save_pretrained(target)
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
    chance, tried, refused = random.Random(0), 0, 0
    a_gigabyte_more(request)
    for name, (read, argument, others) in readers.items():
        path = target / name
        whole = path.read_bytes()
        read(argument)
        swapped = [(source / other).read_bytes() for other in readers if other != name]
        extra = [bomb, torch_bomb.getvalue(), *others, *swapped]
        for variant in variants(whole, extra, 400, chance):
            path.write_bytes(variant)
            tried += 1
            try:
                read(argument)
            except FileError as error:
                refused += str(target) in str(error)
        path.write_bytes(whole)
    assert tried > 2000
    assert refused > 0.8 * tried, (refused, tried)  # most of the rest are spaces and digits in JSON
    assert not (tmp_path / "exploded").exists()


def test_no_space_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    model = vae.VAE(vae.VAEConfig(channels=(8, 16, 16)))
    model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    script = (
        "import pathlib, resource, signal, sys, vae\n"
        "from vae.store.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path = pathlib.Path(sys.argv[1]) / 'metrics.json'\n"
        "try: write_atomically(path, lambda path: path.write_bytes(bytes(5000)))\n"
        "except OSError as error: assert str(path) in str(error)\n"
        "else: raise SystemExit('no error')\n"
        "vae.VAE(vae.VAEConfig(channels=(8, 16, 16))).save_pretrained(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert f"OSError: {tmp_path}/model.safetensors could not be written" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
