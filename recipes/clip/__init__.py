"""Fixed-budget CLIP training: exact samples, seeded order, resumable, safetensors out."""
