"""How well rooms are spread over servers: the product's own grid, simulated. See ``README.rst``."""
