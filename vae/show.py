"""Where notebooks of before look for the pictures."""

from vae_show import figures as figures
