"""What a training run needs: memory, time, disk, and what would fit. Pure: no torch, no weights."""
