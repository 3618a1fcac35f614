//! Baselines that the benchmarks hold the data plane against.
