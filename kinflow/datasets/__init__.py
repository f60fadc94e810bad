"""Data sets and clips made for training: 3DPW, synthetic clips with known 3D."""
