"""Where notebooks find what they display."""

from vae_show.notebook import *  # noqa: F403
