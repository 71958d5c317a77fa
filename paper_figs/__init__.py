"""The figures, one module each: ``python -m paper_figs --list``."""
