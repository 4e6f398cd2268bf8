"""How a network is trained: the steps, the one loop around them, settings, the optimiser."""
