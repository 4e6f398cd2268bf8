"""Pictures of one's own: what is read, how it is split, and that a training takes it."""

import os
import pickle
import re
import shutil
import unicodedata
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Gpu, present
from helpers import SMALL, paint_nothing, small_prior
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torchvision.datasets import CIFAR10

import vae
from vae.machinery import animations, figures, frames, layouts, machine, pictures
from vae.machinery.cli import main
from vae.machinery.folder import PICTURES
from vae.machinery.run import Run

RED, GREEN, BLUE, WHITE = (250, 10, 10), (10, 250, 10), (10, 10, 250), (255, 255, 255)
FOUR = np.zeros((4, 28, 28), np.uint8)


def paint(path, colour=RED, size=(40, 40), mode="RGB", **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **how)
    return path


def fill(folder, count, start=0, end="png"):
    """So many pictures, each of a grey of its own."""
    for number in range(start, start + count):
        paint(folder / f"{number}.{end}", (number % 256,) * 3)


def load(folder, split="train", **how):
    return vae.load_digits(split, f"folder:{folder}", **how)


def middle(path, size=32):
    return pictures.decode(path, size)[size // 2, size // 2].tolist()


def near(found, colour, most=4):
    return max(abs(int(a) - b) for a, b in zip(found, colour, strict=True)) <= most


def names_in(folder):
    found = layouts.pictures_in(folder).items()
    return {split: [path.name for _, path in members] for split, members in found}


def test_a_folder_is_split_by_name_so_that_a_picture_stays_where_it_is(tmp_path):
    fill(tmp_path, 400, end="bmp")
    before = names_in(tmp_path)
    assert 20 <= len(before["test"]) <= 60
    fill(tmp_path, 100, 400, "bmp")
    for name in before["train"][:50]:
        (tmp_path / name).unlink()
    after = {split: set(names) for split, names in names_in(tmp_path).items()}
    assert set(before["test"]) <= after["test"]
    assert set(before["train"][50:]) <= after["train"]
    assert not after["train"] & after["test"]
    train, test = load(tmp_path), load(tmp_path, "test")
    assert train.images.shape == (len(after["train"]), 1, 32, 32)  # grey, as they are
    assert len(test.labels) == len(after["test"])
    names = sorted(int(name[:-4]) for name in after["test"])
    assert sorted(test.images[:, 0, 0, 0].tolist()) == sorted(name % 256 for name in names)


def test_classes_are_the_folders_names_in_any_script_and_unicode_form(tmp_path):
    names, found = ["кошка", "ねこ", "a cat & a dog", "😀", "gîte", "Ångström"], []
    for form in ("NFC", "NFD"):
        for k, name in enumerate(names):
            fill(tmp_path / form / unicodedata.normalize(form, name) / "deeper", 12, 40 * k)
        (tmp_path / form / ".hidden").mkdir()
        (tmp_path / form / "notes.txt").write_text("not a picture")
        (tmp_path / form / names[0] / "._1.png").write_bytes(b"what a Mac leaves")
        paint(tmp_path / form / names[0] / "__MACOSX" / "1.png", WHITE)
        assert vae.class_names(f"folder:{tmp_path / form}") == sorted(names)
        found.append(load(tmp_path / form))
    train, other = found
    assert torch.equal(train.labels, other.labels)
    assert torch.equal(train.images, other.images)
    assert train.labels.unique().tolist() == [0, 1, 2, 3, 4, 5]
    greys = [40 * names.index(sorted(names)[k]) for k in train.labels.tolist()]
    shown = train.images[:, 0, 0, 0].tolist()
    assert all(0 <= value - grey < 12 for value, grey in zip(shown, greys, strict=True))


PAIRS = [
    ("train", "test"), ("Training", "Testing"), ("TRAIN", "VAL"), ("train_set", "test_set"),
    ("training_set", "validation_set"), ("seg_train", "seg_test"), ("train", "test1"),
    ("train2017", "val2017"), ("train-images", "test-images"), ("trainset", "testset"),
    ("training data", "test data"), ("train", "valid"), ("train", "dev"), ("train", "eval"),
    ("trainval", "test"), ("train", "hold-out"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), PAIRS, ids="-".join)
def test_the_parts_of_a_set_are_no_classes_whatever_they_are_called(train, test, tmp_path):
    fill(tmp_path / "pets" / train / "cat", 3)
    fill(tmp_path / "pets" / train / "dog", 2, 10)
    fill(tmp_path / "pets" / test / "dog", 4, 20)
    (tmp_path / "pets" / train / "1.json").write_text("{}")
    folder = tmp_path / "pets"
    assert vae.class_names(f"folder:{folder}") == ["cat", "dog"]
    assert sorted(load(folder).images[:, 0, 0, 0].tolist()) == [0, 1, 2, 10, 11]
    assert load(folder, "test").labels.tolist() == [1] * 4
    for number in range(9):  # as pictures to predict are published
        paint(folder / "seg_pred" / f"{number}.png")
    with pytest.warns(UserWarning, match="seg_pred is passed over"):
        assert len(load(folder).images) == 5
    shutil.rmtree(folder / test)
    with pytest.warns(UserWarning, match="seg_pred is passed over"):
        assert len(load(folder).images) + len(load(folder, "test").images) == 5


@pytest.mark.parametrize("held", [
    ["train/1.png", "cats/1.png"], ["trainA/1.png", "trainB/1.png", "testA/1.png"],
    ["Training/1.png", "PublicTest/1.png"], ["val/1.png", "test/1.png"],
    ["bottle/train/good/1.png", "bottle/test/crack/1.png", "cable/train/good/1.png"],
    ["images/train/1.png", "images/val/1.png", "labels/1.png"],
    ["my_train/1.png", "my_test/1.png"], ["train/1.png", "training/1.png", "test/1.png"],
], ids=lambda held: held[0])  # fmt: skip
def test_a_layout_that_is_not_understood_is_refused_with_those_that_are(held, tmp_path):
    for name in held:
        paint(tmp_path / "set" / name)
    with pytest.raises(vae.FileError, match="parts of a set, or classes") as refused:
        load(tmp_path / "set")
    assert "pets/train/...    pets/test/..." in str(refused.value)


def test_names_that_only_hold_the_word_of_a_part_are_classes(tmp_path):
    names = ["bullet_train", "cat", "latest", "protest", "trainer", "valley"]
    for name in names:
        fill(tmp_path / name, 2)
    for helper in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "#recycle", "lost+found"):
        fill(tmp_path / helper, 2)
        fill(tmp_path / "cat" / helper, 2)
    assert vae.class_names(f"folder:{tmp_path}") == names
    assert len(load(tmp_path).images) + len(load(tmp_path, "test").images) == 12


def test_numbered_classes_come_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        fill(tmp_path / "plain" / str(number), 2, 20 * number)
        fill(tmp_path / "words" / f"img {number:02}" / "deeper", 2)
        fill(tmp_path / "words" / f"img {number + 100}", 2)
    assert vae.class_names(f"folder:{tmp_path / 'plain'}") == [str(k) for k in range(12)]
    train = load(tmp_path / "plain")
    assert torch.equal(train.labels, train.images[:, 0, 0, 0].long() // 20)
    names = vae.class_names(f"folder:{tmp_path / 'words'}")
    assert [int(name[4:]) for name in names] == [*range(12), *range(100, 112)]


def test_classes_of_the_test_alone_are_measured_but_never_asked_for(tmp_path, undrawn):
    """As sets of defects come: good ones to train on, good and broken ones to test on."""
    fill(tmp_path / "bottle" / "train" / "good", 30)
    for k, name in enumerate(("crack", "good", "Dent")):
        fill(tmp_path / "bottle" / "test" / name, 5, 50 * k)
    fill(tmp_path / "bottle" / "ground_truth" / "crack", 5)
    with pytest.warns(UserWarning, match="ground_truth is passed over"):
        assert vae.class_names(f"folder:{tmp_path / 'bottle'}") == ["good", "Dent", "crack"]
    shutil.rmtree(tmp_path / "bottle" / "ground_truth")
    test = load(tmp_path / "bottle", "test")
    assert torch.equal(test.labels, torch.tensor([2, 0, 1])[test.images[:, 0, 0, 0].long() // 50])
    config = short(tmp_path / "bottle", epochs=1, batch_size=15)
    run = vae.train(config, tmp_path / "run")
    assert run.metrics["test"]["images"] == 15
    assert run.metrics["classes"] == ["good", "Dent", "crack"]
    prior = vae.train_prior(run.directory, small_prior(epochs=1, batch_size=15))
    assert prior.config.num_classes == 1
    conditional = replace(config, model=replace(config.model, num_classes=1))
    said = r"num_classes=1 is not allowed: the 15 test images .*3 cl"
    with pytest.raises(ValueError, match=said):
        vae.train(conditional, tmp_path / "conditional")
    (tmp_path / "pets").mkdir()
    fill(tmp_path / "pets" / "train" / "cat", 9)
    fill(tmp_path / "pets" / "test", 4)  # nobody says what these are
    assert load(tmp_path / "pets", "test").labels.tolist() == [1] * 4
    assert vae.class_names(f"folder:{tmp_path / 'pets'}") == ["cat", "no class"]


def test_one_class_and_a_thousand_classes_are_enough(tmp_path):
    fill(tmp_path / "one" / "class", 30)
    assert vae.class_names(f"folder:{tmp_path / 'one'}") == ["class"]
    assert load(tmp_path / "one").labels.unique().tolist() == [0]
    for k in range(1000):
        fill(tmp_path / "many" / f"{k:03}", 2, 2 * k, "bmp")
    train = load(tmp_path / "many", size=28)
    assert train.labels.unique().tolist() == list(range(1000))  # one of each is left to train on
    assert len(train.labels[:500].unique()) > 300  # in no order of theirs
    fill(tmp_path / "many" / "one more", 2)
    with pytest.raises(vae.FileError, match="1,001 classes; at most 1000"):
        load(tmp_path / "many")


def test_links_are_followed_once_and_a_folder_around_the_classes_is_passed_by(tmp_path):
    fill(tmp_path / "elsewhere", 6)
    fill(tmp_path / "data" / "PetImages" / "cats", 6)
    (tmp_path / "data" / "PetImages" / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert vae.class_names(f"folder:{tmp_path / 'data'}") == ["cats", "dogs"]
    found = layouts.pictures_in(tmp_path / "data")
    assert sum(map(len, found.values())) == 12


@pytest.mark.parametrize(("held", "told"), [
    ([], "no picture in a format that Pillow reads"),
    (["notes.txt"], "no picture in a format that Pillow reads"),
    (["one.png"], "1 picture is there; 2 or more are expected"),
    (["loose.png", "a/1.png", "a/2.png"], "'loose.png', beside folders of pictures"),
])  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused_by_name(held, told, tmp_path):
    for name in held:
        path = tmp_path / name
        paint(path) if name.endswith("png") else path.write_text("text")
    with pytest.raises(vae.FileError, match=told) as refused:
        load(tmp_path)
    assert str(tmp_path) in str(refused.value) or "1 picture" in told
    with pytest.raises(vae.FileError, match="nowhere does not exist, and data/nowhere neither"):
        load(tmp_path / "nowhere")
    for bad in ("folder:", "file:", "folders:x"):
        with pytest.raises(ValueError, match=r"dataset=.*not allowed: one of .*folder:PATH"):
            vae.TrainConfig(dataset=bad)


def test_every_kind_of_picture_is_read_as_people_see_it(tmp_path):
    png, jpeg, gif = (tmp_path / f"x.{end}" for end in ("png", "jpg", "gif"))
    half = Image.new("RGBA", (40, 40), (*RED, 255))
    half.paste((*BLUE, 0), (0, 0, 40, 20))  # blue, but transparent
    half.save(png)
    seen = pictures.decode(png, 32)
    assert near(seen[4, 16], WHITE) and near(seen[28, 16], RED)  # noqa: PT018
    turned = Image.new("RGB", (80, 40), RED)
    turned.paste(BLUE, (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: left is up
    turned.save(jpeg, exif=exif, quality=95)
    seen = pictures.decode(jpeg, 32)
    assert near(seen[4, 16], BLUE, 12) and near(seen[28, 16], RED, 12)  # noqa: PT018
    assert near(middle(paint(jpeg, (0, 255, 255, 0), mode="CMYK", quality=95)), (255, 0, 0), 8)
    Image.fromarray(np.full((40, 40), 200 * 256, np.uint16)).save(png)
    assert near(middle(png), (200,) * 3, 1)
    frames = [Image.new("RGB", (40, 40), colour) for colour in (GREEN, RED, BLUE)]
    frames[0].save(gif, save_all=True, append_images=frames[1:])
    assert near(middle(gif), GREEN)
    assert middle(paint(png, 1, mode="1")) == [255] * 3
    assert near(middle(paint(png, (90, 0), mode="LA")), WHITE)
    clear = Image.new("P", (40, 40), 0)
    clear.putpalette([*RED, *BLUE])
    clear.save(png, transparency=0)
    assert near(middle(png), WHITE)


def test_the_middle_square_is_resized_with_antialiasing_and_keeps_its_detail(tmp_path):
    wide = Image.new("RGB", (120, 40), RED)
    wide.paste(GREEN, (40, 0, 80, 40))
    wide.save(tmp_path / "wide.png")
    assert (pictures.decode(tmp_path / "wide.png", 32) == GREEN).all()
    stripes = np.repeat(np.arange(32) % 2 * 255, 64).astype(np.uint8)  # as many as pixels
    Image.fromarray(np.tile(stripes, (2048, 1))).save(tmp_path / "x.JPG", quality=95)
    seen = pictures.decode(tmp_path / "x.JPG", 32)[16, :, 0].astype(int)
    assert abs(np.diff(seen)).min() > 150
    fine = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(fine).save(tmp_path / "fine.png")
    assert abs(pictures.decode(tmp_path / "fine.png", 32).astype(float) - 127.5).max() < 2
    same = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(same).save(tmp_path / "same.png")
    assert (pictures.decode(tmp_path / "same.png", 32) == same).all()


def test_one_picture_is_read_as_a_model_takes_it(tmp_path):
    model = vae.VAE(vae.VAEConfig(channels=SMALL, image_size=32, image_channels=3))
    path = paint(tmp_path / "x.webp", size=(60, 90))
    image = vae.read_picture(path, model.config.image_shape)
    opened, array = Image.open(path), np.full((60, 90, 3), RED, np.uint8)
    for given in (path.read_bytes(), opened, opened.convert("RGBA"), array):
        found = vae.read_picture(given, model.config.image_shape).int()
        assert (found - image.int()).abs().max() <= 4
    assert opened.size == (60, 90)  # as it was
    assert near(image[0, :, 16, 16].tolist(), RED)
    assert model.encode(vae.scale_images(image)).mean.shape == (1, 2, 8, 8)
    assert vae.read_picture(str(path), (1, 28, 28)).shape == (1, 1, 28, 28)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(vae.FileError, match=r"x\.webp cannot be read"):
        vae.read_picture(path, (1, 28, 28))
    for shape in ((32, 32, 3), (32, 32), (4, 32, 32), 32, None, (1, 28, 32), (1, 28.0, 28.0)):
        with pytest.raises(ValueError, match=r"^shape=.* is not allowed: \(1 or 3, H, H\)"):
            vae.read_picture(path, shape)
    for wrong in (b"no picture" * 99, np.zeros((4, 4, 7)), torch.zeros(3, 99, 99), [[0] * 999]):
        with pytest.raises(ValueError, match=r"^picture=") as refused:
            vae.read_picture(wrong, (1, 28, 28))
        assert len(str(refused.value)) < 400


def test_sizes_and_colours_of_tensors_follow_pillow():
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 40, 3), np.uint8)
    x = torch.from_numpy(images).movedim(-1, 1)
    square = [Image.fromarray(one).crop((0, 4, 40, 44)) for one in images]
    for size in (28, 64):
        expected = np.stack([one.resize((size, size), Image.Resampling.BICUBIC) for one in square])
        found = pictures.with_size(x, size).movedim(1, -1).numpy()
        assert abs(found.astype(int) - expected.astype(int)).max() <= 1
    grey = np.stack([Image.fromarray(one).convert("L") for one in images])
    assert (pictures.with_channels(x, 1)[:, 0].numpy() == grey).all()
    assert pictures.with_channels(x, None).shape[1] == 3
    assert pictures.with_channels(x[:, :1].repeat(1, 3, 1, 1), None).shape[1] == 1
    assert torch.equal(pictures.with_channels(x[:, :1], 3), x[:, :1].repeat(1, 3, 1, 1))


def test_what_cannot_be_read_is_named_and_labels_stay_with_their_pictures(tmp_path, monkeypatch):
    train = tmp_path / "train"
    fill(train / "dark", 75, end="bmp")
    fill(train / "light", 75, 100, end="bmp")
    fill(tmp_path / "test" / "dark", 1)
    whole = paint(tmp_path / "whole.jpg", size=(200, 200)).read_bytes()
    broken = layouts.pictures_in(tmp_path)["train"][0][1]
    broken.write_bytes(whole[: len(whole) // 2])
    (train / "dark" / "live.heic").write_bytes(b"of a phone")
    with pytest.warns(UserWarning, match="pictures cannot be read|cannot read") as warned:
        images, labels = load(tmp_path)
    assert len(images) == 149
    assert torch.equal(images[:, 0, 16, 16] >= 100, labels == 1)
    said = " ".join(str(one.message) for one in warned)
    assert f"1 of 150 pictures cannot be read: {broken}" in said
    assert re.search(r"Pillow cannot read 1 files, such as .*live\.heic", said)
    (train / "dark" / "live.heic").unlink()
    (train / "dark" / "page.png").write_text("<html>404</html>")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    paint(train / "dark" / "bomb.png", size=(100, 60))
    Image.fromarray(np.zeros((40, 40), np.float32)).save(train / "dark" / "0.tiff")
    with pytest.raises(vae.FileError, match=r"4 of 153 pictures cannot be read") as refused:
        load(tmp_path)
    names = ("0.tiff", "bomb.png", broken.name, "page.png")
    assert sum(f"{name} (" in str(refused.value) for name in names) == 3


def test_colours_are_drawn_as_they_are(tmp_path):
    x = torch.full((4, 3, 32, 32), -1.0)
    x[:, 0], x[:2, 1] = 1, 0  # orange, and red
    drawn = figures.plot_grid(x, 2, "").axes[0].images[0].get_array()
    assert np.allclose(drawn[17, 17], [1, 0.5, 0])
    assert np.allclose(drawn[50, 17], [1, 0, 0])
    assert np.allclose(figures.tile(x.numpy(), 2)[17, 17], [1, 0, -1])
    model = vae.VAE(vae.VAEConfig(channels=SMALL, image_size=32, image_channels=3))
    images = ((x + 1) * 127.5).byte()
    recorded = frames.Frames(vae.Digits(images, torch.zeros(4, dtype=torch.int64)), 4)
    both = recorded.comparison(model, vae.Digits(images, None))
    assert both.shape == (64, 128, 3)
    assert both[5, 5].tolist() == [255, 127, 0]


@pytest.mark.parametrize(("name", "shown"), [
    ("数字", "0"), ("пример 例", "0"), ("a" * 74, "aaaaaaaaaaaaaaa…"),
    ("a word " * 20, "a word a word a…"), ("my $x^$ pics", r"my \$x^\$ pics"),
])  # fmt: skip
def test_names_that_do_not_fit_into_a_picture_are_numbered_or_cut(name, shown, tmp_path, recwarn):
    classes = [name, "犬", "鳥", "cat", "ligature ﬁ", "price $a_{$", "\\x", "a\nb"]
    digits = vae.Digits(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.arange(8))
    title = figures.describe(vae.VAEConfig(16), f"folder:{tmp_path}/{name}")
    title = f"A class a row, a style a column\nthe learned prior, {title}"
    drawn = figures.plot_grid(digits.images, 4, title, down={0: "x"})
    figures.to_png(figures.plot_examples(digits, title, names=classes))
    figures.to_png(drawn)
    assert not recwarn  # of letters that the font lacks, matplotlib warns each time
    found = [figures.class_name(label, classes) for label in (0, 1, 2, 3, 7)]
    assert found == [shown, "1", "2", "cat", "ab"]
    recorded = frames.Frames(digits, 5)
    recorded.epochs, recorded.kl = np.ones(1), np.ones(1)
    recorded.reconstructions = recorded.originals[None]
    large = vae.VAEConfig(16, num_classes=9, image_size=64)
    whole = figures.describe(large, f"folder:{tmp_path}/{name}")
    page = animations.reconstruction_frames(recorded, whole)[0]
    for figure in (drawn, page):
        box = figure.texts[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_a_run_warns_once_of_the_classes_that_it_numbers(tmp_path, unpainted):
    for k, name in enumerate(("猫", "犬", "鳥", "cat")):
        fill(tmp_path / "動物" / name, 12, 12 * k)
    with pytest.warns(UserWarning, match="are numbered") as warned:
        vae.train(short(tmp_path / "動物", epochs=1), tmp_path / "run")
    assert [str(one.message) for one in warned] == [
        "3 classes are numbered in pictures, whose font has no letters for 犬, 猫, 鳥"
    ]


def test_an_archive_is_read_in_each_of_its_shapes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 28, 28), np.uint8)
    labels, path = np.arange(60) % 7, tmp_path / "x.npz"
    found = []
    for given in (images, np.moveaxis(images, 1, -1)):
        np.savez(path, images=given, labels=labels)
        found.append(vae.load_digits("train", f"file:{path}"))
    assert torch.equal(found[0].images, found[1].images)
    assert found[0].images.shape[1:] == (3, 28, 28)  # its own size
    test = vae.load_digits("test", f"file:{path}")
    assert len(found[0].images) + len(test.images) == 60
    whole = torch.cat([found[0].labels, test.labels])
    assert sorted(whole.tolist()) == sorted(labels.tolist())
    place = (images == test.images[0].numpy()).all((1, 2, 3)).nonzero()[0]
    assert labels[place].item() == test.labels[0]
    np.savez(path, images=images, labels=5 * labels + 2)  # with gaps
    assert vae.load_digits("train", f"file:{path}").labels.unique().tolist() == list(range(7))
    assert vae.class_names(f"file:{path}") == ["2", "7", "12", "17", "22", "27", "32"]
    np.savez(path, images=images[:, 0, :20])  # grey, not square, without labels
    train = vae.load_digits("train", f"file:{path}")
    assert train.images.shape[1:] == (1, 32, 32)
    assert train.labels.unique().tolist() == [0]


@pytest.mark.parametrize(("images", "labels"), [
    ("{}_images", "{}_labels"), ("x_{}", "y_{}")])  # fmt: skip
def test_an_archive_of_both_splits_is_taken_as_it_is_published(images, labels, tmp_path):
    x, y, path = np.arange(9 * 784).reshape(9, 28, 28) % 251, np.arange(9)[:, None], tmp_path / "x"
    arrays = {images.format("train"): x[:6], labels.format("train"): y[:6] + 4,
              images.format("test"): x[4:], labels.format("test"): y[4:] + 4}  # fmt: skip
    np.savez(f"{path}.npz", **{name: array.astype(np.uint8) for name, array in arrays.items()})
    train, test = (vae.load_digits(split, f"file:{path}.npz") for split in ("train", "test"))
    assert np.array_equal(train.images[:, 0].numpy(), x[:6])
    assert np.array_equal(test.images[:, 0].numpy(), x[4:])
    assert [*train.labels, *test.labels] == [*range(6), *range(4, 9)]
    assert vae.class_names(f"file:{path}.npz") == [str(k) for k in range(4, 13)]


@pytest.mark.parametrize(("arrays", "told"), [
    ({"pictures": FOUR}, r"the arrays \['pictures'\], and neither 'im"),
    ({"x_train": FOUR}, r"\['x_train'\], and neither 'images' nor"),
    ({"images": FOUR, "labels": np.zeros((4, 14), int)}, r"\(4, 14\)"),
    ({"images": np.float32(FOUR)}, r"float32 \(4, 28, 28\); uint8"),
    ({"images": np.zeros((4, 28, 28, 2), np.uint8)}, r"\(4, 28, 28, 2\); uint8"),
    ({"images": FOUR, "labels": [0, 1]}, "4 whole numbers"),
    ({"images": FOUR[:2], "labels": [0, -1]}, "2 whole numbers"),
    ({"images": np.array([{}, {}], dtype=object)}, "cannot be read"),
    ({"images": FOUR[:0]}, r"\(0, 28, 28\); uint8"),
    ({"images": FOUR[:, :0]}, r"\(4, 0, 28\); uint8"),
    ({"images": np.uint8(3)}, r"uint8 \(\); uint8"),
])  # fmt: skip
def test_an_archive_that_does_not_fit_is_refused_by_name(arrays, told, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(vae.FileError, match=rf"x\.npz .*{told}"):
        vae.load_digits("train", f"file:{tmp_path / 'x.npz'}")
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(vae.FileError, match=r"y\.npz cannot be read"):
        vae.load_digits("train", f"file:{tmp_path / 'y.npz'}")


def test_a_folder_that_moved_is_found_beside_the_other_data(tmp_path):
    fill(tmp_path / "new" / "pets", 20)
    there = vae.load_digits("train", "folder:/gone/pets", tmp_path / "new")
    assert torch.equal(there.images, load(tmp_path / "new" / "pets").images)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A hundred pictures in colour, of three classes."""
    folder, chance = tmp_path_factory.mktemp("data") / "pets", np.random.default_rng(0)
    for k, name in enumerate(("cats", "dogs", "birds of paradise, and others")):
        (folder / name).mkdir(parents=True)
        for number in range(34):
            picture = chance.integers(0, 100, (6, 6, 3), np.uint8)
            picture[..., k] += 120
            Image.fromarray(picture).resize((50, 40)).save(folder / name / f"{number}.png")
    return folder


TINY = ("--channels", *map(str, SMALL), "--epochs", "2", "--batch-size", "16", "--lpips-images",
        "4", "--perceptual-share", "0.05", "--frames", "2", "--early-evaluations", "0")  # fmt: skip


def test_a_folder_gets_all_that_mnist_gets(pets, tmp_path, capsys, monkeypatch, wide_networks):
    """Train, measure, draw, a prior, and a decoder that is sharpened: in colour, by class."""
    run, data = str(tmp_path / "run"), ("--dataset", f"folder:{pets}")
    monkeypatch.setattr(figures, "to_png", lambda figure: b"")  # the GIFs are looked at below
    assert main(["train", *data, "--latent-size", "3", "--run-dir", run, *TINY]) == 0
    assert main(["train-prior", run, "--channels", "16", "--blocks", "1", "--steps", "2",
                 "--epochs", "1", "--batch-size", "16"]) == 0  # fmt: skip
    assert main(["evaluate", run]) == 0
    assert "Largest difference from metrics.json" in capsys.readouterr().out
    loaded, prior = Run.load(run), vae.LatentPrior.from_pretrained(run)
    assert loaded.model.config.image_shape == (3, 32, 32)
    assert loaded.model.config.latent_shape == prior.latent_shape == (3, 8, 8)
    assert loaded.metrics["classes"] == ["birds of paradise, and others", "cats", "dogs"]
    assert prior.config.num_classes == 3
    assert loaded.model.sample(2, [0, 2], prior=prior).shape == (2, 3, 32, 32)
    assert loaded.frames.originals.shape == (10, 3, 32, 32)
    drawn = {path.name for path in (tmp_path / "run").iterdir()}
    assert set(PICTURES) - drawn == {"digits.png", "manifold.png"}
    assert "prior_samples.png" in drawn
    for name in ("reconstruction", "interpolation"):  # in colour, and not in the curves' alone
        shown = np.asarray(Image.open(tmp_path / "run" / f"{name}.gif").convert("RGB"), int)
        assert (np.ptp(shown, axis=2) > 40).sum() > 8_000
    page = animations.latent_frames(loaded.frames, "", 192, loaded.metrics["classes"])[-1]
    assert {"cats", "dogs", "birds of paradi…"} <= {text.get_text() for text in page.texts}
    again = "--dataset", f"folder:{pets}/", "--latent-size", "3"  # the same folder
    assert main(["train", *again, "--run-dir", run, *TINY]) == 0
    assert "nothing is trained" in capsys.readouterr().out  # what was left open is as it was there
    vector = str(tmp_path / "vector")
    paint_nothing(monkeypatch)
    with mock.patch("vae.machinery.run.render"):
        assert main(["train", *data, "--latent-grid", "1", "--num-classes", "3", "--image-size",
                     "64", "--run-dir", vector, *TINY, "--epochs", "1"]) == 0  # fmt: skip
    assert main(["sharpen", vector, "--epochs", "1", "--batch-size", "16", "--lpips-images", "0",
                 "--w-perceptual", "0", "--frames", "2"]) == 0  # fmt: skip
    sharp = Run.load(tmp_path / "vector" / "sharp")
    assert sharp.model.config.image_shape == (3, 64, 64)
    capsys.readouterr()
    assert main(["evaluate", vector + "/sharp", "--lpips-images", "0"]) == 0
    assert float(capsys.readouterr().out.split()[-1]) < 1e-6  # from metrics.json
    assert sharp.metrics["classes"] == loaded.metrics["classes"]
    assert (tmp_path / "vector" / "sharp" / "digits.png").is_file()


def short(folder, **options):
    """The settings of a short training on a folder, by MSE and KL."""
    few = {"w_perceptual": 0, "lpips_images": 0, "frames": 3, "early_evaluations": 0}
    model = vae.VAEConfig(channels=SMALL)
    return vae.TrainConfig(model, dataset=f"folder:{folder}", **few | options)


def test_two_pictures_without_classes_train(tmp_path, unpainted):
    fill(tmp_path / "two", 2)
    run = vae.train(short(tmp_path / "two", epochs=52, batch_size=1), tmp_path / "run")
    steps = [row["step"] for row in run.metrics["history"]["test"]]
    assert steps == [*range(3, 52, 3), 52]  # at most 25 evaluations, and one at the end
    assert run.model.config.image_shape == (1, 32, 32)
    assert "classes" not in run.metrics
    assert len(run.frames.classes) == run.metrics["test"]["images"] == 1
    assert {"latent.gif", "reconstruction.gif"} <= set(os.listdir(tmp_path / "run"))


def test_few_pictures_are_seen_more_often(tmp_path):
    fill(tmp_path / "pictures", 50)
    data = {"dataset": f"folder:{tmp_path / 'pictures'}"}
    count = len(load(tmp_path / "pictures").images)
    full = vae.with_budget(vae.TrainConfig(**data), "full")
    quick = vae.with_budget(vae.TrainConfig(**data), "quick")
    shown = count // 32 * 32  # in an epoch
    assert full.epochs == round(3 * 60_000 / shown)
    assert quick.epochs == round(24_000 / shown)
    assert vae.with_budget(vae.TrainConfig(**data, epochs=2), "full").epochs == 2
    prior = vae.with_budget(vae.PriorTrainConfig(), "full", count)
    assert prior.epochs == round(16 * 60_000 / count)
    assert vae.with_budget(vae.TrainConfig(), "full").epochs == 3
    few = vae.with_budget(vae.PriorTrainConfig(epochs=2), images=9)
    assert (few.epochs, few.batch_size) == (2, 9)
    assert vae.with_budget(vae.PriorTrainConfig(batch_size=16), images=9).batch_size == 16


def test_images_stay_where_they_are_if_a_gpu_is_too_small(pets, tmp_path, monkeypatch):
    store, taken, config = machine.Machine.store, [], short(pets, epochs=1, batch_size=16)

    def store_on_gpu(self, images):
        with mock.patch.object(self, "device", Gpu(DEVICE)):
            return store(self, images)

    monkeypatch.setattr(machine, "choose_device", lambda number: DEVICE)
    monkeypatch.setattr(machine.Machine, "store", store_on_gpu)
    for memory in (10**9, 10**5):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, memory=memory: (0, memory))
        with present():
            trainer = vae.Trainer(config, tmp_path)
            assert (type(trainer.train_set.images) is Elsewhere) == (memory == 10**9)
            x, _, noise = trainer.batch()
            assert type(x) is type(noise) is Elsewhere
            taken.append(x.cpu())
            trainer.take_step()
    assert torch.equal(*taken)


@pytest.mark.parametrize(("options", "told"), [
    ({"image_size": 30}, "image_size=30.*multiple of 4"),
    ({"image_size": 24}, "image_size=24.*at least 28"),
    ({"image_size": 68}, "image_size=68.*at most 64"),
    ({"image_channels": 2}, r"image_channels=2.*\(1, 3\)"),
    ({"latent_grid": 7, "image_size": 32}, "latent_grid=7.*1, or a quarter of it, 8"),
])  # fmt: skip
def test_sizes_that_no_model_can_have_are_refused_by_name(options, told):
    with pytest.raises(ValueError, match=told):
        vae.VAEConfig(**options)


def test_what_a_config_leaves_open_follows_the_images():
    assert vae.VAEConfig().image_shape == (1, 28, 28)
    assert vae.VAEConfig(latent_grid=1).fitted(3, 32).latent_shape == (2, 1, 1)
    assert vae.VAEConfig(latent_grid=16).fitted(1, 32).image_size == 64  # four times it
    model = vae.VAE(vae.VAEConfig(channels=SMALL, image_size=64, image_channels=3))
    y, posterior = model(torch.zeros(2, 3, 64, 64))
    assert (y.shape, posterior.mean.shape) == ((2, 3, 64, 64), (2, 2, 16, 16))


def test_cifar10_is_read_from_its_own_files(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1, 0, 9]}))
    names = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / CIFAR10.meta["filename"]).write_bytes(names)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    found = vae.load_digits("train", "cifar10", tmp_path)
    assert found.images.shape == (20, 3, 32, 32)
    assert torch.equal(found.images[0], torch.from_numpy(pixels[0].reshape(3, 32, 32)))
    assert found.labels[:4].tolist() == [3, 1, 0, 9]
