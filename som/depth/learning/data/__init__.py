"""Training samples for depth from recordings: sources, augmentation, frames that show no motion left out."""
