"""Where training batches come from: projected motion capture, rendered and perceived clips, windows of motion."""
