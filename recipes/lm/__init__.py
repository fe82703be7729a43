"""Fixed-budget training of small language models of DCLM's family."""
