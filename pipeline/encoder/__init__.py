"""One text encoder in this process: a sentence-transformers folder in, pooled vectors out.

``folder`` says what a model's files declare, ``tokens`` turns text into one encoding, ``bert`` runs the
BERT family without padding, ``library`` runs everything else through sentence-transformers, and ``pool``
batches sequences and pools token vectors.
"""
