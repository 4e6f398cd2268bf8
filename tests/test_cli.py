import pytest

from vae.cli import main, parser


def test_every_setting_is_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["train", "--help"])
    shown = capsys.readouterr().out
    for flag in ("--latent-size", "--latent-grid", "--epochs", "--seed", "--run-dir",
                 "--max-train-images", "--beta", "--w-perceptual", "--w-adversarial",
                 "--no-self-attention"):  # fmt: skip
        assert flag in shown


def test_a_users_mistake_is_one_line(capsys):
    assert main(["train", "--latent-grid", "5"]) == 2
    assert capsys.readouterr().err == "vae: latent_grid=5 is not allowed: one of (1, 7)\n"
    assert main(["evaluate", "/no/such/folder"]) == 2
    assert "/no/such/folder/config.json does not exist" in capsys.readouterr().err
