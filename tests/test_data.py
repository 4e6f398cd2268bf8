import gzip
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import a_gigabyte_more, write_idx

import vae
from vae import data


def test_mnist_is_complete_and_is_the_published_one():
    # load_digits compares each file with its SHA-256, so that loading is the check
    for split, count, first in (("train", 60_000, [5, 0, 4]), ("test", 10_000, [7, 2, 1])):
        images, labels = vae.load_digits(split)
        assert (images.shape, images.dtype) == ((count, 1, 28, 28), torch.uint8)
        assert (labels.shape, labels.dtype) == ((count,), torch.int64)
        assert labels[:3].tolist() == first
        assert set(labels.tolist()) == set(range(10))
    assert sum(path.stat().st_size for path in data.MNIST_FOLDER.iterdir()) <= 12e6


def endless(content):
    return gzip.compress(bytes(2**20)) * 1100


DAMAGES = [  # of an archive; None: it is missing
    None, lambda content: gzip.compress(content)[:-100],
    lambda content: gzip.compress(content[:1000] + b"\x0b" + content[1001:]),
    pytest.param(endless, marks=pytest.mark.unix),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=["missing", "truncated", "altered", "endless"])
def test_a_damaged_archive_is_refused_by_name(damage, tmp_path, monkeypatch, request):
    shutil.copytree(data.MNIST_FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(data, "MNIST_FOLDER", tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(damage(content)) if damage else path.unlink()
    if damage is endless:
        a_gigabyte_more(request)
    with pytest.raises(vae.FileError, match="t10k-labels"):
        vae.load_digits("test")


def test_unknown_names_and_sizes_that_images_cannot_have_are_refused():
    for options, told in (
        ({"split": "val"}, r"split='val'.*train.*test"), ({"size": 0}, "size=0 is not allowed"),
        ({"dataset": "cifar"}, r"dataset='cifar'.*mnist.*fashion_mnist"),
        ({"size": 30.5}, "size=30.5 is not"), ({"channels": 2}, "channels=2 is not allowed"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            vae.load_digits(**{"split": "test"} | options)
    assert vae.load_digits("test", size=32, channels=3).images.shape == (10_000, 3, 32, 32)


@pytest.mark.parametrize(("name", "folder"), [
    ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST"), ("emnist_digits", "EMNIST"),
])  # fmt: skip
def test_a_failed_download_says_where_to_put_the_files(name, folder, tmp_path):
    with pytest.raises(vae.FileError, match=rf"{name}.*{re.escape(str(Path(folder, 'raw')))}"):
        vae.load_digits("train", name, tmp_path)


@pytest.mark.parametrize(("name", "folder", "prefix"), [
    ("fashion_mnist", "FashionMNIST", ""), ("emnist_digits", "EMNIST", "emnist-digits-"),
])  # fmt: skip
def test_files_put_there_by_hand_are_read_and_upright(name, folder, prefix, tmp_path):
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[2, 20] = 200
    stored = image.T if name == "emnist_digits" else image  # EMNIST is published transposed
    write_idx(tmp_path / folder / "raw", stored[None], [7], prefix)
    digits = vae.load_digits("train", name, tmp_path)
    assert torch.equal(digits.images, image.view(1, 1, 28, 28))
    assert digits.labels.tolist() == [7]
