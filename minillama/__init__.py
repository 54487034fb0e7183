"""minillama: LLaMA rebuilt end to end, one short module per idea."""
