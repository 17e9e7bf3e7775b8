"""Scores, their statistics, tables and figures."""
