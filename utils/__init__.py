"""What the scripts share: options, training, inference, losses, metrics, checkpoints, reports."""
