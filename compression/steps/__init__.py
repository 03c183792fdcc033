"""The steps a recipe can name: thin modules with ``Options`` and ``apply``; the algorithms lie in the other folders."""
