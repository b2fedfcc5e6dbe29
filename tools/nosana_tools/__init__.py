"""Generators of the repository's own files: the chart's schema and README, manifests, reference pages."""
