"""Graph: what all stages share: names, tensors, operators, an interpreter."""
