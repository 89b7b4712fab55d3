"""Search: which sites stay float, for accuracy or for speed."""
