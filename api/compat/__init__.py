"""Routes that speak the dialects of others, so that their clients work unchanged."""
