"""Small images that stand in for real ones, under the real ones' names."""
