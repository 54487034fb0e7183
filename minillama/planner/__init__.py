"""What a run needs before it runs: memory, time, energy, money.

Everything here is arithmetic on a `ModelConfig` and a `Layout`; the formulas
are held against the real model (`count`), the engine on paper GPUs
(`dry_run`) and the figures that the paper prints.

Chapter: notebooks/13_scaling.ipynb
"""
