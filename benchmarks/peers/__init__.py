"""Published peers of kinflow's prior, each re-implemented from its paper, for the benchmarks alone."""
