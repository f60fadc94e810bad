"""The three trainings: flow, dynamics, reconstructor. One loop serves all (:mod:`kinflow.training.loop`)."""
