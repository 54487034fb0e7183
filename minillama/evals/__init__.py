"""The paper's 20 benchmarks, asked the way the paper asked them."""
