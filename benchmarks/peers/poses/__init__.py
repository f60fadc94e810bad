"""Priors over single poses, one file a family, behind one interface: :class:`peers.poses.base.PosePrior`."""
