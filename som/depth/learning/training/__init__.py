"""Training of depth networks: configuration, objective, trainer. See docs/depth.md."""
