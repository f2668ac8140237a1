"""The labels that the sample's two models give to the same picture, `chelsea.jpg`."""

from __future__ import annotations

TIGER_CAT = "n02123159 tiger cat"
EGYPTIAN_CAT = "n02124075 Egyptian cat"
