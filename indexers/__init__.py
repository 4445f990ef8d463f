"""Indexes: one file each, registered by file name (see :mod:`pipeline.plugins`)."""
