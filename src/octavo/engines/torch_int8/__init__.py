"""The torch_int8 engine: `lowering` rewrites to oneDNN kernels, `engine` runs them."""
