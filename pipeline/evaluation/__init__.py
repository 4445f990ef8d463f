"""How good answers and searches are on questions with known evidence, and what they cost."""
