"""The engine: training, inference, evaluation, output, and the command line of the scripts."""
