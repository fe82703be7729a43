"""What the language and the CLIP trainer share: processes, folders, checkpoints, console and page."""
