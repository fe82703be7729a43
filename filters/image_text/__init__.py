"""Scores and ready-made keeps for image-text pairs. Importing this loads no model library."""

from filters.image_text.alignment import ClipScore, FilterNetwork, clip_score, filter_network
from filters.image_text.captions import CaptionBasics, caption_basics
from filters.image_text.images import ImageBasics, ImageError, image_basics
from filters.image_text.rules import basic_rules, caption_rules

__all__ = [
    "CaptionBasics",
    "ClipScore",
    "FilterNetwork",
    "ImageBasics",
    "ImageError",
    "basic_rules",
    "caption_basics",
    "caption_rules",
    "clip_score",
    "filter_network",
    "image_basics",
]
