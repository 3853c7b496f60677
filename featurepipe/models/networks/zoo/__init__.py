"""The networks that can be trained.

Each module has the name of a row of `featurepipe.models.networks.recipes.NETWORKS` and holds its
``build``. A network is one row and one file, however short: so it can be added, read and compared
with its publication alone.
"""
