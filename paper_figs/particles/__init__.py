"""The particle study: how associative memories learn under cross-entropy, one small module a figure."""
