"""Scripts that measure. Each prints machine, commit, workload, n, and ratios taken in the same run."""
