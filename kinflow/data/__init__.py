"""Motion data: importers for motion capture, AMASS and 3DPW, retargeting, clips, augmentation, synthetic clips."""
