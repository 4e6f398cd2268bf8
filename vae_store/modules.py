"""A network in a folder: its weights as safetensors, its config as JSON, each checked when read."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import nn

from . import hub
from .checkpoint import CHECKPOINT_NAME, check_begun
from .files import FileError, as_path, load_tensors, read_json, save_tensors, write_json
from .settings import check_kind, from_saved

Kind = TypeVar("Kind", bound="Pretrained")


class Pretrained(nn.Module):
    """A network with a `config`, a dataclass, that a folder can hold."""

    config_type: ClassVar[type]
    config_name: ClassVar[str] = "config.json"
    weights_name: ClassVar[str] = "model.safetensors"
    checkpoint_name: ClassVar[str] = CHECKPOINT_NAME

    def __init__(self, config: object = None):
        super().__init__()
        self.config = self.config_type() if config is None else config
        check_kind(self.config, "config", self.config_type)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write weights and config into `directory`, each file in one step."""
        directory = as_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / self.config_name, asdict(self.config), indent=2)
        save_tensors(directory / self.weights_name, self.state_dict(), {})

    def push_to_hub(self, repo_id: str, *, private: bool | None = None,
                    token: str | None = None) -> str:  # fmt: skip
        """Upload what `save_pretrained` writes to the Hugging Face hub; returns the commit's URL.

        `repo_id`: "owner/name", which is made if it is not there, `private` or not (None: as its
        owner's are); other files in it stay. `token`: of the hub; None: the one that
        `hf auth login` or HF_TOKEN left. Raises `ValueError` for another name, and `OSError` with
        the reason why the hub did not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            message = f"Upload a {type(self).__name__}"
            return hub.upload(repo_id, folder, message, private, token)

    @classmethod
    def from_pretrained(cls: type[Kind], directory: str | Path,
                        revision: str | None = None) -> Kind:  # fmt: skip
        """What `save_pretrained` wrote, on the CPU, in float32, in evaluation mode.

        `directory`: a folder, or "owner/name" of the Hugging Face hub where there is no such
        folder. `revision`: a branch, a tag or a commit there; None: the main branch. Raises
        `FileError` (a `ValueError`) naming the file that is missing, truncated, altered since it
        was written, or of another network, and `ValueError` for a folder's `revision`. No code is
        unpickled.
        """
        path = as_path(directory)
        if not hub.is_repository(directory):
            if revision is not None:
                given = f"revision={revision!r} is not allowed"
                raise ValueError(f"{given}: directory={str(directory)!r} is a local path")
            return cls._read(path)
        folder = hub.fetch(directory, (cls.config_name, cls.weights_name), revision)
        try:
            return cls._read(folder)
        except FileError as error:
            raise FileError(f"{directory} on the Hugging Face hub: {error}") from error

    @classmethod
    def _read(cls: type[Kind], directory: Path) -> Kind:
        """What `save_pretrained` wrote into a folder. Raises `FileError` as `from_pretrained`."""
        path, weights_path = directory / cls.config_name, directory / cls.weights_name
        check_begun(path, cls.checkpoint_name)
        check_begun(weights_path, cls.checkpoint_name)
        if not path.is_file():
            raise FileError(f"{path} does not exist; the config of a {cls.__name__} is expected")
        saved = read_json(path, f"a {cls.__name__}'s config")
        try:
            config = from_saved(cls.config_type, saved)
        except (TypeError, ValueError) as error:
            raise FileError(f"{path} is not a {cls.__name__}'s config: {error}") from error
        weights = load_tensors(weights_path)[0]
        with torch.device("meta"):  # takes no memory, whatever the config asks for
            module = cls(config)
        try:
            if not all(tensor.is_floating_point() for tensor in weights.values()):
                raise RuntimeError("weights are not floating-point numbers")
            module.load_state_dict({k: t.float() for k, t in weights.items()}, assign=True)
        except RuntimeError as error:
            raise FileError(f"{weights_path} does not fit {path}: {error}") from error
        return module.to(memory_format=torch.channels_last).eval()
