"""Variants of the fitted ancestral solver, under the distance between distributions of chunks."""
