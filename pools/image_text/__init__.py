"""How the embedded image-text pool is made: pictures with names from packages, captions, rendering.

Used by :mod:`pools.build_image_text` only; a reader of the pool needs :mod:`pools.demo_image_text`.
"""
