"""The domain of Longleaf and its two flows: writing (ingest) and reading (answer).

Nothing in this package imports ``embedders``, ``indexers``, ``rerankers`` or ``api``; it reaches
them only through the protocols in :mod:`pipeline.seams`.
"""
