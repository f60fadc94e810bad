"""Motion capture: importers of BVH, ASF/AMC, DeepMimic and AMASS, rigs, retargeting, clips."""
