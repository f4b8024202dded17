"""Training sets in their published layouts, one file a layout.

Listing a set reads annotation files and at most the header of an image, never its pixels.
"""
