"""The OpenVINO engine: `engine` compiles and runs, `build` converts the graph."""
