"""Matching: how a template and a search region are compared."""
