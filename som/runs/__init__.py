"""What every long run needs: work dirs, checkpoints, interruption, logs, progress, device."""
