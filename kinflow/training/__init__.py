"""Training of the four networks: one loop (``loop``) and one way to run it (``run``), a task a network, streams of batches."""
