"""A synthetic chest with COVID-19-like lesions: ``python -m data.phantom``."""
