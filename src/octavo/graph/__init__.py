"""What every stage needs of a graph: names, tensors, operators, an interpreter."""
